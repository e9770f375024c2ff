"""From a DICOM file to gray pixels, as it asks to be shown or as the makers of MIMIC-CXR-JPG rendered theirs.

Whatever lies between a stored number and its gray level (unused bits, rescaling, window, polarity, equalisation)
depends on that number alone, so it is worked out once for all 256 or 65,536 of them and looked up for the pixels.
Overlay planes are not drawn; what is burned into the pixels stays.
"""

import io
import logging
import math
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pydicom
from jaxtyping import Bool, Float64, Int, Integer, Num, UInt8
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_partial
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from chexmsn.core.libraries import library
from chexmsn.data._apart import array_apart
from chexmsn.data.image import SMALLEST_SIDE, Decoded, UnreadableImage

Rendering = Literal["window", "mimic-cxr-jpg"]
"""`window`: through the look-up table or window in the file, else over the whole range, padding left out and black.
`mimic-cxr-jpg`: as Johnson et al. 2019 (arXiv 1901.07042) describe it: the whole range of the stored numbers, padding
or not, to 8 bits; polarity; histogram equalisation."""

NEEDED = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "PixelData"),
)
"""Tags without which nobody can say what the pixels mean."""

BROKEN = (
    *(AttributeError, ArithmeticError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error, BytesLengthException),
)
"""What pydicom, GDCM and Pillow raise for broken files."""

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its remarks quote values, and a value may name a patient

LARGEST_HEAD = 1 << 20
"""Bytes read for the tags of one file. A look-up table has up to 131,072, and what nobody asks for is not read."""

LONGEST_VALUE = 1 << 16
"""Bytes. What is not written as a table or sequence has a few; so many make half a second of numbers."""

MOST_FRAGMENTS = 1 << 16
"""Pieces that a compressed image comes in; many writers make one."""

_OF_COLOUR = tuple(
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
_TAGS = (
    *(name for name in NEEDED if name != "PixelData"),
    *("NumberOfFrames", "HighBit", "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction"),
    *("WindowCenter", "WindowWidth", "PixelSpacing", "ImagerPixelSpacing"),
    *("EstimatedRadiographicMagnificationFactor", "PixelPresentation", *_OF_COLOUR),
)
"""All that is looked at here or by pydicom's decoders; makers' own tags may be as long as they like."""

_PIXELS = Tag("PixelData")
_SHAPE = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_END_OF_FRAGMENTS = 0xE0DDFFFE  # the tag (FFFE,E0DD), its two little-endian halves read as one number (PS3.5 A.4)
_OF_PIXELS = [_PIXELS, Tag("ExtendedOffsetTable"), Tag("ExtendedOffsetTableLengths")]
_LONG = {Tag(name) for name in ("ModalityLUTSequence", "VOILUTSequence", "ViewCodeSequence", *_OF_COLOUR)}

_LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow
_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_BY_PILLOW = (JPEGBaseline8Bit, *JPEG2000TransferSyntaxes)  # its JPEG is twice as fast as GDCM's
_BY_GDCM = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
_RAW_BITS = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless)
_FILLED_UP = 128  # bytes that a writer may add to a segment of run lengths: one run at most
_LONGEST_FIRST_VALUE = 256  # bytes, of the first tag of a file without preamble: a length, a character set


class _Stored(NamedTuple):
    """Pixels as bit patterns, the number that each pattern stands for, and how many pixels have it."""

    codes: Integer[np.ndarray, "H W"]
    numbers: Integer[np.ndarray, "K"]
    counts: Integer[np.ndarray, "K"]


def is_dicom(content: bytes) -> bool:
    """Whether it is DICOM: by its mark, or by its first tag where the preamble with the mark was left away."""
    if content[128:132] == b"DICM":
        return True
    kind, length = content[4:6], int.from_bytes(content[4:8], "little")
    explicit = kind.isalpha() and kind.isupper()
    return content[:2] in (b"\2\0", b"\x08\0") and (explicit or 0 < length <= _LONGEST_FIRST_VALUE)


def decode_dicom(content: bytes, rendering: Rendering = "window") -> Decoded:
    """The single radiograph of a DICOM file as gray: 16 bits where more than 8 are stored, else 8.

    `mimic-cxr-jpg` always gives 8 bits, as the original does. Colour becomes luma and is not windowed. A pixel's size
    is PixelSpacing, else ImagerPixelSpacing divided by the EstimatedRadiographicMagnificationFactor where there is one.

    Raises UnreadableImage for what is no image, lacks a tag, has several frames or an absurd size, or is damaged.
    """
    try:
        header = _header(content)
        _check(header)
        stored = _stored(_pixels(header), header)
        shown = _equalised(stored, header) if rendering == "mimic-cxr-jpg" else _windowed(stored, header)
        return Decoded(shown[stored.codes], stored.codes.shape, pixel_mm(header))
    except BROKEN as error:
        raise UnreadableImage(f"damaged DICOM: {error}") from error


class _Sparing:
    """A file that gives no more than tags need, and never its rest: pydicom unfolds that of a deflated file at once."""

    def __init__(self, file: io.BufferedReader | io.BytesIO) -> None:
        self._file, self._left = file, LARGEST_HEAD
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise UnreadableImage("deflated DICOM, which might unfold without limit: rewrite it undeflated")
        self._left -= size
        if self._left < 0:
            raise UnreadableImage(f"DICOM with more than {LARGEST_HEAD >> 20} MB of tags before its pixels")
        return self._file.read(size)


def read_tags(file: io.BufferedReader | io.BytesIO, tags: Sequence[str]) -> pydicom.Dataset:
    """Those of the tags that a DICOM file has before its pixels.

    A list of numbers, or a sequence of nothing, takes 300 times the memory of its bytes: no more than LARGEST_HEAD is
    read, and no value may be longer than LONGEST_VALUE, but for sequences and for tables, which stay bytes.

    Raises UnreadableImage for more, and for a deflated file; one of BROKEN for a damaged one.
    """
    header = pydicom.dcmread(_Sparing(file), stop_before_pixels=True, specific_tags=list(tags), force=True)
    for one in header.elements():  # as they lie there: none has been made into numbers or text
        if isinstance(one.value, bytes) and len(one.value) > LONGEST_VALUE and one.tag not in _LONG:
            raise UnreadableImage(f"DICOM whose tag {one.tag} has {len(one.value):,} bytes")
    return header


def is_cut_off(file: io.BufferedReader, size: int) -> bool:
    """Whether a DICOM file of so many bytes ends before its first image does, by its tags and the lengths in it.

    Nothing is decoded. False also for what cannot be told: damaged tags, and files that hold no image.
    """
    try:
        header = read_tags(file, _SHAPE)  # and the file stands where its pixels begin
        return "Rows" in header and _end_of_pixels(file, header) > size
    except (*BROKEN, UnreadableImage):
        return False


def _end_of_pixels(file: io.BufferedReader, header: pydicom.Dataset) -> int:
    """The first byte behind the pixels, as far as the file goes on."""
    at = file.tell()
    if not header.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian).is_encapsulated:
        return at + 8 + header.Rows * header.Columns * header.SamplesPerPixel * header.BitsAllocated // 8
    at += 12  # their tag, kind and undefined length; then the fragments
    for _ in range(MOST_FRAGMENTS):
        file.seek(at)
        if len(head := file.read(8)) < 8:
            return at + 8
        tag, length = struct.unpack("<II", head)
        at += 8 + length
        if tag == _END_OF_FRAGMENTS:
            break
    return at


def _header(content: bytes) -> pydicom.Dataset:
    """The tags that say what the pixels mean, and the pixels. Where a file does not say how they are written, plain."""
    header = read_tags(io.BytesIO(content), _TAGS)
    header.update(read_partial(io.BytesIO(content), _beyond_the_pixels, force=True, specific_tags=_OF_PIXELS))
    if "TransferSyntaxUID" not in header.file_meta:
        header.file_meta.TransferSyntaxUID = _syntax_of(*header.original_encoding)
    return header


def _beyond_the_pixels(tag: int, *_: Any) -> bool:
    return tag > _PIXELS


def _syntax_of(implicit: bool | None, little: bool | None) -> str:
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _check(header: pydicom.Dataset) -> None:
    """Refuse what cannot be shown, before memory is taken for it."""
    if missing := [name for name in NEEDED if header.get(name) in (None, "", b"")]:
        raise UnreadableImage(f"DICOM without {', '.join(missing)}")
    if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
        raise UnreadableImage(f"DICOM of {frames} frames, not of one image")
    if header.BitsAllocated not in (8, 16) or not 0 < header.BitsStored <= header.BitsAllocated:
        raise UnreadableImage(f"DICOM with {header.BitsStored} of {header.BitsAllocated} bits: up to 16 are read")
    samples, kind = header.SamplesPerPixel, header.PhotometricInterpretation
    if samples not in (1, 3) or (samples == 1) != (kind in _ONE_SAMPLE):
        raise UnreadableImage(f"DICOM with {samples} samples of {str(kind)[:16]!r}")
    _check_size(header.Rows, header.Columns)
    _check_syntax(header)
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_frame(header)


def _check_size(rows: int, columns: int) -> None:
    if min(rows, columns) < SMALLEST_SIDE:
        raise UnreadableImage(f"only {columns} x {rows} pixels")
    if rows * columns > Image.MAX_IMAGE_PIXELS:
        raise UnreadableImage("more than 89 million pixels")


def _check_syntax(header: pydicom.Dataset) -> None:
    syntax = header.file_meta.TransferSyntaxUID
    if syntax == JPEGExtended12Bit and header.BitsStored > 8:
        raise UnreadableImage("DICOM in lossy JPEG of 12 bits, which is not read: rewrite it uncompressed")
    if syntax not in (*_RAW_BITS, *_BY_PILLOW, *_BY_GDCM):
        raise UnreadableImage(f"DICOM written as {syntax.name[:64]}, which is not read: rewrite it uncompressed")


def _check_frame(header: pydicom.Dataset) -> None:
    """Hold the size in the compressed frame against the tags: decoders take memory for the one or the other."""
    _check_fragments(header.PixelData)
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    told = (header.Rows, header.Columns, header.SamplesPerPixel)
    if header.file_meta.TransferSyntaxUID == RLELossless:
        if len(frame) > 2 * np.prod(told) * header.BitsAllocated // 8 + 64:  # its worst case is 129 bytes for 128
            raise UnreadableImage("damaged DICOM: its run lengths are longer than its pixels")
        _check_runs(frame, header.Rows * header.Columns)
    elif (found := _size_in(frame)) != told:
        raise UnreadableImage(f"damaged DICOM: {told} rows, columns and samples in its tags, {found} in its pixels")


def _check_fragments(value: bytes) -> None:
    """A fragment of nothing has 8 bytes and takes 100 to tell where it lies."""
    at = fragments = 0
    while at + 8 <= len(value) and fragments <= MOST_FRAGMENTS:
        at, fragments = at + 8 + struct.unpack_from("<I", value, at + 4)[0], fragments + 1
    if fragments > MOST_FRAGMENTS:
        raise UnreadableImage(f"damaged DICOM: one image in more than {MOST_FRAGMENTS:,} pieces")


def _check_runs(frame: bytes, pixels: int) -> None:
    """Two bytes may stand for 128: a segment holds one byte of each pixel, and perhaps a few to fill it up."""
    count = struct.unpack_from("<I", frame)[0]
    starts = struct.unpack_from("<15I", frame, 4)[:count]
    for start, end in pairwise([*starts, len(frame)]):
        if _unfolded(frame[start:end]) > pixels + _FILLED_UP:
            raise UnreadableImage("damaged DICOM: its runs unfold to more than its pixels")


def _unfolded(segment: bytes) -> int:
    """How many bytes the runs of a segment stand for (DICOM PS3.5 G.3.1).

    >>> _unfolded(bytes([2, 7, 8, 9, 128, 129, 5]))
    131
    """
    at = length = 0
    while at < len(segment):
        head = segment[at]
        if head < 128:
            at, length = at + head + 2, length + head + 1
        elif head > 128:
            at, length = at + 2, length + 257 - head
        else:
            at += 1
    return length


def _size_in(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and samples as a JPEG, JPEG-LS or JPEG 2000 frame states them; None where it states nothing."""
    if (start := frame.find(b"\xff\x4f\xff\x51", 0, 4096)) >= 0:  # ISO/IEC 15444-1 A.5.1
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return bottom - top, right - left, struct.unpack_from(">H", frame, start + 40)[0]
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:  # ISO/IEC 10918-1 B.2.2
        marker, length = struct.unpack_from(">BH", frame, at + 1)
        if marker in (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7):
            return struct.unpack_from(">HHB", frame, at + 5)
        at += 2 + length
    return None


def _pixels(header: pydicom.Dataset) -> Num[np.ndarray, "H W"]:
    """The stored numbers in the byte order of this machine; the luma of colour."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _RAW_BITS:
        pixels = pixel_array(header, view_only=True, correct_unused_bits=False)
    elif syntax in _BY_PILLOW:
        pixels = pixel_array(header, decoding_plugin="pillow")
    else:
        library("gdcm")
        room = 2 * header.Rows * header.Columns * header.SamplesPerPixel
        pixels = array_apart(lambda: pixel_array(header, decoding_plugin="gdcm"), room)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if pixels.ndim == 3:
        pixels = (pixels @ _LUMA).round().astype(pixels.dtype)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _stored(pixels: Num[np.ndarray, "H W"], header: pydicom.Dataset) -> _Stored:
    codes = pixels.view(f"u{pixels.itemsize}")
    numbers = np.arange(256**pixels.itemsize).astype(codes.dtype).view(pixels.dtype)
    if header.file_meta.TransferSyntaxUID in _RAW_BITS:
        numbers = _used_bits(numbers, header)
    return _Stored(codes, numbers, np.bincount(codes.ravel(), minlength=len(numbers)))


def _used_bits(numbers: Integer[np.ndarray, "K"], header: pydicom.Dataset) -> Integer[np.ndarray, "K"]:
    """The bits from HighBit down, sign and all: those beside them may hold an overlay or anything else."""
    highest = header.get("HighBit") or 0
    if not header.BitsStored <= highest + 1 <= header.BitsAllocated:
        highest = header.BitsStored - 1
    return numbers << (header.BitsAllocated - 1 - highest) >> (header.BitsAllocated - header.BitsStored)


def _windowed(stored: _Stored, header: pydicom.Dataset) -> Integer[np.ndarray, "K"]:
    """The gray level of every number as the file asks for it, in 8 or 16 bits."""
    padding = _padding(stored.numbers, header)
    light = _light(stored.numbers, np.where(padding, 0, stored.counts), header)
    if header.PhotometricInterpretation == "MONOCHROME1":
        light = 1 - light
    light = np.where(padding, 0, light.clip(0, 1))
    depth = np.uint16 if header.BitsStored > 8 else np.uint8
    return np.rint(light * np.iinfo(depth).max).astype(depth)


def _padding(numbers: Integer[np.ndarray, "K"], header: pydicom.Dataset) -> Bool[np.ndarray, "K"]:
    """Which numbers stand for no measurement (DICOM PS3.3 C.7.5.1.1.2)."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(len(numbers), bool)
    limit = header.get("PixelPaddingRangeLimit")
    codes = [int(end) % len(numbers) for end in (value, value if limit is None else limit)]  # some lose their sign
    low, high = np.sort(np.array(codes).astype(f"u{numbers.itemsize}").view(numbers.dtype))
    return (low <= numbers) & (numbers <= high)


def _light(
    numbers: Integer[np.ndarray, "K"], counts: Integer[np.ndarray, "K"], header: pydicom.Dataset
) -> Float64[np.ndarray, "K"]:
    """What every number shows, from 0 to 1 and perhaps beyond; `counts` tells which are there."""
    if header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        return numbers / (2**header.BitsStored - 1)
    values = np.asarray(apply_modality_lut(numbers, header), np.float64)
    if not np.isfinite(values).all():
        raise UnreadableImage("damaged DICOM: its rescaling gives no numbers")
    if header.get("VOILUTSequence"):
        bits = header.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi(np.rint(values).astype(np.int64), header) / (2**bits - 1)
    center, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is not None and width:
        return windowed(values, center, width, header.get("VOILUTFunction") or "LINEAR")
    return _whole_range(values, counts)


def _first(value: Any) -> float | None:
    """A number, or the first of several; None where there is none."""
    values = np.atleast_1d([] if value in (None, "") else value).astype(float)
    return float(values[0]) if len(values) else None


def windowed(
    values: Float64[np.ndarray, "*n"], center: float, width: float, function: str
) -> Float64[np.ndarray, "*n"]:
    """A window by DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, `function` LINEAR, LINEAR_EXACT or SIGMOID; clip to [0, 1].

    >>> windowed(np.array([0.0, 127.5, 255.0]), 128.0, 256.0, "LINEAR").tolist()
    [0.0, 0.5, 1.0]
    >>> windowed(np.array([0.0, 128.0, 256.0]), 128.0, 256.0, "LINEAR_EXACT").tolist()
    [0.0, 0.5, 1.0]
    """
    if function == "SIGMOID":
        return (1 + np.tanh(2 * (values - center) / width)) / 2  # 1 / (1 + exp(-4 ...)), which cannot overflow
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    return (values - center + 0.5) / max(width - 1, 1e-9) + 0.5  # a width of 1 is a step


def _whole_range(values: Float64[np.ndarray, "K"], counts: Integer[np.ndarray, "K"]) -> Float64[np.ndarray, "K"]:
    there = values[counts > 0]
    if not there.size or there.min() == there.max():
        return np.zeros_like(values)
    return (values - there.min()) / (there.max() - there.min())


def _equalised(stored: _Stored, header: pydicom.Dataset) -> UInt8[np.ndarray, "K"]:
    """The gray level of every number by the procedure of MIMIC-CXR-JPG."""
    light = _whole_range(stored.numbers.astype(np.float64), stored.counts)
    gray = (light.clip(0, 1) * 255).astype(np.uint8)  # cut off, as theirs is
    if header.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    return equalisation(np.bincount(gray, stored.counts, 256).astype(np.int64))[gray]


def equalisation(histogram: Int[np.ndarray, "256"]) -> UInt8[np.ndarray, "256"]:
    """The gray level that each becomes, such that all are about equally common, as OpenCV's `equalizeHist` has it.

    >>> equalisation(np.array([0, 2, 1, 1] + 252 * [0]))[:5].tolist()
    [0, 0, 128, 255, 255]
    """
    darkest = np.flatnonzero(histogram)[0]
    above = np.cumsum(histogram) - histogram[: darkest + 1].sum()
    if not above[-1]:  # one gray level alone
        return np.arange(256, dtype=np.uint8)
    return np.rint(above.clip(0).astype(np.float32) * np.float32(255 / above[-1])).astype(np.uint8)


def pixel_mm(header: pydicom.Dataset) -> tuple[float, float] | None:
    """Height and width of a pixel in mm, at the patient where the file says how much it magnifies; None if unknown."""
    spacing, magnification = header.get("PixelSpacing"), 1.0
    if not spacing:
        spacing = header.get("ImagerPixelSpacing")
        magnification = _first(header.get("EstimatedRadiographicMagnificationFactor")) or 1.0
    if not spacing or len(spacing) != 2:
        return None
    row, column = (float(side) / magnification for side in spacing)
    return (row, column) if 0 < row < math.inf and 0 < column < math.inf else None
