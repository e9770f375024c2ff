"""Turn a source into a pack: images decoded once, resized, with their table.

Example:
    chexmsn prepare mimic-cxr-jpg /data/mimic-cxr-jpg packs/mimic --workers 16

The options of a source are --options.<name>; `chexmsn prepare csv FOLDER OUT --help`
shows those of csv. The same command continues after a stop; images that cannot be read are listed in left_out.csv.

On several machines at once, each making a part; the last command joins them (slurm/job-scripts/prepare.sh):
    chexmsn prepare mimic-cxr-jpg /data/mimic-cxr-jpg packs/mimic --shard 3/16
    chexmsn prepare mimic-cxr-jpg /data/mimic-cxr-jpg packs/mimic --merge 16
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.data.pack import Pack
from chexmsn.data.prepare import Job, Shard
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
        fit: crop (short side to size, centre square), stretch, pad, or medfuse (as crop, of what MedFuse's program for
            resizing makes: 512 px wide, JPEG).
        dtype: uint8, or uint16 to keep the depth of images that have more than 8 bits.
        workers: decoding processes; one per core when empty.
        follow_links: read also images that a link out of the folder leads to.
        shard: make one part only, such as 3/16, beside the pack.
        merge: join so many parts to the pack.
    """

    source: str
    folder: Path
    out: Path
    options: Any
    size: int = 256
    fit: str = "crop"
    dtype: str = "uint8"
    workers: int | None = None
    follow_links: bool = False
    shard: str | None = None
    merge: int | None = None

    def __post_init__(self) -> None:
        check_limits(self, size="[16, 4096]", workers="[0, inf)", merge="[1, inf)")
        if self.shard and self.merge:
            raise UserError("a shard is made, or all are merged: give --shard or --merge, not both")


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of packing and of the chosen source."""
    return source_parser("prepare", Config, values, positional=["source", "folder", "out"])


def run(arguments: Any) -> Pack | None:
    """Pack, or make a shard."""
    c = as_dataclass(Config, arguments)
    chosen = {field.name: getattr(c, field.name) for field in fields(Job)}
    job = Job(**chosen)
    if c.shard:
        return job.make_shard(Shard.parse(c.shard))
    pack = job.merge(c.merge) if c.merge else job.pack()
    log.info("%s holds %d images of %d px, %d were left out", pack.folder, len(pack), pack.size, pack.info["left_out"])
    return pack
