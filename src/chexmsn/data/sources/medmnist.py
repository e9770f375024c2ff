"""ChestMNIST and PneumoniaMNIST of MedMNIST v2, one `.npz` file each, 28 to 224 pixels.

ChestMNIST is NIH ChestX-ray14 with its 14 findings, PneumoniaMNIST the pediatric radiographs of Kermany et al. Neither
file says which images are of one patient. Images are read from the compressed file one by one, never all at once.
"""

import io
import logging
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Integer, Shaped, UInt8

from chexmsn.core.errors import UserError
from chexmsn.data.image import Decoded, UnreadableImage
from chexmsn.data.labels import canonical
from chexmsn.data.look_alike import picture
from chexmsn.data.source import LABEL, Source, Table, check_table, make_table, need_folder

SOURCE = Source(
    title="MedMNIST v2: ChestMNIST and PneumoniaMNIST",
    licence="CC BY 4.0",
    citation="Yang et al., MedMNIST v2 - a large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification, Scientific Data 2023, arXiv 2110.14795; and the collections it was made from",
    url="https://medmnist.com",
    files=False,
    sizes=(28, 64, 128, 224),
)

LABELS = {
    "chestmnist": (
        *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
        *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia"),
    ),
    "pneumoniamnist": ("Pneumonia",),
}
"""What the columns of the labels stand for, in their order (MedMNIST/MedMNIST, medmnist/info.py)."""

SPLITS = {"train": "train", "val": "validate", "test": "test"}

_NAME = re.compile(r"(chestmnist|pneumoniamnist)(_\d+)?\.npz")
_LARGEST_SIDE, _MOST_IMAGES = 4096, 10_000_000  # far beyond any of its files: what a damaged or hostile one may say
_HEADS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_BROKEN = (OSError, EOFError, KeyError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which file of the folder.

    Attributes:
        file: its name, such as chestmnist_64.npz; needed only where the folder holds several.
    """

    file: str | None = None


class _Array:
    """An array in an archive, its head read, none of its numbers yet; nothing is ever unpickled."""

    def __init__(self, file: Path, name: str) -> None:
        self.file = file.open("rb")
        try:
            self.stream = zipfile.ZipFile(self.file).open(f"{name}.npy")  # noqa: SIM115  `close` does it
            version = np.lib.format.read_magic(self.stream)
            self.shape, by_columns, self.dtype = _HEADS[version](self.stream)
            if by_columns or self.dtype.hasobject or not self.shape or self.shape[0] > _MOST_IMAGES:
                raise ValueError(f"{name} is {self.dtype} {self.shape}, which no file of MedMNIST is")
        except _BROKEN:
            self.close()
            raise
        self.start = self.stream.tell()

    def close(self) -> None:
        """Leave the file."""
        self.file.close()

    def __del__(self) -> None:
        self.close()

    def all(self) -> Shaped[np.ndarray, "..."]:
        """Every number; to be asked once."""
        content = self.stream.read(math.prod(self.shape) * self.dtype.itemsize)
        return np.frombuffer(content, self.dtype).reshape(self.shape)

    def row(self, number: int) -> Shaped[np.ndarray, "..."]:
        """One image: cheap behind the last one, while one before it starts from the beginning."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        self.stream.seek(self.start + number * size)
        return np.frombuffer(self.stream.read(size), self.dtype).reshape(self.shape[1:])


def read(folder: Path, config: Config) -> Table:
    """The images of one file. Raises UserError where there is none, or it is not as MedMNIST writes it."""
    need_folder(folder)
    file = _file(folder, config.file)
    name = _NAME.fullmatch(file.name).group(1)
    log.info("%s does not say which images are of one patient: each image counts as a patient of its own", file.name)
    try:
        parts = [_part(file, name, split) for split in SPLITS]
    except _BROKEN as error:
        raise UserError(f"{file} cannot be read ({' '.join(str(error).split())}): fetch it anew") from None
    return check_table(pd.concat(parts, ignore_index=True), file)


def _file(folder: Path, name: str | None) -> Path:
    there = sorted(file.name for file in folder.iterdir() if _NAME.fullmatch(file.name))
    if name is None and len(there) == 1:
        return folder / there[0]
    if name in there:
        return folder / name
    if name is None and there:
        raise UserError(f"{folder} holds {', '.join(there)}: name one of them with the option file")
    wanted = name or "chestmnist.npz or pneumoniamnist.npz (also _64, _128, _224)"
    raise UserError(f"{folder} has no {wanted}: fetch it from {SOURCE.url} and keep its name")


def _part(file: Path, name: str, split: str) -> Table:
    """The table of one split."""
    findings = LABELS[name]
    with closing(_Array(file, f"{split}_images")) as images, closing(_Array(file, f"{split}_labels")) as said:
        labels = _labels(said)
    if images.dtype != np.uint8 or len(images.shape) != 3 or max(images.shape[1:]) > _LARGEST_SIDE:
        raise ValueError(f"{split}_images holds {images.dtype} {images.shape}, not gray images of 8 bits")
    if labels.shape != (images.shape[0], len(findings)):
        raise ValueError(f"{split}_labels holds {labels.shape}, not {len(findings)} labels for each image")
    keys = [f"{name}-{split}-{number:06d}" for number in range(len(labels))]
    columns = {
        "path": [f"{file}/{split}/{number}" for number in range(len(labels))],
        "image_key": keys,
        "patient_id": keys,
        "split": SPLITS[split],
    }
    named = [LABEL + canonical(finding) for finding in findings]
    return make_table(columns, pd.DataFrame(labels.astype(np.float32), columns=named))


def load(record: Mapping[str, Any], config: Config, enough: int) -> Decoded:
    """One image; `path` is the place of the file, the split and the number of the image."""
    place = Path(record["path"])
    try:
        return Decoded.whole(_kept_open(place.parents[1], f"{place.parent.name}_images").row(int(place.name)))
    except _BROKEN as error:
        raise UnreadableImage(f"damaged file {place.parents[1].name}: {error}") from error


@lru_cache(maxsize=len(SPLITS))
def _kept_open(file: Path, name: str) -> _Array:
    """Each process inflates the file once, on its way from the first image to the last."""
    return _Array(file, name)


def _labels(array: _Array) -> Integer[np.ndarray, "N C"]:
    if array.dtype.kind not in "ui" or len(array.shape) != 2 or array.shape[1] > len(LABELS["chestmnist"]):
        raise ValueError(f"its labels are {array.dtype} {array.shape}")
    return array.all()


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a look-alike of ChestMNIST at `size` pixels, ten images for each of the `patients` there might be."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    name = "chestmnist.npz" if size == SOURCE.sizes[0] else f"chestmnist_{size}.npz"
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, share in {"train": 7, "val": 1, "test": 2}.items():
            images = [picture(size, size, rng) for _ in range(share * patients)]
            labels = rng.random((len(images), len(LABELS["chestmnist"]))) < 0.15
            _write(archive, f"{split}_images", (255 * np.array(images)).astype(np.uint8))
            _write(archive, f"{split}_labels", labels.astype(np.uint8))


def _write(archive: zipfile.ZipFile, name: str, array: UInt8[np.ndarray, "..."]) -> None:
    """As `np.savez_compressed`, without the time of the day."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)
