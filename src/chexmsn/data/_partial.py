"""A pack in the making: what is done, recorded so that nothing finished is ever done twice.

The folder `<out>.partial/` holds the request it answers, the growing `pack/`, and a journal with one line
per finished chunk. The pixels of a chunk are on the disk before its line is; what a kill leaves beyond the
last whole line is cut off when the work goes on.
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
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json, write_json
from chexmsn.core.record import differences
from chexmsn.data.pack import IMAGES

SPARE_BYTES = 32 << 20  # room for journal and index beside the pixels

Note = dict[str, Any]
"""What is known of one packed image, or the `reason` why it is left out."""

log = logging.getLogger(__name__)


class Partial:
    """The unfinished pack beside its future place `out`; squares of `size` pixels are appended to it."""

    def __init__(self, out: Path, size: int) -> None:
        self.out = out
        self.size = size
        self.folder = out.with_name(f"{out.name}.partial")
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
            raise UserError(
                f"{self.folder} was begun with another configuration ({'; '.join(changes)}): "
                "give that one to continue, or delete the folder to start anew"
            )
        if changes or not self._request.exists():
            self._start(request)
        self._recover()

    def _start(self, request: Mapping[str, Any]) -> None:
        self.pack.mkdir(exist_ok=True)
        (self.pack / IMAGES).write_bytes(_header(0, self.size))
        self._journal.write_bytes(b"")
        write_json(self._request, request)

    def _recover(self) -> None:
        lines = self._journal.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self.notes = [note for line in whole for note in json.loads(line)]
        os.truncate(self._journal, sum(map(len, whole)))
        os.truncate(self.pack / IMAGES, len(_header(0, self.size)) + self.kept * self.size**2)

    @property
    def kept(self) -> int:
        """How many images are in the pack so far."""
        return sum("reason" not in note for note in self.notes)

    def append(self, pixels: UInt8[np.ndarray, "n S S"], notes: list[Note]) -> None:
        """Add a finished chunk: `pixels` of the images that could be read, a note for each image."""
        with (self.pack / IMAGES).open("ab", buffering=0) as file:
            _write(file, pixels.tobytes())
        with self._journal.open("ab", buffering=0) as file:
            _write(file, json.dumps(notes).encode() + b"\n")
        self.notes += notes

    def close(self) -> None:
        """Say in the header of the array how many images it came to hold."""
        with (self.pack / IMAGES).open("r+b") as file:
            file.write(_header(self.kept, self.size))

    def publish(self) -> None:
        """Move the finished pack to its place in one step."""
        self.pack.rename(self.out)

    def remove(self) -> None:
        """Delete the work folder, unless another process has."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_room(self, images: int) -> None:
        """Raise UserError unless the disk has room for so many images more."""
        needed, free = images * self.size**2 + SPARE_BYTES, shutil.disk_usage(self.folder).free
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


def _header(images: int, size: int) -> bytes:
    """The head of a .npy file; NumPy pads it so that its length does not depend on the number of images."""
    head = io.BytesIO()
    shape = (images, size, size)
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return head.getvalue()


def _write(file: io.FileIO, content: bytes) -> None:
    """Every byte, down to the disk."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())
