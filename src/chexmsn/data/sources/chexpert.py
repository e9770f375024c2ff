"""CheXpert v1.0, full or small, with the labels of its test set where they have been put beside it.

Findings of the training images are read from reports (1, 0, -1 and blank), those of validation and test images were
decided by radiologists (1 and 0). Labels of the test set are published twice and apart from the images: by study
(`groundtruth.csv`) and by image (`test_labels.csv`, in a copy that calls the folder `valid` `val`).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.data.columns import ages, files_below, inside, pick, sexes
from chexmsn.data.look_alike import picture, write_picture
from chexmsn.data.source import (
    Source,
    Table,
    TableFile,
    blank_to_null,
    check_table,
    find_table,
    keep,
    make_table,
    need_folder,
    read_findings,
    read_text_table,
)

TRAIN, VALID, VAL, TEST, STUDIES = "train.csv", "valid.csv", "val_labels.csv", "test_labels.csv", "groundtruth.csv"
FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The collection's own order; the radiologists' files have Lung Lesion before Lung Opacity."""

_ABOUT = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")

SOURCE = Source(
    title="CheXpert v1.0",
    licence="Stanford University research use agreement: research, no sharing",
    citation="Irvin et al., CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison, "
    "AAAI 2019, arXiv 1901.07031",
    url="https://stanfordmlgroup.github.io/competitions/chexpert/",
    tables=(
        TableFile(name=TRAIN, columns=(*_ABOUT, *FINDINGS), rows=223_414, needed=False),
        TableFile(name=VALID, columns=(*_ABOUT, *FINDINGS), rows=234, needed=False),
        TableFile(name=STUDIES, columns=("Study", *FINDINGS), rows=500, needed=False),
        TableFile(name=TEST, columns=("Path", *FINDINGS), rows=668, needed=False),
        TableFile(name=VAL, columns=("Path", *FINDINGS), rows=234, needed=False),
    ),
    counts={"train": 223_414, "validate": 234},  # the 668 test images are handed out apart from the others
    counted_with={"views": "all"},
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which images. `views` is frontal or all."""

    views: Literal["frontal", "all"] = "frontal"


def read(folder: Path, config: Config) -> Table:
    """The images of every split whose table is there. Raises UserError where none is, or one makes no sense."""
    need_folder(folder)
    place = _place(folder)
    test = _test(place)
    parts = [part for part in (_train(place), _validate(place), test) if part is not None]
    if not parts:
        raise UserError(f"{folder} is no folder of CheXpert, it has neither {TRAIN} nor {VALID}: see {SOURCE.url}")
    if test is None:
        log.info("no labels of the test set (%s or %s): the pack has no split test", STUDIES, TEST)
    table = pd.concat(parts, ignore_index=True)
    return check_table(_choose_views(table, config.views), folder)


@dataclass(frozen=True)
class Place:
    """Where a copy of the collection lies.

    Attributes:
        folder: what was given.
        root: the folder that holds train and valid: the given one, or `CheXpert-v1.0`, `CheXpert-v1.0-small` in it.
        batches: {patient: folder} of the full download, whose training patients come in three batches.
        valid: what the folder of validation images is called.
    """

    folder: Path
    root: Path
    batches: Mapping[str, str]
    valid: str

    def find(self, *names: str) -> Path | None:
        """The first of these tables that is there."""
        places = dict.fromkeys((self.root, self.folder))
        return next((file for name in names for place in places if (file := find_table(place, name))), None)

    def paths(self, keys: pd.Series, patients: pd.Series) -> pd.Series:
        """Where the images of these keys lie."""
        paths = f"{self.root}/" + keys.str.replace(r"^valid/", f"{self.valid}/", regex=True)
        batched = keys.str.startswith("train/") & patients.isin(self.batches.keys())
        of_batch = [
            f"{self.batches[patient]}/{key.split('/', 2)[2]}"
            for key, patient in zip(keys[batched], patients[batched], strict=True)
        ]
        return paths.astype(object).mask(batched, pd.Series(of_batch, index=keys.index[batched], dtype=object))


def _place(folder: Path) -> Place:
    below = [place for place in sorted(folder.glob("CheXpert-v1.0*")) if find_table(place, TRAIN)]
    root = folder if find_table(folder, TRAIN) or not below else below[0]
    batches = {} if (root / "train").is_dir() else files_below(folder, ["CheXpert-v1.0 batch *"])
    renamed = (root / "val").is_dir() and not (root / "valid").is_dir()
    return Place(folder, root, batches, "val" if renamed else "valid")


def _choose_views(table: Table, views: str) -> Table:
    return table if views == "all" else keep(table, table["view"] != "LATERAL", "they are lateral")


def _train(place: Place) -> Table | None:
    file = place.find(TRAIN)
    return _images(place, file, "train") if file else None


def _validate(place: Place) -> Table | None:
    file = place.find(VALID, VAL)
    return _images(place, file, "validate") if file else None


def _test(place: Place) -> Table | None:
    """The test images with the labels of their image, else of their study."""
    if file := place.find(TEST):
        return _images(place, file, "test")
    if file := place.find(STUDIES):
        return _images_of_studies(place, file)
    return None


def _images(place: Place, file: Path, split: str) -> Table:
    """The images of a table with one row each."""
    rows = read_text_table(file, ["Path"])
    return _table(place, _keys(rows["Path"], file), rows, file, split)


def _images_of_studies(place: Place, file: Path) -> Table:
    """The images that lie in the folders of the studies, of which the table does not say how many there are."""
    rows = read_text_table(file, ["Study"])
    studies = _keys(rows["Study"], file)
    # Path.glob raises where a name is longer than any folder's can be.
    images = [sorted(glob("*.jpg", root_dir=place.root / study)) for study in studies]  # noqa: PTH207
    if empty := [study for study, names in zip(studies, images, strict=True) if not names]:
        log.warning("%d of the %d studies of %s have no image, such as %s", len(empty), len(rows), file.name, empty[0])
    of_study = np.repeat(np.arange(len(rows)), [len(names) for names in images])
    names = [name for found in images for name in found]
    keys = studies.iloc[of_study].reset_index(drop=True) + "/" + pd.Series(names, dtype="str")
    return _table(place, keys, rows.iloc[of_study].reset_index(drop=True), file, "test")


def _keys(paths: pd.Series, file: Path) -> pd.Series:
    """`train/patient00001/study1/view1_frontal.jpg`, whichever copy wrote it: without prefix, `val` as `valid`."""
    keys = inside(paths, file).str.replace(r"^CheXpert-v1\.0[^/]*/", "", regex=True)
    return keys.str.replace(r"^val/", "valid/", regex=True)


def _table(place: Place, keys: pd.Series, rows: pd.DataFrame, file: Path, split: str) -> Table:
    parts = keys.str.extract(r"^[a-z]+/(?P<patient>[^/]+)/(?P<study>[^/]+)/[^/]+$")
    wrong = np.flatnonzero(parts["patient"].isna())
    if wrong.size:
        raise UserError(
            f"{file}: {keys.iloc[wrong[0]]!r} is no path such as train/patient00001/study1/view1_frontal.jpg"
        )
    columns = {
        "path": place.paths(keys, parts["patient"]),
        "image_key": keys,
        "patient_id": parts["patient"],
        "study_id": parts["patient"] + "/" + parts["study"],
        "view": _views(keys, rows),
        "split": split,
        "sex": sexes(pick(rows, "Sex")),
        "age": ages(pick(rows, "Age"), file),
    }
    return make_table(columns, read_findings(rows, FINDINGS, file))


def _views(keys: pd.Series, rows: pd.DataFrame) -> pd.Series:
    """AP, PA (rarely LL, RL) as the table says; LATERAL; FRONTAL where nothing says more."""
    lateral = pick(rows, "Frontal/Lateral").str.casefold() == "lateral"
    lateral |= keys.str.endswith("_lateral.jpg")
    position = blank_to_null(pick(rows, "AP/PA").fillna("")).str.upper()
    return position.fillna("FRONTAL").mask(lateral, "LATERAL")


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a look-alike of the small copy, with the labels of the test set by study."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame([row for number in range(1, patients + 1) for row in _fake_patient(number, rng)])
    for path in rows["Path"]:
        write_picture(folder / path.split("/", 1)[1], picture(size, size + size // 5, rng))
    part = rows["Path"].str.split("/").str[1]
    rows[part == "train"].to_csv(folder / TRAIN, index=False)
    for name, file in (("valid", VALID), ("test", STUDIES)):
        decided = rows[part == name].assign(**dict.fromkeys(FINDINGS, 0.0))
        decided[list(FINDINGS)] = rng.integers(0, 2, (len(decided), 14)).astype(float)
        if name == "test":
            decided = _by_study(decided)
        decided.to_csv(folder / file, index=False)


def _by_study(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per study and the radiologists' order of the columns."""
    rows = rows.assign(Study=rows["Path"].str.replace(r"/[^/]*$", "", regex=True)).drop_duplicates("Study")
    swapped = {"Lung Opacity": "Lung Lesion", "Lung Lesion": "Lung Opacity"}
    return rows[["Study", *(swapped.get(finding, finding) for finding in FINDINGS)]]


def fake_by_image(folder: Path) -> None:
    """Make a look-alike into the copy whose test set is labelled by image and whose `valid` is `val`."""
    studies = pd.read_csv(folder / STUDIES, dtype=str)
    images = [
        {"Path": str(file.relative_to(folder)), **row.drop("Study")}
        for _, row in studies.iterrows()
        for file in sorted((folder / row["Study"].split("/", 1)[1]).iterdir())
    ]
    pd.DataFrame(images).to_csv(folder / TEST, index=False)
    valid = pd.read_csv(folder / VALID, dtype=str)
    valid["Path"] = valid["Path"].str.replace("CheXpert-v1.0-small/valid", "val")
    valid[["Path", *FINDINGS]].to_csv(folder / VAL, index=False)
    (folder / "valid").rename(folder / "val")
    for name in (STUDIES, VALID):
        (folder / name).unlink()


def _fake_patient(number: int, rng: np.random.Generator) -> list[dict[str, object]]:
    """Rows of the table, one per image: a frontal and a lateral image of one study, a frontal one of another."""
    split, first = {3: ("valid", 64540), 0: ("test", 64740)}.get(number % 4, ("train", 0))
    study = f"CheXpert-v1.0-small/{split}/patient{first + number:05d}/study"
    about = {"Sex": "Unknown" if number == 2 else rng.choice(["Male", "Female"]), "Age": 20 + 7 * number % 71}
    images = [("1/view1_frontal", ("AP", "PA")[number % 2]), ("1/view2_lateral", ""), ("2/view1_frontal", "AP")]
    return [
        {
            "Path": f"{study}{name}.jpg",
            **about,
            "Frontal/Lateral": name.rpartition("_")[2].title(),
            "AP/PA": position,
            **dict(zip(FINDINGS, rng.choice(["1.0", "0.0", "-1.0", ""], 14, p=[0.2, 0.1, 0.1, 0.6]), strict=True)),
        }
        for name, position in images
    ]


def fake_batches(folder: Path) -> None:
    """Make a look-alike into the full download: four batches, of which the training images have no folder `train`."""
    first, *others = (
        folder / f"CheXpert-v1.0 batch {name}" for name in ("1 (validate & csv)", "2 (train 1)", "3 (train 2)")
    )
    for batch in (first, *others):
        batch.mkdir()
    for name in (TRAIN, VALID, "valid"):
        (folder / name).rename(first / name)
    for place, patient in enumerate(sorted((folder / "train").iterdir())):
        patient.rename(others[place % 2] / patient.name)
    (folder / "train").rmdir()
