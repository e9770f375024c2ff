"""Turn a source into a pack: images decoded once, resized, with their table.

Example:
    chexmsn prepare mimic-cxr-jpg /data/mimic-cxr-jpg packs/mimic --workers 16

The options of a source are --options.<name>; `chexmsn prepare csv FOLDER OUT --help`
shows those of csv. --splits, --share and --seed choose images as in `chexmsn doctor`. The same command continues after
a stop; images that cannot be read are listed in left_out.csv.

On several machines at once, each making a part; the last command joins them (slurm/job-scripts/prepare.sh):
    chexmsn prepare mimic-cxr-jpg /data/mimic-cxr-jpg packs/mimic --shard 3/16
    chexmsn prepare mimic-cxr-jpg /data/mimic-cxr-jpg packs/mimic --merge 16
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.core.libraries import library
from chexmsn.core.limits import check_limits
from chexmsn.core.words import counted
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
        splits: splits whose images are packed; all of them when empty.
        share: share of the training patients that is packed; smaller shares are contained in larger ones.
        seed: another seed, other patients in the share.
        shard: make one part only, such as 3/16, beside the pack.
        merge: join so many parts to the pack.
        slurm: submit so many parts to Slurm as jobs of `workers` cores each (4 when empty), wait for them, and join
            them. Needs sbatch and submitit (pip install 'chexmsn[slurm]'); SBATCH_PARTITION, SBATCH_ACCOUNT ... are
            obeyed. Logs lie in OUT.jobs until the pack is whole.
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
    splits: tuple[str, ...] = ()
    share: float = 1.0
    seed: int = 0
    shard: str | None = None
    merge: int | None = None
    slurm: int | None = None

    def __post_init__(self) -> None:
        check_limits(self, size="[16, 4096]", share="(0, 1]", workers="[1, inf)", merge="[1, inf)", slurm="[1, inf)")
        if sum(way is not None for way in (self.shard, self.merge, self.slurm)) > 1:
            raise UserError("a part is made, or all are joined: give one of --shard, --merge and --slurm")


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
    if c.slurm and not job.is_finished():
        _make_shards_on_slurm(job, c.slurm)
    shards = c.merge or c.slurm
    pack = job.merge(shards) if shards else job.pack()
    if shards:
        shutil.rmtree(_jobs(job), ignore_errors=True)  # nobody needs the logs of a pack that is whole
    log.info("%s: images of %d px: %d; left out: %d", pack.folder, pack.size, len(pack), pack.info["left_out"])
    return pack


def _jobs(job: Job) -> Path:
    """Where submitit keeps jobs and their logs."""
    return job.out.with_name(f"{job.out.name}.jobs")


def _make_shards_on_slurm(job: Job, shards: int) -> None:
    """As an array of jobs. Merging names those that failed. Raises UserError where there is no Slurm."""
    if shutil.which("sbatch") is None:
        raise UserError(
            f"--slurm {shards} submits jobs with sbatch, and there is none on this machine: leave it out to pack here "
            "(--workers says by how many processes), or give the command where jobs are submitted"
        )
    place = _jobs(job)
    executor = library("submitit", "slurm").AutoExecutor(place)
    executor.update_parameters(name="prepare", cpus_per_task=job.workers or 4, timeout_min=240)
    parts = executor.map_array(job.make_shard, [Shard(number, shards) for number in range(1, shards + 1)])
    submitted = counted(shards, "job")
    log.info("%s submitted, logs in %s; if this is stopped, give --merge %d later", submitted, place, shards)
    for part in parts:
        part.wait()
