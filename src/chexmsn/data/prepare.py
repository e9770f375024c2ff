"""From a source's folder to a pack: parallel, resumable, the same bytes whatever the number of workers."""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import UInt8

from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.core.files import is_empty, write_json
from chexmsn.core.progress import progress
from chexmsn.core.record import differences
from chexmsn.data._partial import Note, Partial
from chexmsn.data._pool import ordered_map
from chexmsn.data.decode import Decoded, UnreadableImage, check_fit, decode, fit_square, shrinkage, to_depth
from chexmsn.data.pack import FORMAT, IMAGES, INDEX, INFO, LEFT_OUT, Pack, open_pack, sha256
from chexmsn.data.source import LABEL, TEXT_COLUMNS, Table, make_config
from chexmsn.data.splits import SPLITS

SOURCES = "chexmsn.data.sources"
CHUNK = 64  # images that a worker does in one go, and that one line of the journal stands for

Record = dict[str, Any]
"""One row of a source's table."""

Chunk = tuple[UInt8[np.ndarray, "n S S"], list[Note]]
"""The squares of the images that could be read, and a note for every image."""

log = logging.getLogger(__name__)


def prepare(
    source: str,
    folder: Path,
    out: Path,
    *,
    options: Any = None,
    size: int = 256,
    fit: str = "crop",
    workers: int | None = None,
) -> Pack:
    """Pack a folder of a source into `out`; the same command after an interruption continues.

    `options` are those of the source's `Config`; `workers` processes decode (default: one per core).
    An image that cannot be read is left out and listed with the reason in `left_out.csv`. A finished
    pack of the same configuration is opened as it is.

    Raises UserError for bad input, for another configuration in `out`, and for a full disk.
    """
    module, folder = lookup.load(SOURCES, source), Path(folder)
    config = make_config(module, options or {})
    make_chunk = Squares(source, asdict(config), size, fit)
    table = module.read(folder, config)
    request = _request(make_chunk, table)
    out = Path(out) if Path(out).name else Path(out).resolve()  # "." has no name to put another folder beside
    if _is_finished(out, request):
        return open_pack(out)
    partial = Partial(out, size)
    with partial.alone(), partial.interruptions_told(len(table)):
        if not _is_finished(partial.out, request):  # by another process, in the meantime
            partial.begin(request)
            _append_all(partial, table, make_chunk, workers or os.cpu_count() or 1)
            _finish(partial, table, request | {"source_folder_name": folder.resolve().name}, folder)
        partial.remove()
    return open_pack(partial.out)


def _request(squares: "Squares", table: Table) -> dict[str, Any]:
    """What decides about every byte of the pack, but for the pixels of the files."""
    rows = {"images": len(table), "hash": _hash(table.drop(columns="path"))}
    return asdict(squares) | {"table": rows}


def _hash(table: pd.DataFrame) -> str:
    rows = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return hashlib.sha256(rows.tobytes() + "\n".join(table.columns).encode()).hexdigest()[:16]


def _is_finished(out: Path, request: dict[str, Any]) -> bool:
    """Whether `out` is the pack that is asked for. Raises UserError where it is something else."""
    if not out.exists() or is_empty(out):
        return False
    if not (out / INFO).is_file():
        raise UserError(f"{out} is there already and is no pack (it has no {INFO}): choose another folder")
    info = open_pack(out).info
    if changes := differences({name: info.get(name) for name in request}, request):
        told = "; ".join(changes)
        raise UserError(f"{out} is a pack of another configuration ({told}): choose another folder or delete it")
    log.info("%s is finished and has this configuration: nothing to do", out)
    return True


@dataclass(frozen=True)
class Squares:
    """Makes squares of `size` pixels of a source's images; calling it does one chunk, in a worker process."""

    source: str
    options: dict[str, Any]
    size: int
    fit: str

    def __post_init__(self) -> None:
        check_fit(self.fit)
        if not 16 <= self.size <= 4096:
            raise UserError(f"the size of a pack must lie between 16 and 4096 pixels, not {self.size}")

    def __call__(self, records: list[Record]) -> Chunk:
        read = self._reader()
        squares, notes = [], []
        for record in records:
            try:
                image = read(record)
            except UnreadableImage as error:
                notes.append({"reason": str(error)})
            else:
                squares.append(to_depth(fit_square(image.pixels, self.size, self.fit), np.dtype(np.uint8)))
                notes.append(_note(squares[-1], image))
        return np.array(squares, np.uint8).reshape(-1, self.size, self.size), notes

    def _reader(self) -> Callable[[Record], Decoded]:
        """The source's own `load` where it has one, else the file behind `path`."""
        module, enough = lookup.load(SOURCES, self.source), 2 * self.size
        if hasattr(module, "load"):
            config = make_config(module, self.options)
            return lambda record: module.load(record, config, enough)
        return lambda record: decode(Path(record["path"]), enough)


def _note(square: UInt8[np.ndarray, "S S"], image: Decoded) -> Note:
    values = square.astype(np.int64)
    return {
        "content_hash": hashlib.blake2b(square.tobytes(), digest_size=16).hexdigest(),
        "sum": int(values.sum()),
        "sum_of_squares": int((values**2).sum()),
        "stored": image.stored,
        "pixel_mm": image.pixel_mm or (None, None),
    }


def _append_all(partial: Partial, table: Table, make_chunk: Squares, workers: int) -> None:
    """Make and append every chunk that is not there yet."""
    done = len(partial.notes)
    partial.check_room(len(table) - done)
    starts = range(done, len(table), CHUNK)
    records = (table.iloc[start : start + CHUNK].to_dict("records") for start in starts)
    chunks = ordered_map(make_chunk, records, max(1, min(workers, len(starts))), preload=[make_chunk.__module__])
    images = (note for chunk in chunks for note in _appended(partial, chunk))
    for _ in progress(images, total=len(table), title=f"packing {partial.out.name}", unit="image", done=done):
        pass


def _appended(partial: Partial, chunk: Chunk) -> list[Note]:
    partial.append(*chunk)
    return chunk[1]


def _finish(partial: Partial, table: Table, recorded: dict[str, Any], folder: Path) -> None:
    """Write what belongs beside the pixels, and give the pack its name."""
    notes = pd.DataFrame(
        partial.notes, columns=["content_hash", "sum", "sum_of_squares", "stored", "pixel_mm", "reason"]
    )
    readable = notes["reason"].isna()
    if not readable.any():
        partial.remove()
        first = f"{table['image_key'][0]}: {notes['reason'][0]}"
        raise UserError(
            f"none of the {len(table)} images in {folder} can be read; the first: {first}: "
            f"`chexmsn doctor {recorded['source']} {folder}` says what to do"
        )
    log.info("writing index and checksums of %s", partial.out)
    partial.close()
    _write_left_out(partial.pack / LEFT_OUT, table[~readable], notes["reason"][~readable], folder)
    kept, notes = table[readable].reset_index(drop=True), notes[readable].reset_index(drop=True)
    index = _index(kept, notes, recorded["size"], recorded["fit"])
    _write_index(partial.pack / INDEX, index)
    info = recorded | _summary(index, notes, recorded["size"]) | {"left_out": int((~readable).sum())}
    info["sha256"] = {name: sha256(partial.pack / name) for name in (IMAGES, INDEX)}
    write_json(partial.pack / INFO, {"format": FORMAT, **info})
    partial.publish()


def _write_left_out(file: Path, rows: Table, reasons: pd.Series, folder: Path) -> None:
    if len(rows):
        log.warning("%d images cannot be read and are left out: see %s", len(rows), LEFT_OUT)
    files = rows["path"].astype(str).str.removeprefix(f"{folder}/")
    pd.DataFrame({"image_key": rows["image_key"], "file": files, "reason": reasons}).to_csv(file, index=False)


def _index(kept: Table, notes: pd.DataFrame, size: int, fit: str) -> pd.DataFrame:
    """The index: the table without paths, with content hashes, its millimetres those of a pack's pixel.

    What the table does not say of a pixel's size, the file may have.
    """
    axes = ["pixel_mm_row", "pixel_mm_column"]
    of_files = pd.DataFrame(notes["pixel_mm"].tolist(), columns=axes, dtype=float)
    spans = np.array([shrinkage(tuple(stored), size, fit) for stored in notes["stored"]])
    index = kept.drop(columns="path")
    index[axes] = index[axes].fillna(of_files) * spans
    index.insert(1, "content_hash", notes["content_hash"])
    return index


def _write_index(file: Path, index: pd.DataFrame) -> None:
    text = {"content_hash", *TEXT_COLUMNS}  # typed here, as a column of nulls alone would have no type
    fields = [(name, pa.string() if name in text else pa.from_numpy_dtype(index[name].dtype)) for name in index]
    index.to_parquet(file, index=False, schema=pa.schema(fields))


def _summary(index: pd.DataFrame, notes: pd.DataFrame, size: int) -> dict[str, Any]:
    """Counts, findings, fingerprint, and mean and deviation of the training pixels in [0, 1]."""
    counts = index["split"].value_counts()
    train = (index["split"] == "train").to_numpy() | ("train" not in counts)
    pixels = int(train.sum()) * size**2
    mean = sum(notes["sum"][train].map(int)) / pixels
    variance = sum(notes["sum_of_squares"][train].map(int)) / pixels - mean**2
    return {
        "dtype": "uint8",
        "images": len(index),
        "patients": index["patient_id"].nunique(),
        "splits": {split: int(counts[split]) for split in SPLITS if split in counts},
        "findings": [name.removeprefix(LABEL) for name in index if name.startswith(LABEL)],
        "mean": mean / 255,
        "std": max(variance, 0.0) ** 0.5 / 255,
        "fingerprint": _hash(index),
    }
