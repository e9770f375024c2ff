"""The phantom: procedurally drawn chest radiographs with all 14 findings, the synthetic twin of MIMIC-CXR.

On disk it is three small files; the pictures are drawn when they are needed (`data/phantom`). `phantom.json` says
seed, number of patients and size, `images.csv` lists the images (like MIMIC's metadata and split tables), `studies.csv`
what the reports say (like its CheXpert table: 1, 0, -1, blank). Rare findings are more common than in a hospital.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json, write_atomic, write_json
from chexmsn.data.columns import numbers
from chexmsn.data.decode import Decoded, UnreadableImage
from chexmsn.data.phantom.people import FINDINGS, SPLITS, body_of, course, report
from chexmsn.data.phantom.picture import Spec, field_of, picture
from chexmsn.data.source import (
    Source,
    Table,
    TableFile,
    blank_to_null,
    check_table,
    index_by,
    make_table,
    need_folder,
    read_labels,
    read_text_table,
)

SOURCE = Source(
    title="CheXMSN phantom: procedurally drawn chest radiographs",
    licence="Apache-2.0 (drawn by this project; no patient is in it)",
    citation="CheXMSN",
    url="",
    tables=(
        TableFile(name="images.csv", columns=("dicom_id", "subject_id", "study_id", "ViewPosition", "split", "image")),
        TableFile(name="studies.csv", columns=("study_id", *FINDINGS)),
    ),
    files=False,
)
VERSION = 1
"""Of the drawing: a pack made with another version shows other pictures."""

VIEWS = {"frontal": ("AP", "PA"), "all": ("AP", "PA", "LATERAL")}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the source. `views` is `all` or `frontal` (AP and PA)."""

    views: str = "all"

    def __post_init__(self) -> None:
        if self.views not in VIEWS:
            raise UserError(f"views must be one of {', '.join(VIEWS)}, not {self.views!r}")


def read(folder: Path, config: Config) -> Table:
    """The images of a phantom folder. Raises UserError for a folder that is none or was written by another version."""
    need_folder(folder)
    info = _info(folder / "phantom.json")
    images, studies = folder / "images.csv", folder / "studies.csv"
    rows = read_text_table(
        images, ["dicom_id", "subject_id", "study_id", "ViewPosition", "split", "sex", "age", "pixel_mm", "image"]
    )
    rows = rows[rows["ViewPosition"].isin(VIEWS[config.views])].reset_index(drop=True)
    said = index_by(read_text_table(studies, ["study_id", *FINDINGS]), "study_id", studies)
    if unknown := sorted(set(rows["study_id"]) - set(said.index)):
        raise UserError(f"{studies} lacks study {unknown[0]} of {images}: write the folder anew")
    labels = read_labels(
        said.loc[rows["study_id"]].reset_index(drop=True), {finding: finding for finding in FINDINGS}, studies
    )
    columns = {
        "path": f"phantom:{info['seed']}:{info['size']}:" + rows["image"].str.replace("-", ":"),
        "image_key": rows["dicom_id"],
        "patient_id": rows["subject_id"],
        "study_id": rows["study_id"],
        "view": rows["ViewPosition"],
        "split": rows["split"],
        "sex": blank_to_null(rows["sex"]),
        "age": numbers(rows["age"]),
        "pixel_mm_row": numbers(rows["pixel_mm"]),
        "pixel_mm_column": numbers(rows["pixel_mm"]),
    }
    return check_table(make_table(columns, labels), images)


def collection(folder: Path, config: Config) -> str:
    """Every seed draws other people and numbers them alike."""
    return f"phantom-{_info(folder / 'phantom.json')['seed']}"


def _info(file: Path) -> dict[str, int]:
    info = read_json(file)
    if not isinstance(info, dict) or not {"seed", "size", "version"} <= info.keys():
        raise UserError(f"{file} must name seed, size and version of the phantom: write the folder anew")
    if not (isinstance(info["seed"], int) and info["size"] in range(16, 8193)):
        raise UserError(f"{file} must name a whole seed and 16 to 8192 pixels as size: write the folder anew")
    if info["version"] != VERSION:
        raise UserError(
            f"{file} is of version {info['version']} of the phantom, this is version {VERSION}: write the folder anew"
        )
    return info


def load(record: Mapping[str, Any], config: Config, enough: int) -> Decoded:
    """Draw the image whose specification stands in `path`."""
    try:
        return Decoded.whole(picture(Spec.parse(record["path"])))
    except (UserError, IndexError):  # a study or an image that the patient has not
        raise UnreadableImage(f"{record['path']} is no image of the phantom") from None


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write the phantom of so many patients, to be drawn at `size` pixels.

    Three patients give every split, 180 give every split a patient led by each of the findings.
    Patient number n is the same whatever the number of patients. Raises UserError for fewer than one patient.
    """
    if patients < 1 or size < 16:
        raise UserError(f"the phantom needs at least 1 patient and 16 pixels, not {patients} and {size}")
    folder.mkdir(parents=True, exist_ok=True)
    images, studies = [], []
    for patient in range(patients):
        for rows, said in _studies(seed, size, patient):
            images += rows
            studies.append(said)
    for name, rows in (("images.csv", images), ("studies.csv", studies)):
        table = pd.DataFrame(rows)
        write_atomic(folder / name, lambda path, table=table: table.to_csv(path, index=False))
    write_json(folder / "phantom.json", {"version": VERSION, "seed": seed, "patients": patients, "size": size})


def _studies(seed: int, size: int, patient: int) -> Iterator[tuple[list[dict[str, object]], dict[str, object]]]:
    """Rows of `images.csv` and the row of `studies.csv`, study by study."""
    body = body_of(seed, patient)
    for visit in course(seed, patient):
        names = {"subject_id": 10_000_000 + patient, "study_id": 50_000_000 + 10 * patient + visit.number}
        rows = [
            {
                "dicom_id": f"phantom-{seed}-{names['study_id']}-{number}",
                **names,
                "ViewPosition": view,
                "split": SPLITS[patient % 10],
                "sex": body.sex,
                "age": visit.age,
                "pixel_mm": round(field_of(seed, patient, body) / size, 5),
                "image": f"{patient}-{visit.number}-{number}",
            }
            for number, view in enumerate(visit.views)
        ]
        yield rows, names | report(seed, visit)
