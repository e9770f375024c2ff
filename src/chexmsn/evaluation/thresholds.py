"""From which probability on a finding counts as present: told, or chosen on clean images that are not the tested ones.

Thresholds that are chosen on the tested images fit their chance: sensitivity and specificity come out too high there.
So they come with the model, from a file, or from another split, whose patients are others.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from chexmsn.core.errors import UserError
from chexmsn.data.labels import canonical
from chexmsn.data.pack import sha256
from chexmsn.data.source import index_by, read_text_table
from chexmsn.evaluation.cohort import findings_of, labels_of
from chexmsn.metrics.thresholds import choose_thresholds

HELD_OUT = "validate"
NONE_TOLD = "none: the model brings none, and there is no other split to choose them on; see the option thresholds"


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of some findings, and where they come from.

    Attributes:
        values: by finding; a finding may have none.
        origin: a sentence for records and reports.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    origin: str = NONE_TOLD

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of them."""
        return {"thresholds": self.values, "thresholds_from": self.origin}

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> "Thresholds":
        """Those of a record; older ones do not say where theirs come from."""
        return cls(record.get("thresholds", {}), record.get("thresholds_from", "came with the model"))

    @classmethod
    def chosen(cls, scores: Float32[np.ndarray, "N C"], labels: pd.DataFrame, where: str) -> "Thresholds":
        """Those with the best sensitivity + specificity on clean images; `labels` is a table as `labels.parquet`."""
        size = f"{len(labels)} clean images of {labels['patient_id'].nunique()} patients"
        chosen = choose_thresholds(scores, labels_of(labels), findings_of(labels))
        return cls(chosen, f"chosen on {size} of {where}, where sensitivity + specificity is highest (Youden's index)")


def of_model(own: Mapping[str, float]) -> Thresholds:
    """Those that came with a model."""
    return Thresholds(own, "came with the model, which chose them on clean images of its own validation split")


def find_thresholds(
    asked: str | None,
    own: Mapping[str, float],
    findings: Sequence[str],
    splits: Collection[str],
    tested: str,
    choose: Callable[[str], Thresholds],
) -> Thresholds:
    """Thresholds from where they were asked for; else the model's own; else chosen on the split `validate`, if any.

    Args:
        asked: a split, a CSV file or None.
        own: those that the model brings.
        findings: the tested ones.
        splits: those that there are images of.
        tested: the split that is tested.
        choose: chooses them on the clean images of a split.

    Raises:
        UserError: what was asked for is the tested split, no split and no file, or a file of something else.
    """
    if asked is None and own:
        return of_model(own)
    if asked is None:
        return choose(HELD_OUT) if HELD_OUT in splits and tested != HELD_OUT else Thresholds()
    if asked == tested:
        raise UserError(
            f"thresholds are not chosen on the tested images, the split {tested!r}, since they would fit its chance: "
            "name another split, or a file"
        )
    if asked in splits:
        return choose(asked)
    if asked.endswith(".csv") and not Path(asked).exists():
        raise UserError(f"the file of thresholds {asked} is not there: give a CSV file (finding, threshold)")
    if not splits and not Path(asked).is_file():
        raise UserError(
            f"thresholds {asked!r} is no file, and there are no splits to choose them on: give a CSV file (finding, "
            "threshold), or a pack with scores of another split"
        )
    if not Path(asked).is_file():
        others = ", ".join(split for split in splits if split != tested) or "there is no other"
        raise UserError(f"thresholds is a split ({others}) or a CSV file (finding, threshold), not {asked!r}")
    return read_thresholds(Path(asked), findings)


def asked_thresholds(asked: str | None) -> dict[str, str]:
    """What tells two runs apart: the split, or the content of the file; nothing where nothing was asked for."""
    if asked is None:
        return {}
    return {"thresholds": sha256(Path(asked))[:16] if Path(asked).is_file() else asked}


def read_thresholds(file: Path, findings: Sequence[str]) -> Thresholds:
    """Those of a CSV file with the columns finding and threshold, of these findings; others in it are left.

    Raises UserError for a file of something else, a threshold that is no probability, and none of these findings.
    """
    rows = read_text_table(file, ["finding", "threshold"])
    rows = index_by(rows.assign(finding=rows["finding"].map(canonical)), "finding", file)
    values = pd.to_numeric(rows["threshold"], errors="coerce")
    if len(wrong := rows.index[~values.between(0, 1)]):
        told = rows["threshold"][wrong[0]]
        raise UserError(f"{file} has {told!r} as the threshold of {wrong[0]}: give a probability, from 0 to 1")
    known = {finding: float(values[finding]) for finding in findings if finding in values.index}
    if not known:
        raise UserError(f"{file} has no threshold of {', '.join(findings)}: it names {', '.join(rows.index)}")
    without = [finding for finding in findings if finding not in known]
    lacking = f", which has none of {', '.join(without)}" if without else ""
    return Thresholds(known, f"given in the file {file.name}{lacking}")
