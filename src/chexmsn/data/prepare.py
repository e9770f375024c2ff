"""From a source's folder to a pack: parallel, resumable, the same bytes whatever the number of workers and shards."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.core.files import is_empty
from chexmsn.core.progress import progress
from chexmsn.core.record import differences
from chexmsn.data._finish import finish, hash_of
from chexmsn.data._partial import Note, Partial, count_kept
from chexmsn.data._pool import cores, ordered_map
from chexmsn.data.pack import INFO, Pack, open_pack
from chexmsn.data.source import Table, make_config
from chexmsn.data.splits import SPLITS, check_names, chosen
from chexmsn.data.squares import SOURCES, Chunk, Form, Squares

CHUNK = 64  # images that a worker does in one go, and that one line of the journal stands for
COPIED = 1024  # likewise, where shards are merged

log = logging.getLogger(__name__)


def prepare(source: str, folder: Path, out: Path, **how: Any) -> Pack:
    """Pack a folder of a source into `out`; the same command after an interruption continues.

    `how` says the rest as in `Job`: options, size, fit, dtype, workers, follow_links, splits, share, seed. An image
    that cannot be read is left out and listed with the reason in `left_out.csv`. A finished pack of the same
    configuration is opened as it is.

    Raises UserError for bad input, for another configuration in `out`, and for a full disk.
    """
    return Job(source, Path(folder), Path(out), **how).pack()


@dataclass(frozen=True)
class Shard:
    """One of equal parts of a job, counted from 1.

    >>> Shard.parse("3/4").rows(10)
    range(5, 7)
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UserError(f"a shard is one of 1/{self.of} to {self.of}/{self.of}, not {self.number}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From `3/16`. Raises UserError for anything else."""
        if not re.fullmatch(r"\d{1,6}/[1-9]\d{0,5}", text):
            raise UserError(f"a shard is written as 3/16, the third of sixteen, not {text!r}")
        return cls(*map(int, text.split("/")))

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"

    def rows(self, count: int) -> range:
        """Its rows of so many."""
        return range(count * (self.number - 1) // self.of, count * self.number // self.of)


@dataclass(frozen=True)
class Job:
    """A pack to be made: whole, or in shards that other processes and machines make at the same time.

    Attributes:
        source: kind of collection (a file in chexmsn/data/sources).
        folder: where the collection lies.
        out: folder of the pack.
        options: those of the source's `Config`.
        size: side of the packed images in pixels.
        fit: how an image becomes a square (`decode.fit_square`).
        dtype: uint8, or uint16 to keep the depth of images that have more than 8 bits.
        workers: decoding processes; one per core that this process may use when None.
        follow_links: read also what a link out of the folder leads to.
        splits: splits whose images are packed; all of them when empty.
        share: share of the training patients that is packed; smaller shares are contained in larger ones.
        seed: another seed, other patients in the share.
    """

    source: str
    folder: Path
    out: Path
    options: Any = None
    size: int = 256
    fit: str = "crop"
    dtype: str = "uint8"
    workers: int | None = None
    follow_links: bool = False
    splits: Sequence[str] = ()
    share: float = 1.0
    seed: int = 0

    def pack(self) -> Pack:
        """Make the pack here. Raises UserError as `prepare` says."""
        return self._made(lambda done: self._decoded(range(done, len(self.table))))

    def make_shard(self, shard: Shard) -> None:
        """Make one shard; it waits beside the pack until all are merged."""
        if self.is_finished():
            return
        rows, partial = shard.rows(len(self.table)), self._partial(shard)
        with partial.alone(), partial.interruptions_told(len(rows)):
            partial.begin(self.request | {"shard": str(shard)})
            _append_all(partial, len(rows), self._decoded(rows[len(partial.notes) :]))
        log.info("shard %s of %s is whole: once all are, give the command with --merge %d", shard, self.out, shard.of)

    def merge(self, shards: int) -> Pack:
        """Make the pack of so many shards. Raises UserError naming those that are not whole."""
        parts = [] if self.is_finished() else self._shards(shards)
        return self._made(lambda done: _copied(parts, done))

    @cached_property
    def table(self) -> Table:
        """One row per image that is wanted, as the source reads it."""
        return chosen(self._module.read(self.folder, self._config), self.splits, self.share, self.seed)

    @cached_property
    def request(self) -> dict[str, Any]:
        """What decides about every byte of the pack, but for the pixels of the files."""
        form = asdict(self._form)  # first, as it is checked sooner than a table is read
        check_names(self.splits)
        links = {"follow_links": True} if self.follow_links else {}  # packs without links need not tell
        part = {"part": self._part} if self._part else {}  # nor those of everything
        return (
            form
            | links
            | part
            | {"table": {"images": len(self.table), "hash": hash_of(self.table.drop(columns="path"))}}
        )

    @property
    def _part(self) -> dict[str, Any]:
        """What was asked for where that is not everything, in one way however it was asked."""
        splits = {"splits": sorted(set(self.splits), key=SPLITS.index)} if self.splits else {}
        return splits | ({"share": self.share, "seed": self.seed} if self.share < 1 else {})

    @cached_property
    def _module(self) -> ModuleType:
        return lookup.load(SOURCES, self.source)

    @cached_property
    def _config(self) -> Any:
        return make_config(self._module, self.options or {})

    @property
    def _collection(self) -> str:
        """Whose patients these are, by the source's own word where it has one."""
        named = getattr(self._module, "collection", None)
        return named(self.folder, self._config) if named else self.source

    @cached_property
    def _form(self) -> Form:
        return Form(self.source, asdict(self._config), self.size, self.fit, self.dtype)

    @cached_property
    def _place(self) -> Path:
        return self.out if self.out.name else self.out.resolve()  # "." has no name to put another folder beside

    def _partial(self, shard: Shard | None = None) -> Partial:
        return Partial(self._place, self.size, self.dtype, shard and str(shard))

    def _made(self, chunks: Callable[[int], Iterator[Chunk]]) -> Pack:
        """The pack of the chunks; `chunks` gives those after the images that are done."""
        if self.is_finished():
            self._partial().remove()  # what a kill left that came after the pack got its name
            return open_pack(self._place)
        partial = self._partial()
        with partial.alone(), partial.interruptions_told(len(self.table)):
            if not self.is_finished():  # by another process, in the meantime
                partial.begin(self.request)
                _append_all(partial, len(self.table), chunks(len(partial.notes)))
                about = {"source_folder_name": self.folder.resolve().name, "collection": self._collection}
                finish(partial, self.table, self.request | about, self.folder)
            partial.remove()
        return open_pack(self._place)

    def is_finished(self) -> bool:
        """Whether `out` is the pack that is asked for. Raises UserError where it is something else."""
        request, out = self.request, self._place
        if not out.exists() or is_empty(out):
            return False
        if not (out / INFO).is_file():
            raise UserError(f"{out} is there already and is no pack (it has no {INFO}): choose another folder")
        info = open_pack(out).info
        if "resplit" in info:
            raise UserError(f"{out} is a pack that `chexmsn split` made ({info['resplit']}): choose another folder")
        recorded = {name: info[name] for name in {*request, "part", "follow_links"} & info.keys()}
        if changes := differences(recorded, request):
            told = "; ".join(changes)
            raise UserError(f"{out} is a pack of another configuration ({told}): choose another folder or delete it")
        log.info("%s is finished and has this configuration: nothing to do", out)
        return True

    def _decoded(self, rows: range) -> Iterator[Chunk]:
        starts = range(rows.start, rows.stop, CHUNK)
        records = (self.table.iloc[start : min(start + CHUNK, rows.stop)].to_dict("records") for start in starts)
        workers = max(1, min(self.workers or cores(), len(starts)))
        make_chunk = Squares(self._form, self.folder, self.follow_links)
        return ordered_map(make_chunk, records, workers, preload=[Squares.__module__, self._module.__name__])

    def _shards(self, count: int) -> list[tuple[range, Partial]]:
        shards = [Shard(number, count) for number in range(1, count + 1)]
        parts = [(shard.rows(len(self.table)), self._partial(shard)) for shard in shards]
        for shard, (_, part) in zip(shards, parts, strict=True):
            part.look(self.request | {"shard": str(shard)})
        done = [
            f"{shard.number}/{count} ({len(part.notes)} of {len(rows)})"
            for shard, (rows, part) in zip(shards, parts, strict=True)
        ]
        if missing := [told for told, (rows, part) in zip(done, parts, strict=True) if len(part.notes) < len(rows)]:
            raise UserError(
                f"of {count} shards of {self.out} these are not whole: {', '.join(missing)} images; give the command "
                "with --shard for each of them, then with --merge again"
            )
        return parts


def _append_all(partial: Partial, total: int, chunks: Iterator[Chunk]) -> None:
    """Append every chunk, and show how far it is."""
    done = len(partial.notes)
    partial.check_room(total - done)
    images = (note for chunk in chunks for note in _appended(partial, chunk))
    for _ in progress(images, total=total, title=f"packing {partial.out.name}", unit="image", done=done):
        pass


def _appended(partial: Partial, chunk: Chunk) -> list[Note]:
    partial.append(*chunk)
    return chunk[1]


def _copied(parts: list[tuple[range, Partial]], done: int) -> Iterator[Chunk]:
    """The images of all shards after those that are done."""
    for rows, part in parts:
        first = max(done - rows.start, 0)
        kept = count_kept(part.notes[:first])
        for start in range(first, len(rows), COPIED):
            notes = part.notes[start : start + COPIED]
            end = kept + count_kept(notes)
            yield part.images(kept, end), notes
            kept = end
