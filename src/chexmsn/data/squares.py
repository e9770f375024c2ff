"""What a worker does: the squares of some rows of a source's table, and a note on each."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.data._partial import Note, Stack
from chexmsn.data.decode import (
    Decoded,
    Square,
    UnreadableImage,
    check_fit,
    decode,
    enough_for,
    fit_square,
    to_depth,
)
from chexmsn.data.source import make_config

SOURCES = "chexmsn.data.sources"

Dtype = Literal["uint8", "uint16"]

Record = dict[str, Any]
"""One row of a source's table."""

Chunk = tuple[Stack, list[Note]]
"""The squares of the images that could be read, and a note for every image."""


@dataclass(frozen=True)
class Form:
    """What decides about the pixels of a pack, beside the files.

    Attributes:
        source: kind of collection (a file in chexmsn/data/sources).
        options: the source's own.
        size: side of the squares in pixels.
        fit: how an image becomes a square (`decode.fit_square`).
        dtype: uint8, or uint16 to keep the depth of images that have more than 8 bits.
    """

    source: str
    options: dict[str, Any]
    size: int = 256
    fit: str = "crop"
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        check_fit(self.fit)
        if not 16 <= self.size <= 4096:
            raise UserError(f"the size of a pack must lie between 16 and 4096 pixels, not {self.size}")
        if self.dtype not in get_args(Dtype):
            raise UserError(f"the dtype of a pack must be one of {', '.join(get_args(Dtype))}, not {self.dtype!r}")


@dataclass(frozen=True)
class Squares:
    """Makes squares of a source's images; calling it does one chunk, in a worker process.

    Attributes:
        form: what is made.
        folder: where the source lies.
        follow_links: read also what a link out of the folder leads to.
    """

    form: Form
    folder: Path
    follow_links: bool = False

    def __call__(self, records: list[Record]) -> Chunk:
        read, size, dtype = self._reader(), self.form.size, np.dtype(self.form.dtype)
        squares, notes = [], []
        for record in records:
            try:
                image = read(record)
            except UnreadableImage as error:
                notes.append({"reason": str(error)})
            else:
                squares.append(to_depth(fit_square(image.pixels, size, self.form.fit), dtype))
                notes.append(_note(squares[-1], image))
        return np.array(squares, dtype).reshape(-1, size, size), notes

    def _reader(self) -> Callable[[Record], Decoded]:
        """The source's own `load` where it has one, else the file behind `path`."""
        module, enough = lookup.load(SOURCES, self.form.source), enough_for(self.form.size, self.form.fit)
        config = make_config(module, self.form.options)
        root = None if self.follow_links else f"{os.path.realpath(self.folder)}{os.sep}"

        def read(record: Record) -> Decoded:
            if root:
                _refuse_outside(record["path"], root)
            if hasattr(module, "load"):
                return module.load(record, config, enough)
            return decode(Path(record["path"]), enough)

        return read


def _refuse_outside(path: str, root: str) -> None:
    """Names that lead out of the folder are refused where tables are read; what is left are links."""
    file = path if os.path.lexists(path) else _archive_of(path)
    if file and not f"{os.path.realpath(file)}{os.sep}".startswith(root):
        raise UnreadableImage("a link that leads out of the folder (follow_links reads it)")


def _archive_of(path: str) -> str | None:
    """What lies where this path begins, nothing lying at its end; a drawn image has a text and no path: None."""
    above = (str(place) for place in Path(path).parents)
    return next((place for place in above if place != "." and os.path.lexists(place)), None)


def _note(square: Square, image: Decoded) -> Note:
    values = square.astype(np.int64)
    note = {
        "content_hash": hashlib.blake2b(square.tobytes(), digest_size=16).hexdigest(),
        "sum": int(values.sum()),
        "sum_of_squares": int((values**2).sum()),
        "stored": image.stored,
        "pixel_mm": image.pixel_mm or (None, None),
    }
    return note | ({"alpha": True} if image.alpha else {})
