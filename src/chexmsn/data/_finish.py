"""What belongs beside the pixels of a pack: index, list of what was left out, counts and checksums."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from chexmsn.core.errors import UserError
from chexmsn.core.files import write_json
from chexmsn.core.words import are, counted
from chexmsn.data._partial import Note, Partial
from chexmsn.data.decode import shrinkage
from chexmsn.data.pack import FORMAT, IMAGES, INDEX, INFO, LEFT_OUT, sha256
from chexmsn.data.source import LABEL, TEXT_COLUMNS, Table
from chexmsn.data.splits import SPLITS

COLUMNS = ["content_hash", "sum", "sum_of_squares", "stored", "pixel_mm", "alpha", "reason"]

log = logging.getLogger(__name__)


def finish(partial: Partial, table: Table, recorded: dict[str, Any], folder: Path) -> None:
    """Write what belongs beside the pixels, and give the pack its name. UserError where no image could be read."""
    readable = np.array(["reason" not in note for note in partial.notes])
    if not readable.any():
        first = f"{table['image_key'][0]}: {partial.notes[0]['reason']}"
        partial.remove()
        raise UserError(
            f"none of the {len(table)} images in {folder} can be read; the first: {first}: "
            f"`chexmsn doctor {recorded['source']} {folder}` says what to do"
        )
    log.info("writing index and checksums of %s", partial.out)
    partial.close()
    notes = _table_of(partial.notes)
    _write_left_out(partial.pack / LEFT_OUT, table[~readable], notes["reason"][~readable], folder)
    _tell_dropped_alpha(int(notes["alpha"].notna().sum()))
    kept, notes = table[readable].reset_index(drop=True), notes[readable].reset_index(drop=True)
    index = _index(kept, notes, recorded["size"], recorded["fit"])
    write_index(partial.pack / INDEX, index)
    info = recorded | summary(index, notes, recorded) | {"left_out": int((~readable).sum())}
    info["sha256"] = {name: sha256(partial.pack / name) for name in (IMAGES, INDEX)}
    write_json(partial.pack / INFO, {"format": FORMAT, **info})
    partial.publish()


def _table_of(notes: list[Note]) -> pd.DataFrame:
    return pd.DataFrame({name: [note.get(name) for note in notes] for name in COLUMNS}, dtype=object)


def _write_left_out(file: Path, rows: Table, reasons: pd.Series, folder: Path) -> None:
    if len(rows):
        what = counted(len(rows), "image")
        log.warning("%s cannot be read and %s left out: see %s", what, are(len(rows)), LEFT_OUT)
    files = rows["path"].astype(str).str.removeprefix(f"{folder}/")
    pd.DataFrame({"image_key": rows["image_key"], "file": files, "reason": reasons}).to_csv(file, index=False)


def _tell_dropped_alpha(images: int) -> None:
    if images:
        log.info(
            "%d %s an alpha channel, which is dropped: what was transparent shows",
            images,
            "image has" if images == 1 else "images have",
        )


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


def write_index(file: Path, index: pd.DataFrame) -> None:
    """The index as Parquet, every text column typed as text."""
    text = {"content_hash", *TEXT_COLUMNS}  # typed here, as a column of nulls alone would have no type
    fields = [(name, pa.string() if name in text else pa.from_numpy_dtype(index[name].dtype)) for name in index]
    index.to_parquet(file, index=False, schema=pa.schema(fields))


def summary(index: pd.DataFrame, notes: pd.DataFrame, recorded: dict[str, Any]) -> dict[str, Any]:
    """Counts, findings, fingerprint, and mean and deviation of the training pixels in [0, 1]."""
    counts = index["split"].value_counts()
    train = (index["split"] == "train").to_numpy() | ("train" not in counts)
    pixels, white = int(train.sum()) * recorded["size"] ** 2, np.iinfo(recorded["dtype"]).max
    mean = sum(notes["sum"][train].map(int)) / pixels
    variance = sum(notes["sum_of_squares"][train].map(int)) / pixels - mean**2
    return {
        "images": len(index),
        "patients": index["patient_id"].nunique(),
        "splits": {split: int(counts[split]) for split in SPLITS if split in counts},
        "findings": [name.removeprefix(LABEL) for name in index if name.startswith(LABEL)],
        "mean": mean / white,
        "std": max(variance, 0.0) ** 0.5 / white,
        "fingerprint": hash_of(index),
    }


def hash_of(table: pd.DataFrame) -> str:
    """Equal for equal tables."""
    rows = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return hashlib.sha256(rows.tobytes() + "\n".join(table.columns).encode()).hexdigest()[:16]
