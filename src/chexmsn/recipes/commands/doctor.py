"""Compare a downloaded collection with what it should hold, and list what is still to be fetched.

Example:
    chexmsn doctor mimic-cxr-jpg /data/mimic-cxr-jpg --splits train --share 0.1 --list missing.txt

Looks at tables, images and leftovers of downloads, changes nothing, and says what to do. The options of the source,
the splits and the share choose the images; `chexmsn prepare` packs those that are there and lists the others.
Exit code 0: everything chosen is there and whole (harmless leftovers may be told); 1: something is missing or damaged;
2: the question cannot be answered.
"""

import json
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chexmsn.core.errors import CheckFailed, UserError
from chexmsn.core.files import write_atomic
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load
from chexmsn.core.words import are, counted
from chexmsn.data.doctor import Diagnosis, Finding, examine
from chexmsn.data.prepare import SOURCES
from chexmsn.data.source import Source
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, source_parser

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to look at, and how closely.

    Attributes:
        source: kind of collection (a file in chexmsn/data/sources).
        folder: where the collection lies.
        options: the source's own options.
        splits: splits whose images are wanted; all of them when empty.
        share: share of the training patients that is wanted; smaller shares are contained in larger ones.
        seed: another seed, other patients in the share.
        thorough: read every image whole (by the published checksums where they lie in the folder, else by decoding it)
            instead of its first and last bytes.
        list: a file to be written with the places of what is to be fetched, one a line.
        json: print the whole diagnosis as JSON, for machines.
        follow_links: look also at what links out of the folder lead to.
        workers: threads that look, or processes that decode; eight, and one per core, when empty.
    """

    source: str
    folder: Path
    options: Any
    splits: tuple[str, ...] = ()
    share: float = 1.0
    seed: int = 0
    thorough: bool = False
    list: Path | None = None
    json: bool = False
    follow_links: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        check_limits(self, share="(0, 1]", workers="[1, inf)")


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of an examination and of the chosen source."""
    return source_parser("doctor", Config, values, positional=["source", "folder"])


def run(arguments: Any) -> Diagnosis:
    """Examine, print, and write the list."""
    c = as_dataclass(Config, arguments)
    if c.list is not None:
        _check_place(c.list)
    how = {"splits": c.splits, "share": c.share, "seed": c.seed, "thorough": c.thorough}
    also = {"workers": c.workers, "follow_links": c.follow_links}
    diagnosis = examine(c.source, c.folder, options=c.options, **how, **also)
    if c.list is not None:
        lines = "".join(f"{_printable(place)}\n" for place in diagnosis.to_fetch)
        write_atomic(c.list, lambda path: path.write_text(lines, encoding="utf-8"))
    report = json.dumps(asdict(diagnosis) | {"whole": diagnosis.whole}) if c.json else "\n".join(_told(diagnosis, c))
    sys.stdout.write(_printable(report) + "\n")
    if not diagnosis.whole:
        raise CheckFailed
    return diagnosis


def _check_place(file: Path) -> None:
    """Raise UserError, before anything is looked at, for a list that cannot be written."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        what = "is a folder" if file.is_dir() else f"lies in {file.parent}, which does not exist"
        raise UserError(f"--list {file} {what}: name a file in a folder that is there")


def _printable(text: str) -> str:
    """Names of files may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


def _told(diagnosis: Diagnosis, c: Config) -> Iterator[str]:
    yield f"{_source(c).title} in {c.folder}"
    for split, number in diagnosis.images.items():
        yield f"  {split:<10} {number['listed']:>9,} images listed, {number['whole']:>9,} there and whole"
    for finding in diagnosis.findings:
        yield from _finding_told(finding)
    if diagnosis.to_fetch:
        yield from _fetching_told(len(diagnosis.to_fetch), c)
    if diagnosis.whole:
        yield "everything chosen is there and whole"


def _source(c: Config) -> Source:
    return load(SOURCES, c.source).SOURCE.lying_in(c.folder)


def _finding_told(finding: Finding) -> Iterator[str]:
    yield f"{'note' if finding.harmless else 'FAULT'}: {finding.what}"
    if finding.examples:
        yield f"    such as {', '.join(finding.examples)}"
    yield f"    -> {finding.remedy}"


def _fetching_told(files: int, c: Config) -> Iterator[str]:
    source = _source(c)
    if c.list is None:
        them = "it" if files == 1 else "them"
        yield f"{counted(files, 'file')} {are(files)} to be fetched: give --list FILE to have {them} listed"
        return
    yield f"{counted(files, 'file')} to be fetched {are(files)} listed in {c.list}; " + (
        "this fetches them:" if source.fetch else f"where to get them: {source.url or 'where your images come from'}"
    )
    if source.fetch:
        yield "    " + source.fetch.format(list=shlex.quote(str(c.list)), folder=shlex.quote(str(c.folder)))
