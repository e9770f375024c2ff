"""OpenI, the chest radiographs of Indiana University: 7,470 images of 3,955 reports, indexed with MeSH terms by hand.

Two forms are read: the reports as XML (`ecgen-radiology/`) with PNG files, and the two tables that Kaggle hands out.
Who the patients are is not known: a report stands for one, so that its images stay together. A finding that a report
is not indexed with counts as absent (0). There is no official split.
"""

import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.data.columns import files_below, inside, paths_of
from chexmsn.data.look_alike import picture, write_picture
from chexmsn.data.source import (
    LABEL,
    Source,
    Table,
    TableFile,
    check_table,
    find_table,
    index_by,
    keep,
    make_table,
    need_folder,
    read_text_table,
)
from chexmsn.data.splits import check_names, grouped_split

REPORTS, PROJECTIONS, XML = "indiana_reports.csv", "indiana_projections.csv", "ecgen-radiology"
PLACES = ("NLMCXR_png", "images", "images/images_normalized", "images_normalized", ".")
VIEWS = {"Frontal": "FRONTAL", "Lateral": "LATERAL"}

_DEVICES = "catheters, indwelling|(?:implanted )?medical device|stents|tube, inserted"
MEANING: Mapping[str, str] = {
    "No Finding": "normal",
    "Atelectasis": "pulmonary atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "pulmonary edema",
    "Emphysema": "(?:pulmonary |bullous )?emphysema",
    "Fibrosis": "pulmonary fibrosis",
    "Fracture": "fractures, bone",
    "Hernia": "hernia, .*",
    "Infiltration": "infiltrate",
    "Lung Opacity": "airspace disease|opacity/(?:.*/)?lung",
    "Mass": "mass",
    "Nodule": "nodule",
    "Pleural Effusion": "pleural effusion|hydropneumothorax",
    "Pleural Thickening": "thickening/(?:.*/)?pleura",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "(?:hydro|hemo)?pneumothorax",
    "Support Devices": _DEVICES,
}
"""Which terms make a finding positive: patterns of a term such as `Opacity/lung/base/left`, or of its beginning."""

_PATTERNS = {finding: re.compile(rf"(?:{pattern})(?:/.*)?") for finding, pattern in MEANING.items()}

NOT_INDEXED = "no indexing"
LARGEST_REPORT = 1_000_000  # bytes; the largest of the real ones has 8,967

SOURCE = Source(
    title="OpenI: Indiana University chest X-ray collection",
    licence="CC BY-NC-ND 4.0, as its reports say: no commercial use, no changed copies handed on",
    citation="Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and retrieval, "
    "JAMIA 2016, doi 10.1093/jamia/ocv080",
    url="https://openi.nlm.nih.gov/faq",
    tables=(
        TableFile(name=REPORTS, columns=("uid", "MeSH"), needed=False),
        TableFile(name=PROJECTIONS, columns=("uid", "filename", "projection"), needed=False),
    ),
    counts={"train+validate+test": 7_470},
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which images, and how the reports are divided.

    Attributes:
        views: all, or frontal, which only the tables of Kaggle tell.
        shares: share of the reports in each split.
        seed: another seed, another division.
    """

    views: Literal["all", "frontal"] = "all"
    shares: Mapping[str, float] = field(default_factory=lambda: {"train": 0.7, "validate": 0.1, "test": 0.2})
    seed: int = 0

    def __post_init__(self) -> None:
        check_names(self.shares)


def read(folder: Path, config: Config) -> Table:
    """The images of the reports. Raises UserError for what is missing or makes no sense."""
    need_folder(folder)
    file, images = _images(folder)
    names = inside(images["image"], file)
    reports = "CXR" + images["uid"]
    columns = {
        "path": paths_of(names, files_below(folder, PLACES), f"{folder}/{PLACES[0]}/" + names),
        "image_key": names,
        "patient_id": reports,
        "study_id": reports,
        "view": images["view"],
        "split": grouped_split(reports.tolist(), config.shares, config.seed),
    }
    table = make_table(columns, _labels(images["terms"]))
    return check_table(_choose_views(table, config.views, file), file)


def _images(folder: Path) -> tuple[Path, pd.DataFrame]:
    """One row per image (image, uid, view, terms), and the file or folder that they are from."""
    reports, projections = (find_table(folder, name) for name in (REPORTS, PROJECTIONS))
    if reports and projections:
        return projections, _from_tables(reports, projections)
    files = sorted((folder / XML).glob("*.xml"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise UserError(
            f"{folder} is no folder of OpenI, it has neither {XML}/ with reports nor {REPORTS} and {PROJECTIONS}: "
            f"see {SOURCE.url}"
        )
    rows = pd.DataFrame(list(_from_reports(files)), columns=ImageOf._fields)
    if rows.empty:
        raise UserError(f"no report in {folder / XML} can be read and has images: unpack NLMCXR_reports.tgz anew")
    return folder / XML, rows


def _from_tables(file: Path, projections: Path) -> pd.DataFrame:
    reports = index_by(read_text_table(file, ["uid", "MeSH"]), "uid", file)
    images = read_text_table(projections, ["uid", "filename", "projection"])
    if unknown := sorted(set(images["uid"]) - set(reports.index)):
        raise UserError(f"{file} lacks the report {unknown[0]} of {PROJECTIONS}: get both tables anew")
    return pd.DataFrame(
        {
            "image": images["filename"],
            "uid": images["uid"],
            "view": images["projection"].map(VIEWS),
            "terms": images["uid"].map(reports["MeSH"]),
        }
    )


class ImageOf(NamedTuple):
    """An image of a report: file, report, view, and the terms the report is indexed with, parted by semicolons."""

    image: str
    uid: str
    view: str | None
    terms: str


def _from_reports(files: Sequence[Path]) -> Iterator[ImageOf]:
    """The images of the reports; a report that cannot be read is told and left out."""
    broken = []
    for file in files:
        try:
            yield from _from_report(_parsed(file))
        except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # the last: an unknown encoding
            broken.append(f"{file.name} ({error})")
    if broken:
        log.warning("%d of %d reports cannot be read and are left out, such as %s", len(broken), len(files), broken[0])


def _parsed(file: Path) -> ElementTree.Element:
    if not file.is_file():
        raise ValueError("no file")  # to read from a pipe would never end
    if file.stat().st_size > LARGEST_REPORT:
        raise ValueError(f"more than {LARGEST_REPORT} bytes")
    content = file.read_bytes()
    if b"<!DOCTYPE" in content:  # could define entities that grow without bound; no report has one
        raise ValueError("a document type, which no report has")
    return ElementTree.fromstring(content)


def _from_report(report: ElementTree.Element) -> Iterator[ImageOf]:
    name = report.find("uId")
    if name is None or not name.get("id", "").startswith("CXR"):
        raise ValueError("no uId")
    terms = ";".join(term.text or "" for term in report.findall("MeSH/major"))
    for image in report.findall("parentImage"):
        yield ImageOf(f"{image.get('id', '')}.png", name.get("id").removeprefix("CXR"), None, terms)


def _choose_views(table: Table, views: str, file: Path) -> Table:
    if views == "all":
        return table
    if table["view"].isna().all():
        raise UserError(f"{file} does not tell which images are frontal: give views=all, or the tables of Kaggle")
    return keep(table, table["view"] == "FRONTAL", "they are not frontal")


def _labels(text: pd.Series) -> pd.DataFrame:
    """1 and 0 per finding, blank for reports that nobody indexed."""
    codes, kinds = pd.factorize(text)
    values = np.array([_values(kind) for kind in kinds], np.float32)[codes]
    return pd.DataFrame(values, columns=[LABEL + finding for finding in MEANING], index=text.index)


def _values(text: str) -> list[float]:
    terms = [term.strip() for term in text.casefold().split(";") if term.strip()]
    if not terms or NOT_INDEXED in terms:
        return [np.nan] * len(MEANING)
    return [float(any(pattern.fullmatch(term) for term in terms)) for pattern in _PATTERNS.values()]


_FAKE_TERMS = (
    ("normal",),
    ("Cardiomegaly/borderline", "Pulmonary Artery/enlarged"),
    ("Opacity/lung/base/left/streaky", "Thickening/pleura/right", "Calcified Granuloma/lung/hilum/right"),
    ("No Indexing",),
    ("Pleural Effusion/bilateral/small", "Catheters, Indwelling/right", "Technical Quality of Image Unsatisfactory "),
    ("Fractures, Bone/ribs/left/healed", "Hernia, Hiatal/large"),
)


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a look-alike of the reports as XML and the images as PNG; the last report has no image."""
    rng = np.random.default_rng(seed)
    (folder / XML).mkdir(parents=True)
    (folder / PLACES[0]).mkdir()
    for number in range(1, patients + 1):
        images = [f"CXR{number}_{number}_IM-{number:04d}-{view}" for view in ("3001", "4001")]
        for name in images:
            write_picture(folder / PLACES[0] / f"{name}.png", picture(size + 8, size, rng))
        _write_report(folder, number, images)
    _write_report(folder, patients + 1, [])


def _write_report(folder: Path, number: int, images: Sequence[str]) -> None:
    report = ElementTree.Element("eCitation")
    ElementTree.SubElement(report, "uId", id=f"CXR{number}")
    text = ElementTree.SubElement(report, "AbstractText", Label="FINDINGS")
    text.text = "The cardiac silhouette is XXXX."
    terms = ElementTree.SubElement(report, "MeSH")
    for term in _FAKE_TERMS[number % len(_FAKE_TERMS)]:
        ElementTree.SubElement(terms, "major").text = term
        ElementTree.SubElement(terms, "automatic").text = term.split("/")[0].lower()
    for name in images:
        ElementTree.SubElement(report, "parentImage", id=name)
    ElementTree.indent(report)
    ElementTree.ElementTree(report).write(folder / XML / f"{number}.xml", encoding="utf-8", xml_declaration=True)


def fake_tables(folder: Path) -> None:
    """Make a look-alike into what Kaggle hands out: two tables, and the images under names of their own."""
    reports, images = [], []
    (folder / "images" / "images_normalized").mkdir(parents=True)
    for file in sorted((folder / XML).glob("*.xml")):
        report = ElementTree.parse(file).getroot()
        uid = report.find("uId").get("id").removeprefix("CXR")
        terms = [term.text for term in report.findall("MeSH/major")]
        problems = [term.split("/")[0] for term in terms]
        reports.append(
            {"uid": uid, "MeSH": ";".join(terms), "Problems": problems, "image": "Xray Chest PA and Lateral"}
        )
        for image, projection in zip(report.findall("parentImage"), VIEWS, strict=False):
            name = f"{image.get('id').split('_', 1)[1]}.dcm.png"
            (folder / PLACES[0] / f"{image.get('id')}.png").rename(folder / "images" / "images_normalized" / name)
            images.append({"uid": uid, "filename": name, "projection": projection})
    told = ["image", "indication", "comparison", "findings", "impression"]
    pd.DataFrame(reports).assign(**dict.fromkeys(told, "")).to_csv(folder / REPORTS, index=False)
    pd.DataFrame(images).to_csv(folder / PROJECTIONS, index=False)
    shutil.rmtree(folder / XML)
    (folder / PLACES[0]).rmdir()
