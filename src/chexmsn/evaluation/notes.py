"""The sentences of the column `note`: why a value has no interval, no number, or an interval of no width."""

from chexmsn.metrics.bootstrap import FEWEST_PATIENTS

FEW = f"no interval: fewer than {FEWEST_PATIENTS} patients"
RARE = "no interval: too few patients with or without the finding"
NO_LOSS = f"{RARE}, or the reference loses too little"
UNSKILLED = "no drop above chance: the clean value is not surely above chance"
NO_WIDTH = "no width: every resample gives this value (constant scores or perfect separation)"
