"""Another split of what is there: of a pack, without copying its pixels, and of MIMIC-CXR as MedFuse does it."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.files import new_folder, write_atomic, write_json
from chexmsn.core.progress import progress
from chexmsn.data._finish import summary, write_index
from chexmsn.data.pack import IMAGES, INDEX, INFO, LEFT_OUT, Pack, open_pack, sha256
from chexmsn.data.source import find_table, read_text_table
from chexmsn.data.sources.mimic_cxr_jpg import EHR, OFFICIAL
from chexmsn.data.splits import SPLITS, check_names, check_no_leak

_AT_ONCE = 1024  # images

log = logging.getLogger(__name__)


def resplit(pack: Pack, splits: Sequence[str], out: Path, how: str, sums: pd.DataFrame) -> Pack:
    """The pack's images under another split, one word per image; `how` is recorded, `sums` are `sums_of(pack)`.

    The pixels are shared (a hard link, a copy only on another disk), so that five folds take the room of one.
    Raises UserError for a word that is no split, a patient in two splits, and an `out` that is there already.
    """
    index = pack.index.assign(split=list(splits))
    check_names(index["split"])
    check_no_leak(index)
    form = {"size": pack.size, "dtype": pack.images.dtype.name}
    with new_folder(out) as place:
        _link(pack.folder / IMAGES, place / IMAGES)
        if (pack.folder / LEFT_OUT).is_file():
            shutil.copy(pack.folder / LEFT_OUT, place / LEFT_OUT)
        write_index(place / INDEX, index)
        info = pack.info | summary(index, sums, form) | {"resplit": how}
        info["sha256"] = pack.info["sha256"] | {INDEX: sha256(place / INDEX)}
        write_json(place / INFO, info)
    log.info("%s: %s", out, ", ".join(f"{count} {split}" for split, count in info["splits"].items()))
    return open_pack(out)


def _link(file: Path, new: Path) -> None:
    try:
        os.link(file, new)
    except OSError:  # another disk, or one without links
        shutil.copy(file, new)


def sums_of(pack: Pack) -> pd.DataFrame:
    """What mean and deviation of the training pixels are made of, per image."""
    starts = range(0, len(pack), _AT_ONCE)
    chunks = (pack.images[start : start + _AT_ONCE].astype(np.int64).reshape(-1, pack.size**2) for start in starts)
    rows = ((chunk.sum(axis=1), (chunk**2).sum(axis=1)) for chunk in chunks)
    told = progress(rows, total=len(starts), title="mean and deviation", unit="chunk")
    sums, squares = (np.concatenate(part).astype(object) for part in zip(*told, strict=True))
    return pd.DataFrame({"sum": sums, "sum_of_squares": squares})


def splits_of_list(pack: Pack, file: Path) -> list[str]:
    """The split of each image by a CSV file with `split` and either `image_key` or `patient_id`.

    Raises UserError for a file that is none, or says nothing of an image.
    """
    rows = read_text_table(file, ["split"])
    key = next((name for name in ("image_key", "patient_id") if name in rows), None)
    if key is None:
        raise UserError(f"{file} has neither a column image_key nor patient_id: it must say whose split it gives")
    pairs = rows[[key, "split"]].drop_duplicates()
    if pairs[key].duplicated().any():
        raise UserError(f"{file} gives {pairs[key][pairs[key].duplicated()].iloc[0]} two splits: keep one")
    found = pack.index[key].map(pairs.set_index(key)["split"])
    if found.isna().any():
        raise UserError(
            f"{file} says nothing of {found.isna().sum()} of {len(found)} images, such as "
            f"{pack.index[key][found.isna()].iloc[0]}: list every {key}"
        )
    return found.tolist()


def medfuse_split(folder: Path, validate_list: Path, test_list: Path) -> Path:
    """Write MedFuse's split into a MIMIC-CXR-JPG folder: its subjects of MIMIC-IV's ICU lists, everybody else train.

    Subjects are compared as numbers, and a subject in both lists is tested on. MedFuse's own program compares text
    with numbers, which matches nobody in today's pandas (nyuad-cai/MedFuse, ehr_utils/create_split.py).

    Raises UserError for lists that are none, or name no subject of the folder, and where another split lies there.
    """
    official = find_table(folder, OFFICIAL)
    if official is None:
        raise UserError(f"{folder} has no {OFFICIAL}.gz: give a MIMIC-CXR-JPG folder")
    rows = read_text_table(official, ["dicom_id", "study_id", "subject_id", "split"])
    subjects = pd.to_numeric(rows["subject_id"], errors="coerce")
    rows["split"] = "train"
    for split, file in (("validate", validate_list), ("test", test_list)):
        listed = subjects.isin(subjects_of(file))
        if not listed.any():
            raise UserError(f"{file} names no subject of {official.name}: is it a list of MIMIC-IV's ICU stays?")
        rows.loc[listed, "split"] = split
    return _write_once(rows, folder / EHR)


def _write_once(rows: pd.DataFrame, file: Path) -> Path:
    if file.exists() and not read_text_table(file).equals(rows.astype(str)):
        raise UserError(f"{file} is there already and says something else: move it away first")
    write_atomic(file, lambda place: rows.to_csv(place, index=False))
    counts = rows["split"].value_counts()
    log.info("%s: %s", file, ", ".join(f"{counts.get(split, 0)} {split}" for split in SPLITS))
    return file


def subjects_of(file: Path) -> set[int]:
    """The subjects of a list of MIMIC-IV's benchmark.

    It is `val_listfile.csv` or `test_listfile.csv` (a column `stay`: 10000032_episode1_timeseries.csv), a table with a
    column `subject_id`, or `valset_iv.csv` or `testset_iv.csv` (no header: a subject, and 1 for those that belong).
    """
    rows = read_text_table(file)
    if "stay" in rows:
        subjects = rows["stay"].str.split("_").str[0]
    elif "subject_id" in rows:
        subjects = rows["subject_id"]
    elif rows.shape[1] == 2 and rows.columns[0].isdecimal():
        flagged = pd.DataFrame([rows.columns.tolist(), *rows.to_numpy().tolist()])
        subjects = flagged.loc[flagged[1].str.strip() == "1", 0]
    else:
        raise UserError(f"{file} has neither a column stay nor subject_id: give MedFuse's val_listfile.csv or the like")
    numbers = pd.to_numeric(subjects, errors="coerce")
    if numbers.isna().any():
        raise UserError(f"{file}: {subjects[numbers.isna()].iloc[0]!r} is no subject: give it as a number")
    return set(numbers.astype(int))
