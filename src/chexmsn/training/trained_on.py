"""Whose images a model was trained on, kept beside its run so that it is not tested on the same people.

`trained_on.parquet` in a run folder has one row per patient: `stage` (pretraining, training), `origin` (the
collection), `patient` (a 64-bit hash of the identifier). Whoever has the identifiers, or can guess them, can look them
up in it: it tells no more than the pack that the run was made from, stays where the run is, and goes into no artefact
or report.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int64

from chexmsn.core.distributed import is_first
from chexmsn.core.draws import key_of
from chexmsn.core.files import write_atomic
from chexmsn.core.tables import read_table
from chexmsn.data.collection import Collection

FILE = "trained_on.parquet"


def hashed(patients: Iterable[str]) -> list[int]:
    """One signed 64-bit number per patient."""
    return [key_of("patient", patient) for patient in patients]


def keep_trained_on(
    run: Path,
    stage: Literal["pretraining", "training"],
    images: Collection,
    rows: Int64[np.ndarray, "n"],
    encoder_from: Path | None = None,
) -> None:
    """Write whose images a run is made with, and before them those of the encoder that it starts from, where known."""
    if not is_first():
        return
    names = images.index["patient_id"].to_numpy()[rows]  # within their collection, which `origin` names
    people = pd.DataFrame({"origin": images.origins[rows], "patient": names}).drop_duplicates()
    people["patient"] = hashed(people["patient"])
    people.insert(0, "stage", stage)
    before = None if encoder_from is None else read_trained_on(encoder_from)
    table = people if before is None else pd.concat([before, people])
    write_atomic(
        run / FILE, lambda file: table.sort_values(["stage", "origin", "patient"]).to_parquet(file, index=False)
    )


def read_trained_on(model: Path) -> pd.DataFrame | None:
    """The table of the run that a model lies in, itself a run folder, an artefact or a checkpoint; None: not recorded.

    Raises UserError where it is damaged.
    """
    place = model.resolve()
    runs = (folder for folder in (place, *place.parents[:2]) if (folder / "run.json").is_file())
    file = next(runs, place) / FILE
    return read_table(file, "remove it, and the patients of training are not checked") if file.is_file() else None
