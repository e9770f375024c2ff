"""MIMIC-CXR-JPG 2.0.0 and 2.1.0, as PhysioNet hands it out.

The study's labels are given to each of its images. Sex and age are not part of the collection, and its
JPEG files say nothing of the pixel's size.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.words import counted
from chexmsn.data.columns import inside
from chexmsn.data.labels import CHEXPERT_FINDINGS
from chexmsn.data.look_alike import picture, write_picture
from chexmsn.data.source import (
    Source,
    Table,
    TableFile,
    blank_to_null,
    check_table,
    find_table,
    index_by,
    keep,
    make_table,
    need_folder,
    physionet,
    read_findings,
    read_text_table,
)

_METADATA, OFFICIAL, EHR = "mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-split.csv", "mimic-cxr-ehr-split.csv"
_RADIOLOGIST = "mimic-cxr-2.1.0-test-set-labeled.csv"

SOURCE = Source(
    title="MIMIC-CXR-JPG",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    citation="Johnson et al., MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs, "
    "arXiv 1901.07042",
    url="https://physionet.org/content/mimic-cxr-jpg/",
    tables=(
        TableFile(name=f"{_METADATA}.gz", columns=("dicom_id", "subject_id", "study_id", "ViewPosition"), rows=377_110),
        TableFile(name=f"{OFFICIAL}.gz", columns=("dicom_id", "study_id", "subject_id", "split"), rows=377_110),
        TableFile(name="mimic-cxr-2.0.0-chexpert.csv.gz", columns=("study_id", *CHEXPERT_FINDINGS), rows=227_827),
        TableFile(
            name="mimic-cxr-2.0.0-negbio.csv.gz", columns=("study_id", *CHEXPERT_FINDINGS), rows=227_827, needed=False
        ),
        TableFile(name=_RADIOLOGIST, columns=("study_id",), needed=False),
        TableFile(name=EHR, columns=("dicom_id", "split"), needed=False),
    ),
    counts={"train": 368_960, "validate": 2_991, "test": 5_159},
    counted_with={"split": "official", "views": "all"},
    checksums="SHA256SUMS.txt",
    fetch=physionet("mimic-cxr-jpg/2.1.0"),
)

FRONTAL = ("AP", "PA")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which images, which split and whose labels.

    Attributes:
        split: official, ehr (the file that MedFuse writes: nyuad-cai/MedFuse, create_split.py, parts the patients
            anew), or auto: ehr where the folder has it.
        labeller: whose reading of the reports.
        views: frontal (AP and PA) or all.
        unlabelled: whether images of a study that the labeller's table lacks stay, with blank labels.
        radiologist_test_labels: label the test split by the radiologists' file of release 2.1.0, and leave out the
            test images that it does not cover.
    """

    split: Literal["auto", "official", "ehr"] = "auto"
    labeller: Literal["chexpert", "negbio"] = "chexpert"
    views: Literal["frontal", "all"] = "frontal"
    unlabelled: Literal["keep", "drop"] = "keep"
    radiologist_test_labels: bool = False


def read(folder: Path, config: Config) -> Table:
    """The images of the release. Raises UserError naming what the folder lacks."""
    files = _files(folder, config)
    images = read_text_table(files["metadata"], ["dicom_id", "subject_id", "study_id", "ViewPosition"])
    images["place"] = inside(_places(images), files["metadata"])
    images = _choose_views(images, config.views)
    images["split"] = _splits(images, files["split"])
    images = keep(images, images["split"].notna(), f"{files['split'].name} does not list them")
    labels = _study_labels(files["labels"])
    if config.unlabelled == "drop":
        images = keep(images, images["study_id"].isin(labels.index), "their study has no labels")
    tables = _label_images(images, labels)
    if config.radiologist_test_labels:
        images, tables = _relabel_test(images, tables, _study_labels(files["radiologist"]))
    return check_table(_table(folder, images, tables), files["metadata"])


def collection(folder: Path, config: Config) -> str:
    """The patients are those of MIMIC-CXR, the DICOM files."""
    return "mimic-cxr"


def _files(folder: Path, config: Config) -> dict[str, Path]:
    """Where each table lies: as `.csv.gz` or unpacked."""
    need_folder(folder)
    split = EHR if config.split == "ehr" or (config.split == "auto" and find_table(folder, EHR)) else OFFICIAL
    wanted = {"metadata": _METADATA, "split": split, "labels": f"mimic-cxr-2.0.0-{config.labeller}.csv"}
    if config.radiologist_test_labels:
        wanted["radiologist"] = _RADIOLOGIST
    found = {role: find_table(folder, name) for role, name in wanted.items()}
    if found["split"] is None and split == EHR:
        raise UserError(
            f"{folder} has no {EHR}, which is not part of the collection: write it with `chexmsn split medfuse`, "
            "or give split=official"
        )
    missing = [f"{wanted[role]}.gz" for role, file in found.items() if file is None]
    if missing:
        raise UserError(f"{folder} is no MIMIC-CXR-JPG folder, it lacks {', '.join(missing)}: see {SOURCE.url}")
    log.info("split: %s; labels: %s", split, wanted["labels"])
    return {role: file for role, file in found.items() if file is not None}


def _choose_views(images: pd.DataFrame, views: str) -> pd.DataFrame:
    if views == "all":
        return images
    frontal = images["ViewPosition"].str.strip().isin(FRONTAL)
    return keep(images, frontal, "their view position is neither AP nor PA")


def _splits(images: pd.DataFrame, file: Path) -> pd.Series:
    """The split of each image, null where the file does not list it."""
    rows = read_text_table(file, ["dicom_id", "split"])
    if rows["split"].nunique() == 1 and file.name.startswith(EHR):
        raise UserError(
            f"{file} puts every image into {rows['split'].iloc[0]}: it was probably written by comparing subject "
            "numbers with text; write it anew or give split=official"
        )
    return images["dicom_id"].map(index_by(rows, "dicom_id", file)["split"])


def _study_labels(file: Path) -> pd.DataFrame:
    """The 14 findings by study."""
    return read_findings(index_by(read_text_table(file, ["study_id"]), "study_id", file), CHEXPERT_FINDINGS, file)


def _label_images(images: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    blank = ~images["study_id"].isin(labels.index)
    if blank.any():
        unlabelled = counted(int(blank.sum()), "image")
        log.info("%s of a study without labels: theirs stay blank (unlabelled=keep)", unlabelled)
    return labels.reindex(images["study_id"]).set_index(images.index)


def _relabel_test(
    images: pd.DataFrame, labels: pd.DataFrame, radiologist: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    test = images["split"] == "test"
    covered = images["study_id"].isin(radiologist.index)
    kept = ~test | covered
    images, labels = (
        keep(images, kept, "test studies that no radiologist labelled"),
        labels[kept].reset_index(drop=True),
    )
    relabelled = images.loc[images["split"] == "test", "study_id"]
    labels.loc[relabelled.index] = radiologist.loc[relabelled].to_numpy()
    return images, labels


def _places(images: pd.DataFrame) -> pd.Series:
    patient = "p" + images["subject_id"]
    folder = "files/" + patient.str[:3] + "/" + patient + "/s" + images["study_id"]
    return folder + "/" + images["dicom_id"] + ".jpg"


def _table(folder: Path, images: pd.DataFrame, labels: pd.DataFrame) -> Table:
    columns = {
        "path": f"{folder}/" + images["place"],
        "image_key": images["dicom_id"],
        "patient_id": "p" + images["subject_id"],
        "study_id": "s" + images["study_id"],
        "view": blank_to_null(images["ViewPosition"]),
        "split": images["split"],
    }
    return make_table(columns, labels)


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a look-alike of release 2.1.0: its layout, its file names and the quirks of its tables."""
    rng = np.random.default_rng(seed)
    images = pd.DataFrame([image for number in range(patients) for image in _fake_patient(number, rng, size)])
    for row in images.itertuples():
        write_picture(folder / row.path, picture(row.Rows, row.Columns, rng))
    studies = images[["subject_id", "study_id"]].drop_duplicates().iloc[:-1]  # a study that the labellers skipped
    _write(folder / f"{_METADATA}.gz", images.drop(columns=["split", "path"]))
    _write(folder / f"{OFFICIAL}.gz", images[["dicom_id", "study_id", "subject_id", "split"]])
    for labeller in ("chexpert", "negbio"):
        _write(folder / f"mimic-cxr-2.0.0-{labeller}.csv.gz", _fake_labels(studies, rng))
    tested = images.loc[images["split"] == "test", ["study_id"]].drop_duplicates()
    _write(folder / _RADIOLOGIST, _fake_labels(tested, rng).rename(columns={"Lung Opacity": "Airspace Opacity"}))
    (folder / "IMAGE_FILENAMES").write_text("\n".join(images["path"]) + "\n", encoding="utf-8")


def _write(file: Path, table: pd.DataFrame) -> None:
    table.to_csv(file, index=False, compression={"method": "gzip", "mtime": 0} if file.suffix == ".gz" else None)


def _fake_patient(number: int, rng: np.random.Generator, size: int) -> list[dict[str, object]]:
    """Rows of the metadata table, one per image: two studies, the first of them frontal and lateral."""
    subject = 10000032 + 1000003 * number  # the real numbers, too, spread over p10 ... p19
    split = ("train", "validate", "test", "train")[number % 4]
    rare = ("", "AP", "LL", "PA", "AP AXIAL", "LAO", "PA LLD")[number % 7]
    views = [(0, rng.choice(["AP", "PA"])), (0, "LATERAL"), (1, rare)]
    return [_fake_image(subject, 50414267 + 10 * number + study, view, split, rng, size) for study, view in views]


def _fake_image(
    subject: int, study: int, view: str, split: str, rng: np.random.Generator, size: int
) -> dict[str, object]:
    dicom_id = "-".join(f"{part:08x}" for part in rng.integers(0, 2**32, 5))
    patient = f"p{subject}"
    return {
        "dicom_id": dicom_id,
        "subject_id": subject,
        "study_id": study,
        "PerformedProcedureStepDescription": rng.choice(["CHEST (PORTABLE AP)", "CHEST (PA AND LAT)"]),
        "ViewPosition": view,
        "Rows": size + int(rng.integers(0, size // 4)),
        "Columns": size,
        "StudyDate": 21800506,
        "StudyTime": float(rng.integers(80000, 95959)) + 0.875,  # 80556.875 is 08:05:56
        "ProcedureCodeSequence_CodeMeaning": "CHEST (PORTABLE AP)",
        "ViewCodeSequence_CodeMeaning": "antero-posterior" if view == "AP" else "",
        "PatientOrientationCodeSequence_CodeMeaning": rng.choice(["Erect", "Recumbent", ""]),
        "split": split,
        "path": f"files/{patient[:3]}/{patient}/s{study}/{dicom_id}.jpg",
    }


def _fake_labels(studies: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Mostly blank, as the real tables are; the first finding of the first two studies is -1 and 1."""
    shape = (len(studies), len(CHEXPERT_FINDINGS))
    values = rng.choice(["1.0", "0.0", "-1.0", ""], size=shape, p=[0.2, 0.1, 0.1, 0.6])
    values[:2, 0] = ["-1.0", "1.0"][: len(studies)]
    return studies.join(pd.DataFrame(values, columns=list(CHEXPERT_FINDINGS), index=studies.index))
