"""NIH ChestX-ray14: 112,120 frontal radiographs of 30,805 patients, with 14 findings mined from the reports.

The published lists name training and test images; the images to validate on are drawn here from the training patients.
A finding that is not named for an image counts as absent (0): the labels of this collection know no blank.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.data.columns import ages, files_below, inside, numbers, paths_of, pick, sexes
from chexmsn.data.decode import SMALLEST_SIDE, UnreadableImage, decode
from chexmsn.data.labels import canonical
from chexmsn.data.look_alike import picture
from chexmsn.data.source import (
    LABEL,
    Source,
    Table,
    TableFile,
    blank_to_null,
    check_table,
    find_table,
    keep,
    make_table,
    need_folder,
    read_text_table,
)
from chexmsn.data.splits import grouped_split

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
TRAIN, TEST = "train_val_list.txt", "test_list.txt"
PLACES = ("images", "images_*/images", "images_*")
SIDE = 1024  # of the published files, in pixels
PATIENTS = 30_805
ARCHIVES = (
    *("00000001_000.png", "00001336_000.png", "00003923_014.png", "00006585_007.png", "00009232_004.png"),
    *("00011558_008.png", "00013774_026.png", "00016051_010.png", "00018387_035.png", "00020945_050.png"),
    *("00024718_000.png", "00028173_003.png"),
)
"""The first image of each archive: the names go through them in their order (listing of Kaggle's copy)."""
NO_FINDING = "No Finding"
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
    NO_FINDING,
)

_NEEDED = ("Image Index", "Finding Labels", "Patient ID", "View Position")

SOURCE = Source(
    title="NIH ChestX-ray14",
    licence="no restriction on use; the NIH Clinical Center asks for attribution, a link and the citation",
    citation="Wang et al., ChestX-ray8: hospital-scale chest X-ray database and benchmarks, CVPR 2017, "
    "arXiv 1705.02315",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    tables=(
        TableFile(name=TABLES[0], columns=_NEEDED, rows=112_120, instead=TABLES[1:]),
        TableFile(name=TRAIN),
        TableFile(name=TEST),
        TableFile(name="BBox_List_2017.csv", columns=("Image Index", "Finding Label"), rows=984, needed=False),
    ),
    counts={"train+validate": 86_524, "test": 25_596},
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which of the training images are kept to validate on.

    Attributes:
        validate_share: share of the patients of train_val_list.txt, [0, 1).
        seed: another seed, other patients.
    """

    validate_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, validate_share="[0, 1)")


def read(folder: Path, config: Config) -> Table:
    """The images of the table that one of the lists names. Raises UserError for what is missing or of no sense."""
    need_folder(folder)
    file = _table_file(folder)
    rows = read_text_table(file, _NEEDED)
    images = inside(rows["Image Index"], file)
    places = files_below(folder, PLACES)
    patients = rows["Patient ID"].str.strip()
    row_mm, column_mm = _pixel_mm(rows, places)
    columns = {
        "path": paths_of(images, places, f"{folder}/" + _published(folder, images)),
        "image_key": images,
        "patient_id": patients,
        "study_id": patients + "_" + blank_to_null(pick(rows, "Follow-up #")),
        "view": blank_to_null(rows["View Position"]).str.upper(),
        "split": _splits(folder, images, patients, config),
        "sex": sexes(pick(rows, "Patient Gender", "Patient Sex")),
        "age": ages(pick(rows, "Patient Age"), file),
        "pixel_mm_row": row_mm,
        "pixel_mm_column": column_mm,
    }
    table = make_table(columns, _labels(rows["Finding Labels"], file))
    return check_table(keep(table, table["split"].notna(), f"neither {TRAIN} nor {TEST} names them"), file)


def archive_of(image: str) -> str:
    """The archive that holds this image.

    >>> archive_of("00003923_013.png"), archive_of("00003923_014.png")
    ('images_002', 'images_003')
    """
    return f"images_{max(1, bisect_right(ARCHIVES, image)):03d}"


def _published(folder: Path, images: pd.Series) -> pd.Series:
    """Where these images belong: in the folders of their archives where this copy has such, else all in one."""
    if not any(folder.glob("images_*/")):
        return "images/" + images
    archives = images.map(archive_of)
    bare = {name for name in archives.unique() if (folder / name).is_dir() and not (folder / name / "images").is_dir()}
    return archives.mask(~archives.isin(bare), archives + "/images") + "/" + images


def _table_file(folder: Path) -> Path:
    there = [file for file in (find_table(folder, name) for name in TABLES) if file]
    missing = ([] if there else [TABLES[0]]) + [name for name in (TRAIN, TEST) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} is no folder of ChestX-ray14, it lacks {', '.join(missing)}: see {SOURCE.url}")
    return there[0]


def _pixel_mm(rows: pd.DataFrame, places: dict[str, str]) -> tuple[pd.Series, pd.Series]:
    """Height and width in mm of a pixel of the files, which are the detector's image squeezed into a square.

    The header `OriginalImagePixelSpacing[x,y]` is split at its comma; x goes along a row, from column to column.
    """
    height, width = pick(rows, "Height]", "OriginalImageHeight"), pick(rows, "OriginalImage[Width")
    y, x = pick(rows, "y]", "OriginalImagePixelSpacing_y"), pick(rows, "OriginalImagePixelSpacing[x")
    stored_rows, stored_columns = _stored(places)
    return numbers(y) * numbers(height) / stored_rows, numbers(x) * numbers(width) / stored_columns


def _stored(places: dict[str, str]) -> tuple[int, int]:
    """Rows and columns of the first of the files that can be read: copies of the collection in other sizes are many."""
    for path in islice((path for name, path in sorted(places.items()) if name.endswith(".png")), 5):
        try:
            return decode(Path(path), SMALLEST_SIDE).stored
        except UnreadableImage:
            continue
    return SIDE, SIDE


def _labels(text: pd.Series, file: Path) -> pd.DataFrame:
    """1 for the findings that an image's text names, 0 for the others."""
    codes, kinds = pd.factorize(text.str.strip())  # a few hundred different texts
    named = [[name.strip() for name in kind.split("|")] for kind in kinds]
    if unknown := sorted({name for names in named for name in names} - set(LABELS)):
        row = int(np.flatnonzero([unknown[0] in named[code] for code in codes])[0])
        raise UserError(
            f"{file}: row {row + 1} has the finding {unknown[0]!r}, which ChestX-ray14 does not know: correct the table"
        )
    values = np.array([[label in names for label in LABELS] for names in named], np.float32)
    values = values.reshape(-1, len(LABELS))[codes]
    return pd.DataFrame(values, columns=[LABEL + canonical(label) for label in LABELS], index=text.index)


def _splits(folder: Path, images: pd.Series, patients: pd.Series, config: Config) -> pd.Series:
    """The split of each image, null where no list names it."""
    train, test = (images.isin(_listed_names(folder / name)) for name in (TRAIN, TEST))
    if (train & test).any():
        raise UserError(
            f"{folder}: {images[train & test].iloc[0]} is both in {TRAIN} and in {TEST}: get the lists anew"
        )
    split = pd.Series(None, index=images.index, dtype="object")
    split[test] = "test"
    shares = {"train": 1 - config.validate_share, "validate": config.validate_share}
    if train.any():
        split[train] = grouped_split(patients[train].tolist(), shares, config.seed)
    return split


def _listed_names(file: Path) -> set[str]:
    try:
        return {line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as a list of images ({error}): get it anew") from None


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a look-alike of the release of 2020: archives, lists, a header whose brackets are split at their commas."""
    rng = np.random.default_rng(seed)
    known = np.linspace(1, max(PATIENTS, patients), patients).astype(int)  # some in every archive
    rows = pd.DataFrame([row for number in known.tolist() for row in _fake_patient(number, rng)])
    for place, name in enumerate(rows["Image Index"]):
        _draw_fake(folder / archive_of(name) / "images" / name, size, place, rng)
    rows.to_csv(folder / TABLES[0], index=False)
    test = rows.index // 2 % 4 == 3
    _write_list(folder / TRAIN, rows.loc[~test, "Image Index"])
    _write_list(folder / TEST, rows.loc[test, "Image Index"])
    boxes = pd.DataFrame({"Image Index": rows["Image Index"][:1], "Finding Label": "Infiltrate"})
    boxes[["Bbox [x", "y", "w", "h]"]] = 225.0, 547.0, 86.0, 79.0
    boxes.join(pd.DataFrame(columns=["Unnamed: 6", "Unnamed: 7", "Unnamed: 8"])).to_csv(
        folder / "BBox_List_2017.csv", index=False
    )


def fake_copy(folder: Path) -> None:
    """Make a look-alike into what other copies of the collection are: the table of 2017 with `Patient Sex`, ages such
    as 058Y and an empty column at the end, and all images in one folder."""
    table = pd.read_csv(folder / TABLES[0], dtype=str).rename(columns={"Patient Gender": "Patient Sex"})
    table["Patient Age"] = table["Patient Age"].str.zfill(3) + "Y"
    table.assign(**{"": None}).to_csv(folder / TABLES[1], index=False)
    (folder / TABLES[0]).unlink()
    (folder / "images").mkdir()
    for file in sorted(folder.glob("images_*/images/*.png")):
        file.rename(folder / "images" / file.name)


def _write_list(file: Path, names: pd.Series) -> None:
    file.write_text("\n".join(names), encoding="utf-8")  # the published lists end without a line break, too


def _fake_patient(number: int, rng: np.random.Generator) -> list[dict[str, object]]:
    """Rows of the table: two visits of one patient, an image each."""
    sex = rng.choice(["M", "F"])
    return [_fake_row(number, visit, sex, rng) for visit in range(2)]


def _fake_row(number: int, visit: int, sex: str, rng: np.random.Generator) -> dict[str, object]:
    names = rng.choice(LABELS[:-1], size=rng.integers(0, 4), replace=False)
    return {
        "Image Index": f"{number:08d}_{visit:03d}.png",
        "Finding Labels": "|".join(sorted(names)) or NO_FINDING,
        "Follow-up #": visit,
        "Patient ID": number,
        "Patient Age": 40 + 3 * number % 50 + visit,
        "Patient Gender": sex,
        "View Position": ("PA", "AP")[(number + visit) % 2],
        "OriginalImage[Width": 2682,
        "Height]": 2749,
        "OriginalImagePixelSpacing[x": 0.143,
        "y]": 0.139,
    }


def _draw_fake(file: Path, size: int, place: int, rng: np.random.Generator) -> None:
    """Gray; every fifth file, as some of the real ones, in colour with an alpha channel."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray((255 * picture(size, size, rng)).astype(np.uint8))
    image.convert("RGBA" if place % 5 == 4 else "L").save(file)
