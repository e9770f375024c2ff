"""What lies in a folder, and what can be told of a file from its first and last bytes; by many threads at once."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from chexmsn.data.dicom import is_cut_off, is_dicom

Task = TypeVar("Task")
Result = TypeVar("Result")

BATCH = 256  # files or folders that a thread takes at a time: handing over each alone costs more than looking at it

LEADS_OUT = "a link that leads out of the folder"
NO_FILE = "a pipe, device or socket and no file"

HEAD, TAIL = 512, 64
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


class Tree(NamedTuple):
    """A folder's content by place in it: `sizes` of the files in bytes, and what is `strange`, with the reason."""

    sizes: dict[str, int]
    folders: set[str]
    strange: dict[str, str]


class _Here(NamedTuple):
    """What one folder holds."""

    files: list[tuple[str, int]]
    folders: list[str]
    strange: list[tuple[str, str]]


def in_threads(look: Callable[[Task], Result], tasks: Sequence[Task], threads: int) -> Iterator[Result]:
    """`look(task)` for every task, in their order; most of the time goes into waiting for the disk."""

    def look_from(start: int) -> list[Result]:
        return [look(task) for task in tasks[start : start + BATCH]]

    with ThreadPoolExecutor(threads) as pool:
        for results in pool.map(look_from, range(0, len(tasks), BATCH)):
            yield from results


def walk(folder: Path, threads: int, follow_links: bool = False) -> Tree:
    """Everything below the folder, level by level. Links are followed as long as they stay inside it, or all."""
    root = os.path.realpath(folder)
    within = "" if follow_links else root
    sizes, strange, linked = {}, {}, set()
    folders, level = {""}, [""]
    while level:
        inner: list[str] = []
        for here in in_threads(lambda place: _look(root, place, within), level, threads):
            sizes.update(here.files)
            strange.update(here.strange)
            inner += [place for place in here.folders if not _seen(root, place, linked)]
        folders.update(inner)
        level = inner
    return Tree(sizes, folders, strange)


def _look(root: str, place: str, within: str) -> _Here:
    here = _Here([], [], [])
    try:
        entries = list(os.scandir(f"{root}/{place}"))
    except OSError as error:
        here.strange.append((place, f"cannot be opened ({error.strerror})"))
        return here
    for entry in entries:
        _sort_in(here, within, f"{place}/{entry.name}".removeprefix("/"), entry)
    return here


def _sort_in(here: _Here, within: str, place: str, entry: os.DirEntry) -> None:
    if entry.is_symlink() and (reason := _bad_link(within, entry)):
        here.strange.append((place, reason))
    elif entry.is_dir():
        here.folders.append(place)
    elif entry.is_file():
        here.files.append((place, entry.stat().st_size))
    else:
        here.strange.append((place, NO_FILE))


def _bad_link(within: str, entry: os.DirEntry) -> str | None:
    target = os.path.realpath(entry.path)
    if not Path(target).exists():
        return "a link to nothing"
    return None if target == within or target.startswith(within + os.sep) else LEADS_OUT


def _seen(root: str, place: str, linked: set[str]) -> bool:
    """Whether a link leads to a folder where another link led before: the way out of a circle of links."""
    path = Path(root, place)
    if not path.is_symlink():
        return False
    target = os.path.realpath(path)
    known = target in linked
    linked.add(target)
    return known


def fault(path: str) -> str | None:
    """What the first and last bytes tell against a JPEG, PNG or DICOM file; None where nothing does.

    The end is looked for in the last 64 bytes, for some writers add a few of their own. A DICOM file has no end: its
    tags say how long it should be, which takes 0.3 ms of a processor.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            head, size = file.read(HEAD), os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL))
            found = fault_of(head, file.read(TAIL))
        if found or not is_dicom(head):
            return found
        with Path(path).open("rb") as file:
            return "truncated" if is_cut_off(file, size) else None
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def fault_of(head: bytes, tail: bytes) -> str | None:
    """The same of the bytes themselves.

    >>> fault_of(b"<!DOCTYPE html><title>Log in", b"</html>")
    'a web page'
    """
    if not head:
        return "empty"
    if is_page(head):
        return "a web page"
    if head.startswith(_JPEG):
        return None if _JPEG_END in tail else "truncated"
    if head.startswith(_PNG):
        return None if _PNG_END in tail else "truncated"
    return None if is_dicom(head) else "neither JPEG, PNG nor DICOM"


def is_page(head: bytes) -> bool:
    """Whether these first bytes are those of a web page, such as the one that asks for a password."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:HEAD].lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head"))
