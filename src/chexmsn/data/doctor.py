"""What lies in a collection's folder, against what its source says should: nothing is changed, everything is told.

Tables first, for they say which images there should be. Then every file is found, and of those that an image
should be the first and last bytes are read (quick), or all of them (thorough): by the checksums that were
published, or by decoding.
"""

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate
from operator import add
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import pandas as pd

from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.core.progress import progress
from chexmsn.core.words import are, counted
from chexmsn.data._pool import cores, ordered_map
from chexmsn.data._tree import HEAD, LEADS_OUT, Tree, fault, in_threads, is_page, walk
from chexmsn.data.columns import leads_out
from chexmsn.data.decode import SMALLEST_SIDE
from chexmsn.data.pack import sha256
from chexmsn.data.prepare import CHUNK, SOURCES
from chexmsn.data.source import LOOK_ALIKE, Source, Table, TableFile, make_config, need_folder, read_text_table
from chexmsn.data.splits import chosen
from chexmsn.data.squares import Form, Squares

SHOWN = 3  # examples of a finding

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
UNFINISHED = (".part", ".crdownload", ".aria2", ".gstmp", "._gstmp", ".tmp")
SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be, or is in the way.

    Attributes:
        kind: a word for machines, such as `image-missing`.
        what: in plain words, how many included.
        remedy: what to do about it.
        count: how many files or rows.
        examples: the first few.
        harmless: told, but nothing that is needed is missing or damaged.
    """

    kind: str
    what: str
    remedy: str
    count: int = 1
    examples: tuple[str, ...] = ()
    harmless: bool = False


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All that was found.

    Attributes:
        source: the source's name.
        folder: what was looked at.
        images: by split, how many of the chosen images are `listed` and how many of those are `whole`.
        findings: what is not as it should be.
        to_fetch: places in the folder of tables and chosen images that are missing or damaged.
    """

    source: str
    folder: str
    images: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    to_fetch: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything that was chosen is there and undamaged."""
        return all(finding.harmless for finding in self.findings)


@dataclass(frozen=True)
class _Case:
    """One folder and how it is looked at."""

    source: str
    folder: Path
    module: ModuleType
    config: Any
    tree: Tree
    workers: int | None
    follow_links: bool
    splits: Sequence[str]
    share: float

    @property
    def threads(self) -> int:
        return self.workers or 8  # they wait for the disk

    @property
    def processes(self) -> int:
        return self.workers or cores()

    @cached_property
    def about(self) -> Source:
        """What should lie there: of a copy with tables of its own, what that holds."""
        return self.module.SOURCE.lying_in(self.folder)

    @property
    def is_part(self) -> bool:
        """Whether less than everything was asked for: what the tables lack of the whole is then no fault."""
        return bool(self.splits) or self.share < 1

    @property
    def is_look_alike(self) -> bool:
        return LOOK_ALIKE in self.tree.sizes


def examine(
    source: str,
    folder: Path,
    *,
    options: Any = None,
    splits: Sequence[str] = (),
    share: float = 1.0,
    seed: int = 0,
    thorough: bool = False,
    workers: int | None = None,
    follow_links: bool = False,
) -> Diagnosis:
    """Compare a folder with what its source says should lie there, for the images that the arguments choose.

    `options` are the source's own, as for `prepare`; `share` is of the training patients, and nested.
    Raises UserError where there is no folder and for arguments that cannot be.
    """
    module, folder = lookup.load(SOURCES, source), Path(folder).absolute()
    config = make_config(module, options or {})
    need_folder(folder)
    tree = walk(folder, workers or 8, follow_links)
    case = _Case(source, folder, module, config, tree, workers, follow_links, splits, share)
    found = counted(len(tree.sizes), "file"), counted(len(tree.folders), "folder")
    log.info("%s holds %s in %s", folder, *found)
    findings = {table.name: list(_table_findings(table, case)) for table in case.about.tables}
    to_fetch = [name for name, found in findings.items() if not all(finding.harmless for finding in found)]
    told = [finding for found in findings.values() for finding in found]
    try:
        table = module.read(folder, config)
        told += _published_counts(case)
    except UserError as error:
        return _diagnosis(case, {}, [*(told or [_refused(error)]), *_leftovers(case.tree, missing=True)], to_fetch)
    table = chosen(table, splits, share, seed)
    table["place"] = table["path"].astype(str).str.removeprefix(f"{folder}/")
    faults = _faults(case, table, thorough)
    told += [*_image_findings(faults, case.tree), *_leftovers(case.tree, missing="missing" in faults.values())]
    return _diagnosis(case, _counts(table, faults), told, [*to_fetch, *(faults if module.SOURCE.files else ())])


def _refused(error: UserError) -> Finding:
    return Finding(kind="table-refused", what=str(error), remedy="mend or fetch the tables; images come after that")


def _diagnosis(
    case: _Case, images: Mapping[str, Any], findings: Iterable[Finding], to_fetch: Iterable[str]
) -> Diagnosis:
    named = tuple(place for place in to_fetch if _may_be_fetched(place, case))
    return Diagnosis(
        source=case.source, folder=str(case.folder), images=images, findings=tuple(findings), to_fetch=named
    )


def _counts(table: Table, faults: Mapping[str, str]) -> dict[str, dict[str, int]]:
    whole = ~table["place"].isin(faults)
    counts = pd.DataFrame({"split": table["split"], "listed": True, "whole": whole}).groupby("split").sum()
    return {split: {name: int(number) for name, number in row.items()} for split, row in counts.iterrows()}


# --- tables


def _table_findings(table: TableFile, case: _Case) -> Iterator[Finding]:
    file = table.lying_in(case.folder)
    if file is None:
        if table.needed:
            yield _missing_table(table, case)
        return
    if _is_page(file):
        yield Finding(
            kind="table-damaged",
            what=f"{file.name} is a web page and no table",
            remedy="the site asked for a password: log in and fetch it anew",
        )
        return
    try:
        rows = read_text_table(file)
    except UserError as error:
        yield Finding(kind="table-damaged", what=str(error), remedy="fetch it anew")
        return
    if lacking := [column for column in table.columns if column not in rows]:
        yield Finding(
            kind="table-columns",
            what=f"{table.name} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}",
            remedy="it is of another version, or was written anew by somebody: fetch the published one",
            count=len(lacking),
            examples=tuple(rows.columns[:SHOWN]),
        )
    if table.rows not in (None, len(rows)) and not case.is_look_alike:
        yield Finding(
            kind="table-rows",
            what=f"{table.name} has {len(rows):,} rows, and {table.rows:,} were published",
            remedy="it is a part, or of another version: fetch it anew, unless a part is what you want",
            harmless=case.is_part,
        )


def _missing_table(table: TableFile, case: _Case) -> Finding:
    name = PurePosixPath(table.name.removesuffix(".gz")).name
    places = [place for place in case.tree.sizes if PurePosixPath(place.removesuffix(".gz")).name == name]
    elsewhere = [str(PurePosixPath(place).parent) for place in sorted(places)]
    if table.lying_in(case.folder.parent):
        elsewhere.append(str(case.folder.parent))
    remedy = "fetch it first: the tables say which images there should be"
    if elsewhere:
        remedy = f"one lies in {elsewhere[0]}: give that folder, or move the table"
    return Finding(kind="table-missing", what=f"the table {table.name} is missing", remedy=remedy)


def _is_page(file: Path) -> bool:
    with file.open("rb") as content:
        return is_page(content.read(HEAD))


def _published_counts(case: _Case) -> Iterator[Finding]:
    """Where the tables list another number of images than was published."""
    about = case.about
    if case.is_look_alike or not about.counts:
        return
    whole = case.module.read(case.folder, make_config(case.module, about.counted_with))
    for split, expected in about.counts.items():
        if case.splits and not {*split.split("+")} & {*case.splits}:
            continue
        if (listed := int(whole["split"].isin(split.split("+")).sum())) != expected:
            yield Finding(
                kind="split-count",
                what=f"the tables list {listed:,} images of the split {split}, and {expected:,} were published",
                remedy="they are a part, or of another version: fetch them anew, unless a part is what you want",
                count=abs(listed - expected),
                harmless=case.is_part,
            )


# --- images


def _faults(case: _Case, table: Table, thorough: bool) -> dict[str, str]:
    """What is wrong with which of the images, by their place in the folder; sound ones are not named."""
    if not case.module.SOURCE.files:
        faults = {place: reason for place in table["place"] if (reason := _strange(place, case.tree))}
        return faults | _undecodable(case, _without(table, faults)) if thorough else faults
    faults = {place: reason for place in table["place"] if (reason := _absence(place, case.tree))}
    faults |= _of_bytes(case, _without(table, faults)["place"].tolist())
    return faults | _of_content(case, _without(table, faults)) if thorough else faults


def _without(table: Table, faults: Mapping[str, str]) -> Table:
    return table[~table["place"].isin(faults)]


def _absence(place: str, tree: Tree) -> str | None:
    if place in tree.sizes:
        return None if tree.sizes[place] else "empty"
    if leads_out(place):
        return "outside the folder"
    return _strange(place, tree) or ("a folder" if place in tree.folders else "missing")


def _strange(place: str, tree: Tree) -> str | None:
    """What this place is, or is in, where that is neither a file nor a folder."""
    return next((tree.strange[part] for part in (place, *_above(place)) if part in tree.strange), None)


def _may_be_fetched(place: str, case: _Case) -> bool:
    """Whether a download may write there: through a link it would overwrite what the link leads to."""
    root = os.path.realpath(case.folder)
    inside = not leads_out(place) and os.path.realpath(f"{root}/{place}").startswith(root + os.sep)
    return inside and place.isprintable() and place not in case.tree.folders and _strange(place, case.tree) is None


def _above(place: str) -> list[str]:
    """The folders that a place lies in, outermost first."""
    return ["/".join(parts) for parts in accumulate(([name] for name in place.split("/")[:-1]), add)]


def _of_bytes(case: _Case, places: list[str]) -> dict[str, str]:
    """Quick: what the first and last bytes tell."""
    reasons = in_threads(fault, [f"{case.folder}/{place}" for place in places], case.threads)
    told = progress(reasons, total=len(places), title="first and last bytes", unit="image")
    with warnings.catch_warnings():  # once for all threads, which share it
        warnings.simplefilter("ignore")  # pydicom's remarks on odd values
        return {place: reason for place, reason in zip(places, told, strict=True) if reason}


def _of_content(case: _Case, table: Table) -> dict[str, str]:
    """Thorough: every byte, by checksum where one was published and lies there."""
    published = case.about.checksums
    if published in case.tree.sizes:
        return _changed(case, table["place"].tolist(), _read_checksums(case.folder / published))
    if published is not None:
        log.info("%s is not there: images are decoded instead of compared with it", published)
    return _undecodable(case, table)


def _read_checksums(file: Path) -> dict[str, str]:
    """The lines of sha256sum, `<digest>  <place>`, by place."""
    lines = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return {line[1].lstrip("*").strip(): line[0] for line in lines if len(line) == 2}


def _changed(case: _Case, places: list[str], published: Mapping[str, str]) -> dict[str, str]:
    digests = in_threads(sha256, [case.folder / place for place in places], case.threads)
    told = progress(digests, total=len(places), title="checksums", unit="image")
    compared = zip(places, told, strict=True)
    return {place: "changed" for place, digest in compared if published.get(place, digest) != digest}


def _undecodable(case: _Case, table: Table) -> dict[str, str]:
    look = Squares(Form(case.source, asdict(case.config), SMALLEST_SIDE), case.folder, case.follow_links)
    records = (table.iloc[start : start + CHUNK].to_dict("records") for start in range(0, len(table), CHUNK))
    notes = (note for _, notes in ordered_map(look, records, case.processes, [look.__module__]) for note in notes)
    told = progress(notes, total=len(table), title="decoding", unit="image")
    return {place: note["reason"] for place, note in zip(table["place"], told, strict=True) if "reason" in note}


_OF_REASON = {
    "empty": ("image-empty", "their download was cut off before it began: fetch them anew"),
    "truncated": ("image-truncated", "their download was cut off: fetch them anew"),
    "a web page": (
        "image-page",
        "the site asked for a password, and its answer was saved as an image: log in and fetch them anew",
    ),
    "changed": (
        "image-changed",
        "their checksums are not the published ones: delete them and fetch them anew (wget -N keeps what has its size)",
    ),
    "outside the folder": ("image-outside", "the table names places outside the folder: nothing is read from there"),
    LEADS_OUT: (
        "image-outside",
        "give --follow_links, to prepare too, where they are yours, else delete them: nothing is fetched through them",
    ),
}
_OF_OTHERS = ("image-unusable", "fetch them anew, or go on: `chexmsn prepare` lists them and leaves them out")


def _image_findings(faults: Mapping[str, str], tree: Tree) -> Iterator[Finding]:
    """One finding for each kind of fault; what is missing is told by folder."""
    by_reason: dict[str, list[str]] = {}
    for place, reason in faults.items():
        by_reason.setdefault(reason, []).append(place)
    yield from _missing_images(by_reason.pop("missing", []), tree)
    for reason, places in sorted(by_reason.items()):
        kind, remedy = _OF_REASON.get(reason, _OF_OTHERS)
        yield Finding(
            kind=kind,
            what=f"{_images(len(places))} cannot be used: {reason}",
            remedy=remedy,
            count=len(places),
            examples=tuple(places[:SHOWN]),
        )


def _missing_images(places: Sequence[str], tree: Tree) -> Iterator[Finding]:
    parts = [_missing_folder(place, tree.folders) for place in places]
    single = [place for place, part in zip(places, parts, strict=True) if part is None]
    if folders := Counter(filter(None, parts)):
        largest = [f"{folder} ({images:,})" for folder, images in folders.most_common(SHOWN)]
        many = f"{counted(len(folders), 'folder')} {are(len(folders))} missing"
        yield Finding(
            kind="folder-missing",
            what=f"{many}, and {_images(folders.total())} with {'it' if len(folders) == 1 else 'them'}",
            remedy=_remedy_of_missing(places, tree),
            count=folders.total(),
            examples=tuple(largest),
        )
    if single:
        yield Finding(
            kind="image-missing",
            what=f"{_images(len(single))} {are(len(single))} missing from folders that are there",
            remedy=_remedy_of_missing(single, tree),
            count=len(single),
            examples=tuple(single[:SHOWN]),
        )


def _missing_folder(place: str, folders: set[str]) -> str | None:
    """The outermost folder of this place that is not there."""
    return next((folder for folder in _above(place) if folder not in folders), None)


def _remedy_of_missing(places: Sequence[str], tree: Tree) -> str:
    lying = {PurePosixPath(place).name: place for place in tree.sizes}
    elsewhere = [lying[name] for place in places if (name := PurePosixPath(place).name) in lying]
    if elsewhere:
        return f"{len(elsewhere):,} of them lie elsewhere, such as {elsewhere[0]}: move them, or give another folder"
    return "fetch them"


# --- what is in the way


def _leftovers(tree: Tree, missing: bool) -> Iterator[Finding]:
    """Files that no collection has: harmless, but they tell what went wrong."""
    names = [(place, PurePosixPath(place).name) for place in tree.sizes]
    kinds = {
        "index-pages": [place for place, name in names if name.startswith("index.html")],
        "system-files": [place for place, name in names if name.startswith("._") or name in SYSTEM],
        "unfinished-downloads": [place for place, name in names if name.endswith(UNFINISHED)],
        "archives": [place for place, name in names if name.endswith(ARCHIVES)] if missing else [],
    }
    for kind, places in kinds.items():
        if places:
            what = counted(len(places), _LEFTOVERS[kind][0])
            examples = tuple(places[:SHOWN])
            yield Finding(
                kind=kind, what=what, remedy=_LEFTOVERS[kind][1], count=len(places), examples=examples, harmless=True
            )


_LEFTOVERS = {
    "index-pages": (
        "page index.html left over by `wget -r`",
        "delete them (find FOLDER -name 'index.html*' -delete). `wget -r` reads the page of every folder before the "
        "first image, and gets nothing else without a password: fetch by a list instead",
    ),
    "system-files": (
        "file of macOS or Windows (._*, .DS_Store, Thumbs.db)",
        "delete them (find FOLDER -name '._*' -delete): they are no images, whatever their names say",
    ),
    "unfinished-downloads": ("download that is not finished", "let the program that began them go on, or delete them"),
    "archives": ("archive that may not be unpacked", "unpack them in this folder (unzip, tar xf)"),
}


def _images(number: int) -> str:
    return counted(number, "image")
