"""Pictures for the look-alikes of collections: not radiographs, but no two are alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

_TAGS = {
    "SOPClassUID": DigitalXRayImageStorageForPresentation,
    "Modality": "DX",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
}


def picture(rows: int, columns: int, rng: np.random.Generator) -> Float[np.ndarray, "rows columns"]:
    """A bright middle between two dark fields, lit unevenly, with one blob; in [0, 1].

    >>> picture(4, 6, np.random.default_rng(0)).shape
    (4, 6)
    """
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    fields = sum(np.exp(-(((x - side) / 0.3) ** 2) - ((y - rng.normal(0, 0.1)) / 0.6) ** 2) for side in (-0.45, 0.45))
    blob = np.exp(-((x - rng.uniform(-0.6, 0.6)) ** 2 + (y - rng.uniform(-0.6, 0.6)) ** 2) / 0.02)
    light = 0.75 + 0.2 * x * rng.uniform(-1, 1) + 0.1 * y - 0.5 * fields + 0.3 * blob
    return light.clip(0, 1)


def write_picture(file: Path, light: Float[np.ndarray, "rows columns"]) -> None:
    """Write 8 bits as JPEG or PNG, as the name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * light).astype(np.uint8)).save(file, quality=95)


def write_dicom(file: Path, light: Float[np.ndarray, "rows columns"], **tags: Any) -> None:
    """Write a radiograph of 12 bits, as many detectors give them; `tags` are added, or replace those here.

    With `PhotometricInterpretation="MONOCHROME1"` the numbers are turned over, so that it shows the same.
    """
    numbers = (100 + 3800 * light).astype(np.uint16)
    if tags.get("PhotometricInterpretation") == "MONOCHROME1":
        numbers = 4095 - numbers
    image = pydicom.Dataset()
    image.update(_TAGS | tags)
    image.SOPInstanceUID = generate_uid(entropy_srcs=[file.name, numbers.tobytes().hex()])
    image.Rows, image.Columns = numbers.shape
    image.PixelData = numbers.tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(file, enforce_file_format=True)
