"""A model is not tested on what, or on whom, it was trained on, as far as is known.

Known are the splits and packs in a model's provenance, and the patients in `trained_on.parquet` beside its run, which
finds the same people in another pack. Nothing is known of models from elsewhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection
from chexmsn.data.pack import Pack
from chexmsn.training.trained_on import hashed, read_trained_on

STAGES = ("pretraining", "training")


def check_unseen(images: Collection, provenance: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """What the check found: a sentence for the record, `patients_of_training`, and one in `doubts`, if there is one.

    Args:
        images: of one split of one pack, which are to test the model.
        provenance: what the model's artefact says of its making.
        model: where it lies.

    Raises:
        UserError: it was trained on this split of this pack, or on patients of these images.
    """
    (split,), (pack,) = images.splits, images.packs
    if stage := stage_that_saw(pack, split, provenance):
        raise UserError(
            f"the split {split!r} of {pack.folder} was used in the {stage} of {model}, and a "
            "model cannot be tested on what it was trained on: choose another split"
        )
    people = read_trained_on(model)
    if people is None:
        return {"patients_of_training": "its patients are not recorded: only packs and splits could be compared"}
    return _check_patients(images, people, model)


def stage_that_saw(pack: Pack, split: str, provenance: Mapping[str, Any]) -> str | None:
    """Which stage of a model's making used a split of a pack: pretraining, training or, as far as is known, none."""
    for stage in STAGES:
        if split in provenance.get(stage, {}).get("data", {}).get("packs", {}).get(pack.fingerprint, []):
            return stage
    return None


def _check_patients(images: Collection, people: pd.DataFrame, model: Path) -> dict[str, Any]:
    (origin,), tested = set(images.origins), set(hashed(set(images.index["patient_id"])))
    alike = people[people["patient"].isin(tested)]
    same = alike[alike["origin"] == origin]
    if len(same):
        stages = " and ".join(same["stage"].unique())
        raise UserError(
            f"{same['patient'].nunique()} of the {len(tested)} patients in {images.packs[0].folder} "
            f"({images.splits[0]}) were in the {stages} of {model}, in a pack of the same collection ({origin}): "
            "choose another split, or prepare one without them"
        )
    if not len(alike):
        trained = people["patient"].nunique()
        return {"patients_of_training": f"none of the {len(tested)} tested patients is among the {trained} of training"}
    names = ", ".join(sorted(alike["origin"].unique()))
    doubt = (
        f"{alike['patient'].nunique()} of {len(tested)} tested patients are called as patients of {names}, on whom the "
        "model was trained: if they are the same people, it does better here than on strangers"
    )
    return {"patients_of_training": doubt, "doubts": [doubt]}
