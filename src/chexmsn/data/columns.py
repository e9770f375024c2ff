"""What the columns of a collection's tables mean: ages, sexes, names of files; whole columns at once."""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.words import are

_OLDEST = 120
_YEARS = {
    "Y": 1.0,
    "M": 1 / 12,
    "W": 7 / 365.25,
    "D": 1 / 365.25,
}  # DICOM PS3.5, value representation AS
_LEADS_OUT = re.compile(r"^/|(?:^|/)\.\.(?:/|$)|\0")

log = logging.getLogger(__name__)


def pick(table: pd.DataFrame, *names: str) -> pd.Series:
    """The first of these columns that is there, compared without case and punctuation; nulls where none is."""
    there = {plain(column): column for column in reversed(table.columns)}
    for name in names:
        if plain(name) in there:
            return table[there[plain(name)]]
    return pd.Series(None, index=table.index, dtype="str")


def plain(name: str) -> str:
    """A name without case and punctuation: what two spellings of one share.

    >>> plain("OriginalImagePixelSpacing[x") == plain("OriginalImagePixelSpacing_x")
    True
    """
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def numbers(text: pd.Series) -> pd.Series:
    """Text as numbers; NaN for what is none."""
    return pd.to_numeric(text, errors="coerce").astype(float)


def ages(text: pd.Series, file: Path) -> pd.Series:
    """Years from numbers and from ages as DICOM writes them: `058Y`, `011M`, `003W`, `012D`; NaN for blank.

    Raises UserError for anything else. An age above 120 is a slip of the pen and becomes NaN.

    >>> ages(pd.Series(["58", "058Y", "006M", "", "414"]), Path("table.csv")).tolist()
    [58.0, 58.0, 0.5, nan, nan]
    """
    text = text.fillna("").str.strip()
    unit = text.str[-1:].str.upper()
    marked = unit.isin(list(_YEARS))
    number = numbers(text.mask(marked, text.str[:-1]))
    wrong = np.flatnonzero(number.isna() & (text != ""))
    if wrong.size:
        raise UserError(f"{file}: row {wrong[0] + 1} has the age {text.iloc[wrong[0]]!r}: give years as a number")
    years = number * unit.map(_YEARS).astype(float).fillna(1.0)
    return years.where(years.between(0, _OLDEST))


def sexes(text: pd.Series) -> pd.Series:
    """M or F from M, F, male, Female ...; null for everything else.

    >>> sexes(pd.Series(["Male", "f", "Unknown", ""])).dropna().tolist()
    ['M', 'F']
    """
    letter = text.fillna("").str.strip().str.upper().str[:1]
    return letter.where(letter.isin(["M", "F"]))


def leads_out(name: str) -> bool:
    """Whether a file of this name would lie outside the folder, or nowhere.

    >>> [leads_out(name) for name in ("/a.png", "a/../../b.png", "a..b.png")]
    [True, True, False]
    """
    return _LEADS_OUT.search(name) is not None


def inside(names: pd.Series, file: Path) -> pd.Series:
    """Names of files below a folder, `./a.png` as `a.png`. Raises UserError for a blank one and one that leads out.

    >>> inside(pd.Series(["images//./a.png"]), Path("table.csv")).tolist()
    ['images/a.png']
    """
    names = names.str.strip()
    wrong = np.flatnonzero((names == "") | names.str.contains(_LEADS_OUT))
    if wrong.size:
        raise UserError(
            f"{file}: row {wrong[0] + 1} names the image {names.iloc[wrong[0]]!r}: give a path inside the folder"
        )
    return names.str.replace(r"/(?:\.?/)+", "/", regex=True).str.removeprefix("./")


def files_below(folder: Path, places: Iterable[str]) -> dict[str, str]:
    """{name: path} of the files in the folders that the patterns match; of two files of one name the first.

    One listing per folder, where to ask for every single file of a large collection takes minutes.
    """
    found: dict[str, str] = {}
    for place in places:
        for where in [folder] if place == "." else sorted(folder.glob(place)):
            if where.is_dir():
                with os.scandir(where) as entries:
                    for entry in entries:
                        found.setdefault(entry.name, entry.path)
    return found


def paths_of(names: pd.Series, lying: Mapping[str, str], published: Iterable[str]) -> list[str]:
    """The paths of images of these names: where `files_below` found them, else as published, which packing lists."""
    if missing := int((~names.isin(lying.keys())).sum()):
        log.warning("%d of the %d images of the table %s not in the folder", missing, len(names), are(missing))
    return [lying.get(name, path) for name, path in zip(names, published, strict=True)]
