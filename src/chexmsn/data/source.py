"""What every source has in common: its description, its options, and the table it hands over."""

import argparse
import gzip
import io
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from jsonargparse import ArgumentParser

from chexmsn.core.errors import UserError
from chexmsn.core.words import are
from chexmsn.data.labels import canonical
from chexmsn.data.splits import SPLITS, check_no_leak

Table = pd.DataFrame
"""One row per image: `path` and the columns of a pack's index."""

LABEL = "label:"
"""Label columns are called `label:<Finding>`."""

LOOK_ALIKE = "look-alike.json"
"""What `chexmsn fake` leaves beside its files; published counts do not apply to them."""

LARGEST_TABLE = 1 << 29
"""Bytes, unpacked: several times the largest table that was published."""

LONGEST_LINE = 1 << 20
_SHOWN, _LONGEST_NAME = 8, 40  # of a table's columns, in a message
_GZIP = b"\x1f\x8b"

TEXT_COLUMNS = ("image_key", "patient_id", "study_id", "view", "split", "sex")
NUMBER_COLUMNS = ("age", "pixel_mm_row", "pixel_mm_column")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """A table that comes with a collection, as it was published.

    Attributes:
        name: its place in the folder, under the name it was published with; a copy may be packed (.gz) or not.
        columns: those that every copy has, by any name that `read` knows them by.
        rows: how many were published; another number is another version or a part.
        needed: nothing can be read without it.
        instead: names of other releases of it, any of which serves as well.
    """

    name: str
    columns: tuple[str, ...] = ()
    rows: int | None = None
    needed: bool = True
    instead: tuple[str, ...] = ()

    def lying_in(self, folder: Path) -> Path | None:
        """Where it, or what serves instead, lies in the folder; None where nothing does."""
        return next((file for name in (self.name, *self.instead) if (file := find_table(folder, name))), None)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a collection is, on whose terms it may be used, and what a whole copy of it holds.

    Attributes:
        tables: its tables.
        counts: published images by split; `train+validate` counts both.
        counted_with: the options under which `read` gives just those.
        files: whether the `path` of an image is that of a file; `read` gives it whether the file is there or not.
        checksums: the file of SHA-256 sums that was published with it.
        fetch: the command that fetches the files listed in `{list}`, one a line, into `{folder}`.
        sizes: the only sides in pixels that it comes in, where there are such.
        copies: what other releases hold, whose tables serve in place of all of these.
    """

    title: str
    licence: str
    citation: str
    url: str
    tables: tuple[TableFile, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    counted_with: Mapping[str, Any] = field(default_factory=dict)
    files: bool = True
    checksums: str | None = None
    fetch: str | None = None
    sizes: tuple[int, ...] = ()
    copies: tuple["Source", ...] = ()

    def lying_in(self, folder: Path) -> "Source":
        """The copy whose tables lie in the folder where none of this one's own does; else this."""
        if any(table.needed and table.lying_in(folder) for table in self.tables):
            return self
        whole = (copy for copy in self.copies if all(t.lying_in(folder) for t in copy.tables if t.needed))
        return next(whole, self)


def physionet(project: str) -> str:
    """The `fetch` of a project and version of PhysioNet."""
    return (
        "wget --user YOUR_PHYSIONET_NAME --ask-password -N -x -nH --cut-dirs=3 -P {folder} "
        f"--base=https://physionet.org/files/{project}/ -i {{list}}"
    )


def make_config(module: ModuleType, options: Any) -> Any:
    """The `Config` of a source from a mapping of options (or a `Config`), every value checked for its kind.

    Raises UserError for an option that does not exist or a value that it cannot take.
    """
    given = asdict(options) if is_dataclass(options) else dict(options)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(module.Config, "options")
    try:
        checked = parser.parse_object({"options": given}).options.as_dict()
    except argparse.ArgumentError as error:
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        offered = ", ".join(option.name for option in fields(module.Config))
        raise UserError(f"source {name}: {' '.join(str(error).split())}; its options are {offered}") from None
    return module.Config(**checked)


def need_folder(folder: Path) -> None:
    """Raise UserError where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the folder that holds the images and tables")


def find_table(folder: Path, name: str) -> Path | None:
    """Where a table lies in the folder: under its name, packed (.gz) or unpacked; None where it does not."""
    plain = name.removesuffix(".gz")
    return next((file for file in (folder / name, folder / plain, folder / f"{plain}.gz") if file.is_file()), None)


def read_text_table(file: Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """A CSV file (plain or packed by gzip, whatever its name says) with every value as text, blanks as "".

    As text, identifiers stay what they are: no study turns into a float, no subject into a number that
    equals no text. Raises UserError for a file that is no table, has rows longer than its header, or lacks one of
    the columns.
    """
    try:
        table = pd.read_csv(io.BytesIO(_csv_content(file)), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {file}: name a CSV table") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is no text in UTF-8, so no CSV table: name another file, or save it anew") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:  # errors of parsing and of decoding are ValueErrors
        raise UserError(f"{file} cannot be read as a CSV table: {' '.join(str(error).split())}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas would take the first columns for names of the rows
        raise UserError(f"{file} has rows with more values than its header has names: get it anew, or mend the header")
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"{file} lacks the column {', '.join(missing)}: it has {_few(list(table.columns))}")
    return table


def _few(names: Sequence[str]) -> str:
    """The first of many names, none of them longer than a name should be.

    >>> _few(["a", "b" * 99, *map(str, range(99))])
    'a, bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, 0, 1, 2, 3, 4, 5 and 93 more'
    """
    first = ", ".join(" ".join(name.split())[:_LONGEST_NAME] for name in names[:_SHOWN])
    return f"{first} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else first


def _csv_content(file: Path) -> bytes:
    """The bytes of the table, unpacked; OSError or ValueError for a pipe, a device, and what is absurdly large."""
    if file.exists() and not file.is_file():
        raise OSError("it is no file")
    with file.open("rb") as stream:
        is_packed = stream.read(len(_GZIP)) == _GZIP
        stream.seek(0)
        content = (gzip.GzipFile(fileobj=stream) if is_packed else stream).read(LARGEST_TABLE + 1)
    if len(content) > LARGEST_TABLE:
        raise ValueError(f"it has more than {LARGEST_TABLE >> 20} MB")
    if _longest_line(content) > LONGEST_LINE:
        raise ValueError(f"it has a line of more than {LONGEST_LINE:,} characters")
    return content


def _longest_line(content: bytes) -> int:
    ends = np.flatnonzero(np.isin(np.frombuffer(content, np.uint8), np.frombuffer(b"\r\n", np.uint8)))
    return int(np.diff(ends, prepend=-1, append=len(content)).max())


def read_labels(table: pd.DataFrame, columns: Mapping[str, str], file: Path) -> pd.DataFrame:
    """The columns {column: finding} of a text table as `label:<Finding>`, float32: 1, 0, -1, NaN for blank.

    Raises UserError naming file, column, value and row of anything else.
    """
    findings = [LABEL + canonical(finding) for finding in columns.values()]
    if twice := sorted({finding for finding in findings if findings.count(finding) > 1}):
        raise UserError(f"{file}: more than one column stands for {', '.join(twice)}: name one column per finding")
    values = {name: _label_values(table[column], file) for name, column in zip(findings, columns, strict=True)}
    return pd.DataFrame(values, index=table.index)


def read_findings(table: pd.DataFrame, findings: Sequence[str], file: Path) -> pd.DataFrame:
    """The labels of these findings, in their order, from columns in whatever order and spelling.

    Raises UserError as `read_labels`, and naming the findings that the table lacks.
    """
    columns = {name: canonical(name) for name in table.columns if canonical(name) in findings}
    if missing := [finding for finding in findings if finding not in columns.values()]:
        raise UserError(f"{file} lacks the column {', '.join(missing)}: is it the published file?")
    return read_labels(table, columns, file)[[LABEL + finding for finding in findings]]


def _label_values(column: pd.Series, file: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    blank = column.isna() | (column.astype(str).str.strip() == "")
    wrong = np.flatnonzero(~blank & ~numbers.isin((1, 0, -1)))
    if wrong.size:
        raise UserError(
            f"{file}: column {column.name}, row {wrong[0] + 1} holds {str(column.iloc[wrong[0]])!r}, "
            "but a label is 1, 0, -1 or blank: correct the table or leave the column out"
        )
    return numbers.astype(np.float32)


def index_by(table: pd.DataFrame, column: str, file: Path) -> pd.DataFrame:
    """The table under an identifier that no two rows may share (UserError)."""
    twice = table.loc[table[column].duplicated(), column]
    if len(twice):
        raise UserError(f"{file}: {column} {twice.iloc[0]} is listed more than once: keep one row of it")
    return table.set_index(column)


def keep(rows: pd.DataFrame, kept: pd.Series, reason: str) -> pd.DataFrame:
    """The rows that are kept, numbered anew; how many images are not, and why, is told."""
    if not kept.all():
        left = int((~kept).sum())
        log.info("%d of %d images %s left out: %s", left, len(kept), are(left), reason)
    return rows[kept].reset_index(drop=True)


def blank_to_null(text: pd.Series) -> pd.Series:
    """Text without outer spaces; null where nothing is left."""
    stripped = text.str.strip()
    return stripped.where(stripped != "")


def make_table(columns: Mapping[str, Any], labels: pd.DataFrame) -> Table:
    """A table of all index columns in their order and kinds; what a source does not know stays null."""
    text = {name: pd.Series(columns.get(name), index=labels.index, dtype="object") for name in ("path", *TEXT_COLUMNS)}
    numbers = {name: pd.Series(columns.get(name), index=labels.index, dtype="float64") for name in NUMBER_COLUMNS}
    return pd.concat([pd.DataFrame(text | numbers), labels], axis=1).reset_index(drop=True)


def check_table(table: Table, file: Path) -> Table:
    """The table itself, once it keeps every promise; `file` is where its rows came from.

    Raises UserError for no rows, a missing column, an image named twice, an image without patient, a
    split other than train, validate and test, a patient in two splits, and a label other than 1, 0, -1, blank.
    """
    missing = {"path", *TEXT_COLUMNS, *NUMBER_COLUMNS} - set(table.columns)
    if missing:
        raise UserError(f"{file}: the table lacks {', '.join(sorted(missing))}")
    if table.empty:
        raise UserError(f"{file}: no image is left to pack: check the options that choose images")
    _check_keys(table, file)
    _check_splits(table, file)
    check_no_leak(table)
    for column in table.columns[table.columns.str.startswith(LABEL)]:
        _label_values(table[column], file)
    return table


def _check_keys(table: Table, file: Path) -> None:
    for column in ("image_key", "patient_id"):
        blank = table[column].isna() | (table[column] == "")
        if blank.any():
            raise UserError(
                f"{file}: image {table['image_key'][blank].iloc[0]!r} has no {column}: every image needs one"
            )
    twice = table.loc[table["image_key"].duplicated(), "image_key"]
    if len(twice):
        raise UserError(f"{file}: image {twice.iloc[0]!r} is listed more than once: keep one row per image")


def _check_splits(table: Table, file: Path) -> None:
    wrong = table[~table["split"].isin(SPLITS)]
    if len(wrong):
        raise UserError(
            f"{file}: image {wrong['image_key'].iloc[0]!r} has the split {wrong['split'].iloc[0]!r}, "
            f"but a split is one of {', '.join(SPLITS)}: rename it or map it"
        )
