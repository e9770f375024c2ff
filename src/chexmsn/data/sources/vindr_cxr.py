"""VinDr-CXR 1.0.0: 18,000 frontal radiographs in DICOM, read by radiologists; and the copy of the Kaggle competition.

Three readers labelled each training image on their own, five agreed on each test image. Kaggle's copy has boxes for the
training images alone: what a reader drew no box around counts as absent for that reader. The collection does not say
which images are of one patient.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.data.columns import files_below, inside, pick, plain
from chexmsn.data.decode import decode
from chexmsn.data.dicom import Rendering
from chexmsn.data.image import Decoded
from chexmsn.data.labels import canonical
from chexmsn.data.look_alike import picture, write_dicom
from chexmsn.data.source import (
    LABEL,
    Source,
    Table,
    TableFile,
    check_table,
    find_table,
    make_table,
    need_folder,
    physionet,
    read_labels,
    read_text_table,
)
from chexmsn.data.splits import grouped_split

TRAIN, TEST, KAGGLE = "annotations/image_labels_train.csv", "annotations/image_labels_test.csv", "train.csv"
SUFFIXES = (".dicom", ".dcm", ".png", ".jpg")
LABELS = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"),
    *("Other diseases", "No finding"),
)

_RELEASE = Source(
    title="VinDr-CXR",
    licence="PhysioNet Credentialed Health Data License 1.5.0; of the competition's copy, Kaggle's rules",
    citation="Nguyen et al., VinDr-CXR: an open dataset of chest X-rays with radiologist's annotations, "
    "Scientific Data 2022, arXiv 2012.15029",
    url="https://physionet.org/content/vindr-cxr/",
    tables=(
        TableFile(name=TRAIN, columns=("image_id", *LABELS), rows=45_000),
        TableFile(name=TEST, columns=("image_id",), rows=3_000),
        TableFile(name="annotations/annotations_train.csv", columns=("image_id",), needed=False),
        TableFile(name="annotations/annotations_test.csv", columns=("image_id",), needed=False),
    ),
    counts={"train+validate": 15_000, "test": 3_000},
    checksums="SHA256SUMS.txt",
    fetch=physionet("vindr-cxr/1.0.0"),
)
_OF_KAGGLE = replace(
    _RELEASE,
    title="VinDr-CXR (Kaggle's copy)",
    url="https://www.kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection",
    tables=(TableFile(name=KAGGLE, columns=("image_id", "class_name")),),
    counts={"train+validate": 15_000},
    checksums=None,
    fetch=None,
)
SOURCE = replace(_RELEASE, copies=(_OF_KAGGLE,))

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What several readers come to, how the images are shown, and which of the training images are validated on.

    Attributes:
        readers: a finding of a training image is there if most say so (majority), if any of them does (any), or is
            uncertain (-1) where they differ (unanimous); what -1 counts as is chosen when training.
        rendering: window (that of the file) or mimic-cxr-jpg (as MIMIC-CXR-JPG was rendered).
        validate_share: share of the training images, [0, 1).
        seed: another seed, other images.
    """

    readers: Literal["majority", "any", "unanimous"] = "majority"
    rendering: Rendering = "window"
    validate_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, validate_share="[0, 1)")


def read(folder: Path, config: Config) -> Table:
    """The labelled images. Raises UserError for what is missing or of no sense."""
    need_folder(folder)
    labels, file = _labels_of(folder, config)
    log.info("VinDr-CXR does not say which images are of one patient: each image counts as a patient of its own")
    return check_table(_table(folder, labels, config), file)


def _labels_of(folder: Path, config: Config) -> tuple[dict[str, pd.DataFrame], Path]:
    """By split what the readers come to, one row for each image; and the table that says it."""
    kaggle = find_table(folder, KAGGLE)
    if kaggle and not find_table(folder, TRAIN):
        log.info("labels are those of Kaggle's boxes; its test images have none and are left out")
        return {"train": _agreed(_of_boxes(kaggle), config.readers)}, kaggle
    train, test = (_published(folder, name) for name in (TRAIN, TEST))
    return {"train": _agreed(train, config.readers), "test": _agreed(test, "majority")}, folder / TRAIN


def load(record: Mapping[str, Any], config: Config, enough: int) -> Decoded:
    """One image, rendered as asked."""
    return decode(Path(record["path"]), enough, config.rendering)


def _published(folder: Path, name: str) -> pd.DataFrame:
    """Labels by `image_id`, one row for each reader of an image."""
    file = find_table(folder, name)
    if file is None:
        raise UserError(f"{folder} is no folder of VinDr-CXR, it lacks {name} (or Kaggle's {KAGGLE}): see {SOURCE.url}")
    rows = read_text_table(file, ["image_id"])
    known = {plain(label) for label in LABELS} | {plain("Other disease")}  # so the test table has it
    columns = {column: column for column in rows if plain(column) in known}
    if not columns:
        raise UserError(f"{file} has none of the labels of VinDr-CXR, such as {LABELS[0]}: fetch it anew")
    labels = read_labels(rows, columns, file)
    return labels.set_index(pd.Index(inside(rows["image_id"], file), name="image_id"))


def _of_boxes(file: Path) -> pd.DataFrame:
    """The same from a table with one row for each box; a reader without one has a row that says `No finding`."""
    rows = read_text_table(file, ["image_id", "class_name"])
    rows["image_id"], rows["reader"] = inside(rows["image_id"], file), pick(rows, "rad_id").fillna("")
    said = pd.crosstab([rows["image_id"], rows["reader"]], rows["class_name"]).clip(upper=1)
    said.columns = [LABEL + canonical(name) for name in said.columns]
    return said.astype(np.float32).droplevel("reader")


def _agreed(labels: pd.DataFrame, readers: str) -> pd.DataFrame:
    """One row for each image."""
    share = labels.groupby(level="image_id").mean()
    values = {
        "majority": (share > 0.5).astype(np.float32).where(share.notna()),
        "any": share.gt(0).astype(np.float32).where(share.notna()),
        "unanimous": share.where(share.isin([0, 1]) | share.isna(), -1).astype(np.float32),
    }
    return values[readers]


def _table(folder: Path, labels: Mapping[str, pd.DataFrame], config: Config) -> Table:
    every = pd.concat(labels)
    images = every.index.get_level_values("image_id")
    given = every.index.get_level_values(0)
    columns = {
        "path": _paths(folder, given, images),
        "image_key": images,
        "patient_id": images,
        "view": "PA",
        "split": _splits(given, images, config),
    }
    return make_table(columns, every.reset_index(drop=True))


def _paths(folder: Path, splits: pd.Index, images: pd.Index) -> list[str]:
    """Where each image lies, whatever the copy calls its files; under the published name where it does not."""
    lying = files_below(folder, ["train", "test"])
    found = {name: suffix for name in lying for suffix in SUFFIXES if name.endswith(suffix)}
    by_image = {name.removesuffix(suffix): lying[name] for name, suffix in found.items()}
    return [
        by_image.get(image, f"{folder}/{split}/{image}{SUFFIXES[0]}")
        for split, image in zip(splits, images, strict=True)
    ]


def _splits(given: pd.Index, images: pd.Index, config: Config) -> np.ndarray:
    """The published split, with some of the training images set apart."""
    splits = given.to_numpy(object, copy=True)
    shares = {"train": 1 - config.validate_share, "validate": config.validate_share}
    splits[splits == "train"] = grouped_split(images[splits == "train"].tolist(), shares, config.seed)
    return splits


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a look-alike of the release: three rows for each training image, `Other disease` without s for the test."""
    rng = np.random.default_rng(seed)
    images = [f"{rng.bytes(16).hex()}" for _ in range(2 * patients)]
    train = [number % 4 != 3 for number in range(len(images))]
    for number, (image, is_train) in enumerate(zip(images, train, strict=True)):
        kind = ("MONOCHROME2", "MONOCHROME1")[number % 2]
        file = folder / ("train" if is_train else "test") / f"{image}.dicom"
        window = {"WindowCenter": 2047, "WindowWidth": 4095} if number % 3 else {}
        write_dicom(file, picture(size + number, size, rng), PhotometricInterpretation=kind, **window)
    _fake_tables(folder / "annotations", images, np.array(train), rng)


def _fake_tables(folder: Path, images: list[str], train: np.ndarray, rng: np.random.Generator) -> None:
    folder.mkdir()
    truth = rng.random((len(images), len(LABELS))) < 0.15
    read = [(number, f"R{reader}") for number in np.flatnonzero(train) for reader in (1, 8, 9)]
    slips = rng.random((len(read), len(LABELS))) < 0.05
    values = pd.DataFrame((truth[[number for number, _ in read]] ^ slips).astype(int), columns=list(LABELS))
    values.insert(0, "image_id", [images[number] for number, _ in read])
    values.insert(1, "rad_id", [reader for _, reader in read])
    values.to_csv(folder.parent / TRAIN, index=False)
    agreed = pd.DataFrame(truth[~train].astype(int), columns=list(LABELS))
    agreed.insert(0, "image_id", np.array(images)[~train])
    agreed.rename(columns={"Other diseases": "Other disease"}).to_csv(folder.parent / TEST, index=False)


def fake_kaggle(folder: Path) -> None:
    """Make a look-alike into the competition's copy: one table of boxes, without the labels of whole images."""
    labels = pd.read_csv(folder / TRAIN)
    rows = [row for reading in labels.to_dict("records") for row in _fake_boxes(reading)]
    pd.DataFrame(rows).to_csv(folder / KAGGLE, index=False)
    for file in sorted((folder / "annotations").iterdir()):
        file.unlink()
    (folder / "annotations").rmdir()


def _fake_boxes(reading: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [name for name in LABELS[:22] if reading[name]]
    return [
        {
            "image_id": reading["image_id"],
            "class_name": name,
            "class_id": LABELS.index(name) if found else 14,
            "rad_id": reading["rad_id"],
            "x_min": 10 if found else None,
            "y_min": 20 if found else None,
            "x_max": 40 if found else None,
            "y_max": 50 if found else None,
        }
        for name in found or ["No finding"]
    ]
