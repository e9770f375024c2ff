"""DICOM files for tests, written by pydicom and transcoded by GDCM."""

import io
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian


def dataset(pixels: np.ndarray, **tags) -> pydicom.Dataset:
    """A minimal image of these stored numbers; a tag given as None is left away."""
    image = pydicom.Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    bits = tags.get("BitsStored") or 8 * pixels.itemsize
    described = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "SOPInstanceUID": "1.2.3",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    if pixels.ndim == 3:
        described["PlanarConfiguration"] = 0
    for name, value in (described | tags).items():
        if value is not None:
            setattr(image, name, value)
    return image


def written(image: pydicom.Dataset) -> bytes:
    content = io.BytesIO()
    pydicom.dcmwrite(content, image, enforce_file_format=True)
    return content.getvalue()


def dicom(pixels: np.ndarray, **tags) -> bytes:
    return written(dataset(pixels, **tags))


def transcoded(content: bytes, syntax: str, folder: Path) -> bytes:
    """The same image in another transfer syntax, by GDCM's name of it."""
    before, after = str(folder / "before.dcm"), str(folder / "after.dcm")
    Path(before).write_bytes(content)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(before)
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change(), syntax
    writer.SetFileName(after)
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return Path(after).read_bytes()
