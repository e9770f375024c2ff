"""Turn a source into a pack: images decoded once, resized, with their table.

Example:
    chexmsn prepare mimic-cxr-jpg /data/mimic-cxr-jpg packs/mimic --workers 16

The options of a source are --options.<name>; `chexmsn prepare csv FOLDER OUT --help`
shows those of csv. The same command continues after a stop; images that cannot be read are listed in left_out.csv.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load, names
from chexmsn.data.pack import Pack
from chexmsn.data.prepare import SOURCES, prepare
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to pack.

    Attributes:
        source: kind of collection (a file in chexmsn/data/sources).
        folder: where the collection lies.
        out: folder of the pack.
        options: the source's own options.
        size: side of the packed images in pixels.
        fit: crop (short side to size, centre square), stretch or pad.
        workers: decoding processes; one per core when empty.
    """

    source: str
    folder: Path
    out: Path
    options: Any
    size: int = 256
    fit: str = "crop"
    workers: int | None = None

    def __post_init__(self) -> None:
        check_limits(self, size="[16, 4096]", workers="[0, inf)")


@dataclass(frozen=True)
class NoOptions:
    """Which options a source has is not known before it is named."""


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of packing and of the chosen source."""
    source = values.get("source") or _named(values.get("", []))
    if source is None and "help" not in values:
        raise UserError(f"chexmsn prepare needs a source: one of {', '.join(names(SOURCES))}")
    options = NoOptions if source is None else load(SOURCES, source).Config
    return dataclass_parser("prepare", Config, {"options": options}, positional=["source", "folder", "out"])


def _named(words: Sequence[str]) -> str | None:
    """The source among words of which some may be the values of options."""
    return next((word for word in words if word.replace("_", "-") in names(SOURCES)), next(iter(words), None))


def run(arguments: Any) -> Pack:
    """Pack."""
    c = as_dataclass(Config, arguments)
    pack = prepare(c.source, c.folder, c.out, options=c.options, size=c.size, fit=c.fit, workers=c.workers)
    log.info("%s holds %d images of %d px, %d were left out", pack.folder, len(pack), pack.size, pack.info["left_out"])
    return pack
