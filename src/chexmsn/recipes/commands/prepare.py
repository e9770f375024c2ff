"""Turn a source into a pack: images decoded once, resized, with their table.

Example:
    chexmsn prepare mimic-cxr-jpg /data/mimic-cxr-jpg packs/mimic --workers 16

The options of a source are --options.<name>; `chexmsn prepare csv FOLDER OUT --help`
shows those of csv. The same command continues after a stop; images that cannot be read are listed in left_out.csv.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexmsn.core.limits import check_limits
from chexmsn.data.pack import Pack
from chexmsn.data.prepare import prepare
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, source_parser

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


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of packing and of the chosen source."""
    return source_parser("prepare", Config, values, positional=["source", "folder", "out"])


def run(arguments: Any) -> Pack:
    """Pack."""
    c = as_dataclass(Config, arguments)
    pack = prepare(c.source, c.folder, c.out, options=c.options, size=c.size, fit=c.fit, workers=c.workers)
    log.info("%s holds %d images of %d px, %d were left out", pack.folder, len(pack), pack.size, pack.info["left_out"])
    return pack
