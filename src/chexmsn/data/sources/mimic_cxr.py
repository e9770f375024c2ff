"""MIMIC-CXR 2.0.0 and 2.1.0: the DICOM files that MIMIC-CXR-JPG was made from.

Its own tables list the files and nothing else. Labels, view positions and splits are those of MIMIC-CXR-JPG, whose
tables lie beside the folder `files` or elsewhere; rendered as its makers did, images are those of its JPEG files but
for what JPEG loses. Sex and age are not part of either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from chexmsn.core.errors import UserError
from chexmsn.data.decode import decode
from chexmsn.data.dicom import Rendering
from chexmsn.data.image import Decoded
from chexmsn.data.look_alike import write_dicom
from chexmsn.data.source import Source, Table, TableFile, find_table, need_folder, physionet
from chexmsn.data.sources import mimic_cxr_jpg as jpg

RECORDS, STUDIES = "cxr-record-list.csv.gz", "cxr-study-list.csv.gz"

SOURCE = Source(
    title="MIMIC-CXR",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    citation="Johnson et al., MIMIC-CXR, a de-identified publicly available database of chest radiographs with "
    "free-text reports, Scientific Data 2019, doi 10.1038/s41597-019-0322-0",
    url="https://physionet.org/content/mimic-cxr/",
    tables=(
        TableFile(name=RECORDS, columns=("subject_id", "study_id", "dicom_id", "path"), rows=377_110, needed=False),
        TableFile(name=STUDIES, columns=("subject_id", "study_id", "path"), rows=227_835, needed=False),
    ),
    counts=jpg.SOURCE.counts,
    counted_with=jpg.SOURCE.counted_with,
    checksums="SHA256SUMS.txt",
    fetch=physionet("mimic-cxr/2.1.0"),
)


@dataclass(frozen=True, kw_only=True)
class Config(jpg.Config):
    """Which images, which split and whose labels, as for mimic-cxr-jpg; where its tables lie; how images are shown.

    Attributes:
        tables: the folder with the tables of MIMIC-CXR-JPG; that of the images when empty.
        rendering: mimic-cxr-jpg (as its makers rendered them) or window (that of the file).
    """

    tables: str | None = None
    rendering: Rendering = "mimic-cxr-jpg"


def read(folder: Path, config: Config) -> Table:
    """The images that the tables of MIMIC-CXR-JPG list. Raises UserError naming what is missing."""
    need_folder(folder)
    place = Path(config.tables) if config.tables else folder
    needed = [table.name for table in jpg.SOURCE.tables if table.needed]
    if missing := [name for name in needed if not find_table(place, name)]:
        raise UserError(
            f"{place} lacks {', '.join(missing)}: labels, views and splits come with MIMIC-CXR-JPG; put its tables "
            "there or name their folder with the option tables"
        )
    table = jpg.read(place, config)
    inside = table["path"].str.removeprefix(f"{place}/").str.removesuffix(".jpg")
    return table.assign(path=f"{folder}/" + inside + ".dcm")


def load(record: Mapping[str, Any], config: Config, enough: int) -> Decoded:
    """One image, rendered as asked."""
    return decode(Path(record["path"]), enough, config.rendering)


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a look-alike: DICOM files of both polarities, two lists, and the tables of MIMIC-CXR-JPG beside them."""
    jpg.fake(folder, patients=patients, seed=seed, size=size)
    (folder / "IMAGE_FILENAMES").unlink()
    pictures = sorted(folder.glob("files/*/*/*/*.jpg"))
    for number, picture in enumerate(pictures):
        _to_dicom(picture, ("MONOCHROME2", "MONOCHROME1")[number % 3 == 2])
    records = pd.DataFrame([_record(picture.relative_to(folder)) for picture in pictures])
    studies = records[["subject_id", "study_id"]].drop_duplicates()
    names = [f"files/p{row.subject_id[:2]}/p{row.subject_id}/s{row.study_id}.txt" for row in studies.itertuples()]
    packed = {"method": "gzip", "mtime": 0}
    records.to_csv(folder / RECORDS, index=False, compression=packed)
    studies.assign(path=names).to_csv(folder / STUDIES, index=False, compression=packed)


def _to_dicom(picture: Path, polarity: str) -> None:
    light = np.asarray(Image.open(picture)) / 255
    how = {"PhotometricInterpretation": polarity, "ImagerPixelSpacing": [0.139, 0.139]}
    write_dicom(picture.with_suffix(".dcm"), light, **how, WindowCenter=2047, WindowWidth=4095)
    picture.unlink()


def _record(picture: Path) -> dict[str, str]:
    _, _, patient, study, name = picture.parts
    path = str(picture.with_suffix(".dcm"))
    return {"subject_id": patient[1:], "study_id": study[1:], "dicom_id": Path(name).stem, "path": path}
