"""A pack in the making: what is done, recorded so that nothing finished is ever done twice.

The folder `<out>.partial/` holds the request it answers, the growing `pack/`, and a journal with one line
per finished chunk. The pixels of a chunk are on the disk before its line is; what a kill leaves beyond the
last whole line is cut off when the work goes on, and lines whose pixels a disk has lost are done anew. A shard is such
a folder inside of it.
"""

import errno
import fcntl
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json, write_json
from chexmsn.core.record import differences
from chexmsn.core.words import counted
from chexmsn.data.pack import IMAGES

SPARE_BYTES = 32 << 20  # room for journal and index beside the pixels

Note = dict[str, Any]
"""What is known of one packed image, or the `reason` why it is left out."""

Stack = UInt8[np.ndarray, "n S S"] | UInt16[np.ndarray, "n S S"]
"""The squares of the images that could be read."""

log = logging.getLogger(__name__)


class Partial:
    """The unfinished pack beside its future place `out`; squares of `size` pixels are appended to it.

    A `shard` is a part of it that is made on its own, such as "3-of-16".
    """

    def __init__(self, out: Path, size: int, dtype: str, shard: str | None = None) -> None:
        self.out = out
        self.size = size
        self.dtype = np.dtype(dtype).newbyteorder("<")
        whole = out.with_name(f"{out.name}.partial")
        self.folder = whole if shard is None else whole / f"shard-{shard}"
        self.pack = self.folder / "pack"
        self._request = self.folder / "request.json"
        self._journal = self.folder / "journal"
        self.notes: list[Note] = []

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for this process; another one that wants it waits. UserError where none can be made."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror}; choose another place") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another process is making %s: waiting for it", self.out)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def begin(self, request: Mapping[str, Any]) -> None:
        """Start, or continue where a run with the same request stopped (UserError for another request)."""
        changes = differences(read_json(self._request), request) if self._request.exists() else []
        if changes and self._journal.stat().st_size:
            self._refuse(changes)
        if changes or not self._request.exists():
            self._start(request)
        self._recover()

    def _refuse(self, changes: list[str]) -> None:
        if changes:
            raise UserError(
                f"{self.folder} was begun with another configuration ({'; '.join(changes)}): "
                "give that one to continue, or delete the folder to start anew"
            )

    def _start(self, request: Mapping[str, Any]) -> None:
        self.pack.mkdir(exist_ok=True)
        (self.pack / IMAGES).write_bytes(self._header(0))
        self._journal.write_bytes(b"")
        write_json(self._request, request)

    def _recover(self) -> None:
        os.truncate(self._journal, self._read_journal())
        self.pack.mkdir(exist_ok=True)
        (self.pack / IMAGES).touch()
        os.truncate(self.pack / IMAGES, len(self._header(0)) + self.kept * self._bytes_per_image)

    def _read_journal(self) -> int:
        """Know what is done; how many bytes say so. What follows a damaged line is done anew, as after a torn one."""
        lines = self._journal.read_bytes().splitlines(keepends=True)
        sound = list(takewhile(lambda notes: notes is not None, map(_notes_of, lines)))
        whole = self._with_pixels(sound)
        if len(whole) < len(lines) and lines[len(whole)].endswith(b"\n"):
            what = "has lost its pixels" if len(whole) < len(sound) else "is damaged"
            log.warning("%s: line %d %s, the images from there on are made anew", self._journal, len(whole) + 1, what)
        self.notes = [note for notes in whole for note in notes]
        return sum(map(len, lines[: len(whole)]))

    def _with_pixels(self, lines: list[list[Note]]) -> list[list[Note]]:
        """Those whose pixels are there; asked for after the lines are read, as those of another process come first."""
        images = self.pack / IMAGES
        there = images.stat().st_size - len(self._header(0)) if images.exists() else 0
        ends = accumulate(count_kept(notes) * self._bytes_per_image for notes in lines)
        return [notes for notes, end in zip(lines, ends, strict=True) if end <= there]

    def look(self, request: Mapping[str, Any]) -> None:
        """Know what is done without touching it, as another process may be at work (UserError for another request)."""
        if self._request.exists():
            self._refuse(differences(read_json(self._request), request))
            self._read_journal()

    def images(self, start: int, end: int) -> Stack:
        """The images kept at these places."""
        first, count = start * self.size**2, (end - start) * self.size**2
        offset = len(self._header(0)) + first * self.dtype.itemsize
        pixels = np.fromfile(self.pack / IMAGES, self.dtype, count, offset=offset)
        return pixels.reshape(end - start, self.size, self.size)

    @property
    def _bytes_per_image(self) -> int:
        return self.size**2 * self.dtype.itemsize

    def _header(self, images: int) -> bytes:
        """The head of a .npy file; NumPy pads it so that its length does not depend on the number of images."""
        head = io.BytesIO()
        about = {"descr": self.dtype.str, "fortran_order": False, "shape": (images, self.size, self.size)}
        np.lib.format.write_array_header_1_0(head, about)
        return head.getvalue()

    @property
    def kept(self) -> int:
        """How many images are in the pack so far."""
        return count_kept(self.notes)

    def append(self, pixels: Stack, notes: list[Note]) -> None:
        """Add a finished chunk: `pixels` of the images that could be read, a note for each image."""
        with (self.pack / IMAGES).open("ab", buffering=0) as file:
            _write(file, pixels.tobytes())
        with self._journal.open("ab", buffering=0) as file:
            _write(file, json.dumps(notes).encode() + b"\n")
        self.notes += notes

    def close(self) -> None:
        """Say in the header of the array how many images it came to hold."""
        with (self.pack / IMAGES).open("r+b") as file:
            file.write(self._header(self.kept))

    def publish(self) -> None:
        """Move the finished pack to its place in one step."""
        self.pack.rename(self.out)

    def remove(self) -> None:
        """Delete the work folder, unless another process has."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_room(self, images: int) -> None:
        """Say what room so many images more need. Raises UserError where the disk has less."""
        needed, free = images * self._bytes_per_image + SPARE_BYTES, shutil.disk_usage(self.folder).free
        what = counted(images, "image")
        log.info("%s for %s: %.1f GB, of %.1f GB that are free", what, self.out, needed / 1e9, free / 1e9)
        if needed > free:
            raise UserError(
                f"{self.out} needs {needed / 1e9:.1f} GB more, but its disk has {free / 1e9:.1f} GB free: "
                "free some, or choose another disk or a smaller size"
            )

    @contextmanager
    def interruptions_told(self, total: int) -> Iterator[None]:
        """Turn a full disk into a UserError, and say on Ctrl-C what is kept."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(f"the disk of {self.out} is full: {self._kept_told(total)} once there is room") from None
        except KeyboardInterrupt:
            log.warning("stopped: %s", self._kept_told(total))
            raise

    def _kept_told(self, total: int) -> str:
        return f"{len(self.notes)} of {total} images are done and kept in {self.folder}; the same command continues"


def count_kept(notes: list[Note]) -> int:
    """How many of these images could be read."""
    return sum("reason" not in note for note in notes)


def _notes_of(line: bytes) -> list[Note] | None:
    """The notes of a line of the journal; None where it is torn or damaged."""
    try:
        notes = json.loads(line)
    except ValueError:
        return None
    sound = line.endswith(b"\n") and isinstance(notes, list) and all(isinstance(note, dict) for note in notes)
    return notes if sound else None


def _write(file: io.FileIO, content: bytes) -> None:
    """Every byte, down to the disk."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())
