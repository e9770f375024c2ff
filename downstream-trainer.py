#!/usr/bin/env python3
"""Downstream training with the published flags; a thin front over recipes/mimic-cxr-corrected.yaml (stage train).

python downstream-trainer.py --tm 'transformer' -d $DATA_DIR --ckpt $CKPT_DIR --dp 1.0 -b 128 --pm True -w 24 --mr 0.15 -c 14 --lr 0.0001 --wd 0.001 -f False --ngpus 1 --acc 'gpu' -e 100 -p 32 --esd 0.0001
"""

import sys
from pathlib import Path

from chexmsn.cli.main import guarded

RECIPE = Path(__file__).parent / "recipes" / "mimic-cxr-corrected.yaml"


def work() -> None:
    """Load what the command needs, which takes seconds, where a stop or a mistake is already told in one line."""
    from chexmsn.recipes.published import train_as_published

    train_as_published(sys.argv[1:], RECIPE)


if __name__ == "__main__":
    sys.exit(guarded(work))
