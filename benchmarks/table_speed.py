"""How long does reading the tables of a large collection take? Drawn tables of the published number of rows, no images.

    OMP_NUM_THREADS=1 python benchmarks/table_speed.py

Seconds of processor time from the folder to the checked table, all images missing, and the peak memory of the process.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.core.lookup import load
from chexmsn.data.prepare import SOURCES
from chexmsn.data.source import make_config
from chexmsn.data.sources import chexpert, nih14, padchest

RNG = np.random.default_rng(0)


def draw_nih14(folder: Path) -> None:
    """112,120 rows of 30,805 patients."""
    patients = np.sort(RNG.integers(1, 30_806, 112_120))
    names = [f"{patient:08d}_{visit:03d}.png" for visit, patient in enumerate(patients)]
    few = ["|".join(RNG.choice(nih14.LABELS[:-1], 1 + kind % 4, replace=False)) for kind in range(800)]
    columns = {"Image Index": names, "Finding Labels": RNG.choice([*few, *["No Finding"] * 800], len(names))}
    columns |= {"Follow-up #": 0, "Patient ID": patients, "Patient Age": "058Y", "Patient Gender": "M"}
    columns |= {"View Position": "PA", "OriginalImage[Width": 2682, "Height]": 2749}
    table = pd.DataFrame(columns | {"OriginalImagePixelSpacing[x": 0.143, "y]": 0.143})
    table.to_csv(folder / nih14.TABLES[0], index=False)
    test = patients > 28_008
    for name, listed in ((nih14.TRAIN, ~test), (nih14.TEST, test)):
        (folder / name).write_text("\n".join(table["Image Index"][listed]))


def draw_chexpert(folder: Path) -> None:
    """223,414 rows of 64,540 patients."""
    patients = np.sort(RNG.integers(1, 64_541, 223_414))
    stem = "CheXpert-v1.0/train/patient{:05d}/study1/view{}_frontal.jpg"
    paths = [stem.format(patient, view) for view, patient in enumerate(patients)]
    about = {"Path": paths, "Sex": "Female", "Age": 60, "Frontal/Lateral": "Frontal", "AP/PA": "AP"}
    values = RNG.choice(["1.0", "0.0", "-1.0", ""], (len(paths), 14), p=[0.2, 0.1, 0.1, 0.6])
    table = pd.DataFrame(about).join(pd.DataFrame(values, columns=list(chexpert.FINDINGS)))
    table.to_csv(folder / chexpert.TRAIN, index=False)


def draw_padchest(folder: Path) -> None:
    """160,861 rows of 67,625 patients, with 30,000 different lists."""
    names = [name for kinds in padchest.MEANING.values() for name in kinds]
    lists = [str([f" {name}" for name in RNG.choice(names, 1 + kind % 6)]) for kind in range(30_000)]
    patients = RNG.integers(10**17, 10**17 + 67_625, 160_861)
    columns = {"ImageID": [f"{place}.png" for place in range(len(patients))], "ImageDir": "0"}
    columns |= {"StudyDate_DICOM": 20140505, "StudyID": patients, "PatientID": patients, "PatientBirth": 1940.0}
    columns |= {"PatientSex_DICOM": "F", "Projection": "PA", "Labels": RNG.choice(lists, len(patients))}
    pd.DataFrame(columns).reindex(columns=list(padchest.COLUMNS)).to_csv(folder / padchest.TABLE, index=False)


def seconds_to_read(source: str, draw: Callable[[Path], None]) -> tuple[float, int]:
    """Processor time of one reading, and the rows."""
    module = load(SOURCES, source)
    with tempfile.TemporaryDirectory() as place:
        draw(Path(place))
        started = time.process_time()
        table = module.read(Path(place), make_config(module, {}))
        return time.process_time() - started, len(table)


if __name__ == "__main__":
    for name, draws in (("nih14", draw_nih14), ("chexpert", draw_chexpert), ("padchest", draw_padchest)):
        seconds, rows = seconds_to_read(name, draws)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {rows:,} rows in {seconds:.1f} s of processor time, peak so far {peak:.2f} GiB")
