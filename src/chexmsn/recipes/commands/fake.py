"""Write a small look-alike of a collection, in its original layout, to try things on.

Example:
    chexmsn fake phantom /tmp/phantom --patients 200

The synthetic twin, phantom, is the one with all 14 findings visible in it; the look-alikes of other sources have
their files and columns, and pictures without meaning.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.core.files import is_empty, read_json, write_json
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load
from chexmsn.core.record import differences
from chexmsn.core.words import counted
from chexmsn.data.decode import SMALLEST_SIDE
from chexmsn.data.prepare import SOURCES
from chexmsn.data.source import LOOK_ALIKE
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to write.

    Attributes:
        source: kind of collection (a file in chexmsn/data/sources).
        folder: a new folder.
        patients: how many.
        seed: another seed, other patients.
        size: side of the images in pixels; when empty 256, or the largest size that the source comes in.
    """

    source: str
    folder: Path
    patients: int = 40
    seed: int = 0
    size: int | None = None

    def __post_init__(self) -> None:
        check_limits(self, patients="[1, inf)", size=f"[{SMALLEST_SIDE}, inf)")


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of writing a look-alike."""
    return dataclass_parser("fake", Config, positional=["source", "folder"])


def run(arguments: Any) -> None:
    """Write it; the same command again finds it done."""
    c = as_dataclass(Config, arguments)
    size = _size(c)
    asked = {name: value for name, value in asdict(c).items() if name != "folder"} | {"size": size}
    if (c.folder / LOOK_ALIKE).is_file():
        if changes := differences(read_json(c.folder / LOOK_ALIKE), asked):
            raise UserError(f"{c.folder} holds another look-alike ({'; '.join(changes)}): name a new folder")
        return log.info("%s is there already: nothing to do", c.folder)
    if c.folder.exists() and not is_empty(c.folder):
        raise UserError(f"{c.folder} is there already and was not written by this command: name a new folder")
    partial = c.folder.with_name(f"{c.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    seed = c.seed % 2**32  # NumPy takes no negative seed
    load(SOURCES, c.source).fake(partial, patients=c.patients, seed=seed, size=size)
    write_json(partial / LOOK_ALIKE, asked)
    partial.rename(c.folder)
    return log.info("%s holds a look-alike of %s with %s", c.folder, c.source, counted(c.patients, "patient"))


def _size(c: Config) -> int:
    """The side asked for. Raises UserError where the source never comes so."""
    sizes = load(SOURCES, c.source).SOURCE.sizes
    if c.size is not None and sizes and c.size not in sizes:
        raise UserError(f"{c.source} comes in {', '.join(map(str, sizes))} pixels, not {c.size}: choose one of these")
    return c.size or max(sizes, default=256)
