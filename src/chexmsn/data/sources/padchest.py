"""PadChest: 160,861 radiographs of 67,625 patients of one Spanish hospital, 16-bit PNG.

Its reports name 193 findings and diagnoses, in a list that Python printed. Those that other collections know, too,
become the pack's findings (`MEANING`); others can be asked for by name. What a report does not name counts as absent
(0); reports that were not to be read (`exclude`) or say only `unchanged` have blank labels. There is no official split.
"""

import ast
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from chexmsn.core.errors import UserError
from chexmsn.data.columns import files_below, inside, numbers, paths_of, sexes
from chexmsn.data.labels import canonical
from chexmsn.data.look_alike import picture
from chexmsn.data.source import (
    LABEL,
    Source,
    Table,
    TableFile,
    check_table,
    find_table,
    keep,
    make_table,
    need_folder,
    read_text_table,
)
from chexmsn.data.splits import check_names, grouped_split

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
COLUMNS = (
    "",
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
    "ViewPosition_DICOM",
    "Projection",
    "MethodProjection",
    "Pediatric",
    "Modality_DICOM",
    "Manufacturer_DICOM",
    "PhotometricInterpretation_DICOM",
    "PixelRepresentation_DICOM",
    "PixelAspectRatio_DICOM",
    "SpatialResolution_DICOM",
    "BitsStored_DICOM",
    "WindowCenter_DICOM",
    "WindowWidth_DICOM",
    "Rows_DICOM",
    "Columns_DICOM",
    "XRayTubeCurrent_DICOM",
    "Exposure_DICOM",
    "ExposureInuAs_DICOM",
    "ExposureTime",
    "RelativeXRayExposure_DICOM",
    "ReportID",
    "Report",
    "MethodLabel",
    "Labels",
    "Localizations",
    "LabelsLocalizationsBySentence",
    "labelCUIS",
    "LocalizationsCUIS",
)
"""The 36 columns; the first has no name."""

_NEEDED = (
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
    "Projection",
    "Labels",
)

VIEWS = {"PA": "PA", "L": "LATERAL", "AP": "AP", "AP_horizontal": "AP SUPINE", "COSTAL": "COSTAL"}
FRONTAL = ("PA", "AP", "AP SUPINE")

_DEVICES = (
    "artificial aortic heart valve",
    "artificial heart valve",
    "artificial mitral heart valve",
    "catheter",
    "central venous catheter",
    "central venous catheter via jugular vein",
    "central venous catheter via subclavian vein",
    "central venous catheter via umbilical vein",
    "chest drain tube",
    "dai",
    "double J stent",
    "dual chamber device",
    "electrical device",
    "endotracheal tube",
    "gastrostomy tube",
    "nephrostomy tube",
    "NSG tube",
    "pacemaker",
    "reservoir central venous catheter",
    "single chamber device",
    "tracheostomy tube",
    "ventriculoperitoneal drain tube",
)

MEANING: Mapping[str, tuple[str, ...]] = {
    "No Finding": ("normal",),
    "Atelectasis": (
        "atelectasis",
        "atelectasis basal",
        "laminar atelectasis",
        "lobar atelectasis",
        "round atelectasis",
        "segmental atelectasis",
        "total atelectasis",
    ),
    "Cardiomegaly": ("cardiomegaly",),
    "Consolidation": ("consolidation",),
    "Edema": ("pulmonary edema",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary fibrosis",),
    "Fracture": (
        "callus rib fracture",
        "clavicle fracture",
        "fracture",
        "humeral fracture",
        "rib fracture",
        "vertebral fracture",
    ),
    "Hernia": ("hiatal hernia",),
    "Infiltration": ("infiltrates",),
    "Mass": ("mass", "pulmonary mass"),
    "Nodule": ("multiple nodules", "nodule"),
    "Pleural Effusion": (
        "hydropneumothorax",
        "loculated fissural effusion",
        "loculated pleural effusion",
        "pleural effusion",
    ),
    "Pleural Thickening": ("apical pleural thickening", "calcified pleural thickening", "pleural thickening"),
    "Pneumonia": ("atypical pneumonia", "pneumonia"),
    "Pneumothorax": ("hydropneumothorax", "pneumothorax"),
    "Support Devices": _DEVICES,
    "Clavicle Fracture": ("clavicle fracture",),
    "Enlarged PA": ("pulmonary artery enlargement",),
    "Lung Cavity": ("cavitation",),
    "Mediastinal Shift": ("mediastinal shift",),
    "Rib Fracture": ("callus rib fracture", "rib fracture"),
    "Tuberculosis": ("tuberculosis",),
}
"""Which of PadChest's names make a finding positive: its kinds, too, and none that only resembles it."""

UNREAD = "exclude"  # a report that was not to be labelled
NOTHING_SAID = {"unchanged", ""}

SOURCE = Source(
    title="PadChest",
    licence="CC BY-SA 4.0, after a research use agreement with BIMCV",
    citation="Bustos et al., PadChest: a large chest x-ray image dataset with multi-label annotated reports, "
    "Medical Image Analysis 2020, arXiv 1901.07441",
    url="https://bimcv.cipf.es/bimcv-projects/padchest/",
    tables=(TableFile(name=TABLE, columns=_NEEDED, rows=160_861),),
    counts={"train+validate+test": 160_861},
    counted_with={"views": "all"},
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which images, which findings, and how the patients are divided.

    Attributes:
        views: frontal (PA, AP and AP SUPINE, the collection's AP_horizontal) or all.
        also: names of PadChest that become findings of their own besides, such as scoliosis.
        shares: share of the patients in each split.
        seed: another seed, another division.
    """

    views: Literal["frontal", "all"] = "frontal"
    also: Sequence[str] = ()
    shares: Mapping[str, float] = field(default_factory=lambda: {"train": 0.7, "validate": 0.1, "test": 0.2})
    seed: int = 0

    def __post_init__(self) -> None:
        check_names(self.shares)
        if known := [name for name in self.also if canonical(name) in MEANING]:
            raise UserError(
                f"{known[0]!r} is among the findings already ({canonical(known[0])}): leave it out of `also`"
            )


def read(folder: Path, config: Config) -> Table:
    """The images of the table, those that are not in the folder included, which packing lists.

    Raises UserError for what is missing or makes no sense.
    """
    need_folder(folder)
    file = find_table(folder, TABLE)
    if file is None:
        raise UserError(f"{folder} is no folder of PadChest, it lacks {TABLE}: see {SOURCE.url}")
    rows = _identified(read_text_table(file, _NEEDED))
    columns = {
        "path": _paths(folder, rows, file),
        "image_key": rows["ImageID"],
        "patient_id": rows["PatientID"],
        "study_id": rows["StudyID"],
        "view": rows["Projection"].map(VIEWS),
        "split": grouped_split(rows["PatientID"].tolist(), config.shares, config.seed),
        "sex": sexes(rows["PatientSex_DICOM"]),
        "age": _ages(rows),
    }
    table = make_table(columns, _labels(rows["Labels"], config.also, file))
    return check_table(_choose_views(table, config.views), file)


def _identified(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that name an image and a patient, each cell without outer spaces."""
    rows = rows.assign(**{name: rows[name].str.strip() for name in _NEEDED})
    named = ~rows["ImageID"].isin(["", "nan"]) & ~rows["PatientID"].isin(["", "nan"])
    return keep(rows, named, "their row names no image or no patient")


def _choose_views(table: Table, views: str) -> Table:
    if views == "all":
        return table
    return keep(table, table["view"].isin(FRONTAL), "their projection is not frontal")


def _paths(folder: Path, rows: pd.DataFrame, file: Path) -> list[str]:
    """Where each image lies: in the folder of its archive, or with all others in one."""
    names = inside(rows["ImageID"], file)
    lying = files_below(folder, ("images", "images/*", "[0-9]*", "."))
    return paths_of(names, lying, f"{folder}/" + inside(rows["ImageDir"] + "/" + names, file))


def _ages(rows: pd.DataFrame) -> pd.Series:
    """Years from the year of birth to that of the study, up to one too many; NaN where either is missing or absurd."""
    years = numbers(rows["StudyDate_DICOM"].str[:4]) - numbers(rows["PatientBirth"])
    return years.where(years.between(0, 120))


_ESCAPED = r"""\\(?:[\\'"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"""  # as Python prints what is not plain
_QUOTED = rf"""(?:'(?:[^'\\\0\r\n]|{_ESCAPED})*'|"(?:[^"\\\0\r\n]|{_ESCAPED})*")"""
_LIST = re.compile(rf"\[\s*(?:{_QUOTED}(?:\s*,\s*{_QUOTED})*)?\s*\]")
_LONGEST = 10_000  # characters; the longest of the real ones has 421


def _names(text: str) -> set[str] | None:
    """The names in a printed list of text, without the spaces that many begin with; None for anything else.

    >>> sorted(_names("['COPD signs', ' pleural effusion', '']"))
    ['', 'COPD signs', 'pleural effusion']
    >>> _names("__import__('os')") is None
    True
    """
    if len(text) > _LONGEST or not _LIST.fullmatch(text):
        return None
    try:
        return {name.strip() for name in ast.literal_eval(text)}
    except SyntaxError:  # a number of a character that there is not
        return None


def _labels(text: pd.Series, also: Iterable[str], file: Path) -> pd.DataFrame:
    """1 and 0 per finding, blank where the report says nothing or was not to be read."""
    codes, kinds = pd.factorize(text)
    meaning = {**MEANING, **{canonical(name): (name,) for name in also}}
    named = [_names(kind) for kind in kinds]
    _check_lists(text, codes, named, file)
    values = np.array([_values(names, meaning) for names in named], np.float32).reshape(-1, len(meaning))[codes]
    log.info(
        "%d of %d images have a report that tells no findings: blank", int(np.isnan(values[:, 0]).sum()), len(text)
    )
    return pd.DataFrame(values, columns=[LABEL + finding for finding in meaning], index=text.index)


def _check_lists(text: pd.Series, codes: np.ndarray, named: Sequence[set[str] | None], file: Path) -> None:
    unread = np.array([names is None for names in named], bool)[codes] & ~text.isin(["", "nan"]).to_numpy()
    if unread.any():
        row = int(np.flatnonzero(unread)[0])
        raise UserError(f"{file}: row {row + 1} has the labels {text.iloc[row][:60]!r}: give a list such as ['normal']")


def _values(names: set[str] | None, meaning: Mapping[str, tuple[str, ...]]) -> list[float]:
    if names is None or UNREAD in names or names <= NOTHING_SAID:
        return [np.nan] * len(meaning)
    return [float(not names.isdisjoint(kinds)) for kinds in meaning.values()]


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a look-alike: two of the archives unpacked, 16-bit PNG, printed lists with spaces in them, and nulls."""
    rng = np.random.default_rng(seed)
    rows = [row for number in range(patients) for row in _fake_patient(number, rng, size)]
    for row in rows:
        _draw_fake(folder / row["ImageDir"] / row["ImageID"], row["Rows_DICOM"], row["Columns_DICOM"], rng)
    table = pd.DataFrame(rows)
    table[""] = table.index
    table.reindex(columns=list(COLUMNS)).to_csv(folder / TABLE, index=False)


_FAKE_LABELS = (
    "['normal']",
    "['COPD signs', ' pleural effusion', '']",
    "['laminar atelectasis', 'NSG tube', ' pneumonia']",
    "['cardiomegaly', 'callus rib fracture', 'scoliosis']",
    "['nodule', 'infiltrates', 'cardiomegaly']",
    "nan",
    "['unchanged']",
    "['cardiomegaly', ' exclude']",
)
_TELLING = 5  # the first of them say what is there: those of first studies, so that few patients suffice to train on


def _fake_patient(number: int, rng: np.random.Generator, size: int) -> list[dict[str, object]]:
    """Rows of the table, one per image: two studies, the first of them PA and lateral."""
    patient = f"{rng.integers(10**17, 10**18)}{rng.integers(10**17, 10**18)}"
    sex, rare = ("M", "F", "O")[number % 3], ("AP_horizontal", "AP", "COSTAL", "UNK")[number % 4]
    views = [(0, "PA"), (0, "L"), (1, rare)]
    return [
        {
            "ImageID": f"{patient}_{study}_{place}.png",
            "ImageDir": str(number % 2),
            "StudyDate_DICOM": 20140505 + 10000 * study,
            "StudyID": f"{patient}{study}",
            "PatientID": patient,
            "PatientBirth": 1930.0 + 5 * number,
            "PatientSex_DICOM": sex,
            "Projection": view,
            "Pediatric": "No",
            "PhotometricInterpretation_DICOM": "MONOCHROME2",
            "BitsStored_DICOM": 12,
            "Rows_DICOM": size + 8,
            "Columns_DICOM": size,
            "MethodLabel": "Physician",
            "Labels": _FAKE_LABELS[(number + 3) % len(_FAKE_LABELS) if study else number % _TELLING],
        }
        for place, (study, view) in enumerate(views)
    ]


def _draw_fake(file: Path, rows: int, columns: int, rng: np.random.Generator) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((4095 * picture(rows, columns, rng)).astype(np.uint16)).save(file)
