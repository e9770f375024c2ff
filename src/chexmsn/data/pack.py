"""A pack: a collection as one memory-mapped array of squares with an index, ready to be read in any order."""

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64, Shaped

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.data.labels import canonical
from chexmsn.data.source import LABEL

FORMAT = 1

IMAGES, INDEX, INFO, LEFT_OUT = "images.npy", "index.parquet", "pack.json", "left_out.csv"

NEEDED = {
    "images": int,
    "size": int,
    "findings": list,
    "splits": dict,
    "mean": (float, int),
    "std": (float, int),
    "fingerprint": str,
    "sha256": dict,
}
"""What `pack.json` says that a pack cannot be read without, and of what kind."""

DTYPES = (np.uint8, np.uint16)

NO_ARRAY = (OSError, EOFError, ValueError, OverflowError, SyntaxError, TokenError, UserWarning)
"""What numpy raises for an array's file that is empty or has a damaged header; the last from `mapped`."""


@dataclass(frozen=True)
class Pack:
    """An open pack: `images` N x S x S uint8 or uint16, `index` one row per image, `info` what `pack.json` says."""

    folder: Path
    images: np.memmap
    index: pd.DataFrame
    info: dict[str, Any]

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_pack, (self.folder,)  # to a worker process travels the name, not the pixels

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def size(self) -> int:
        """The side of its images in pixels."""
        return self.info["size"]

    @property
    def collection(self) -> str:
        """Whose patients these are: in two packs of one collection equal numbers are the same patient."""
        return self.info.get("collection") or self.info.get("source", self.name)

    @property
    def fingerprint(self) -> str:
        """Equal for packs of equal pixels and equal index, wherever and whenever they were made."""
        return self.info["fingerprint"]

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that its index has labels of."""
        return tuple(self.info["findings"])

    @property
    def mean(self) -> float:
        """The mean pixel of the training images (of all, where there are none) in [0, 1]."""
        return self.info["mean"]

    @property
    def std(self) -> float:
        """The standard deviation of the same pixels."""
        return self.info["std"]

    def rows(self, splits: Sequence[str]) -> Int64[np.ndarray, "n"]:
        """The rows of these splits in the order of the index. Raises UserError for a split that is not there."""
        absent = [split for split in splits if split not in self.info["splits"]]
        if absent:
            raise UserError(f"pack {self.folder} has no split {absent[0]!r}: it has {', '.join(self.info['splits'])}")
        return np.flatnonzero(self.index["split"].isin(splits)).astype(np.int64)

    def raw_labels(self, findings: Iterable[str]) -> Float32[np.ndarray, "N C"]:
        """1, 0, -1 and NaN (blank) per image and finding. Raises UserError for a finding that is not there."""
        names = [canonical(finding) for finding in findings]
        absent = [name for name in names if name not in self.findings]
        if absent:
            offered = ", ".join(self.findings) or "no labels at all"
            raise UserError(f"pack {self.folder} has no labels of {', '.join(absent)}: it has {offered}")
        return self.index[[LABEL + name for name in names]].to_numpy(np.float32)


def mapped(file: Path) -> Shaped[np.ndarray, "..."]:
    """The array in a file, read from where it lies when it is asked for. Raises one of NO_ARRAY."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # numpy's, of a header that is damaged or older than Python 3
        return np.load(file, mmap_mode="r")


def open_pack(folder: Path) -> Pack:
    """Open a finished pack. Raises UserError for a folder that is none, or a pack that is damaged."""
    folder = Path(folder)
    if not (folder / INFO).is_file():
        raise UserError(f"{folder} is no pack (it has no {INFO}): make one with `chexmsn prepare`")
    info = read_json(folder / INFO)
    version = info.get("format") if isinstance(info, dict) else None
    if version != FORMAT:
        raise UserError(f"pack {folder} has format {version}, not {FORMAT}: prepare it anew")
    if missing := [name for name, kind in NEEDED.items() if not isinstance(info.get(name), kind)]:
        raise UserError(f"{folder / INFO} does not say {', '.join(missing)}: prepare the pack anew")
    _check_file(folder, INDEX, info)
    try:
        images = mapped(folder / IMAGES)
    except NO_ARRAY as error:
        raise UserError(
            f"{folder / IMAGES} cannot be read ({' '.join(str(error).split())}): prepare the pack anew"
        ) from None
    if images.shape != (info["images"], info["size"], info["size"]) or images.dtype not in DTYPES:
        told = f"{images.shape} of {images.dtype}"
        raise UserError(f"{folder / IMAGES} holds {told}, not what {INFO} says: prepare the pack anew")
    return Pack(folder, images, pd.read_parquet(folder / INDEX), info)


def verify(pack: Pack) -> None:
    """Read everything and compare the checksums. Raises UserError naming a file that changed."""
    for name in (IMAGES, INDEX):
        _check_file(pack.folder, name, pack.info)


def _check_file(folder: Path, name: str, info: dict[str, Any]) -> None:
    try:
        changed = sha256(folder / name) != info["sha256"].get(name)
    except FileNotFoundError:
        raise UserError(f"pack {folder} lacks {name}: prepare it anew") from None
    if changed:
        raise UserError(f"{folder / name} is not what it was when the pack was made: prepare it anew")


def sha256(file: Path) -> str:
    """The checksum of a file of any size."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
