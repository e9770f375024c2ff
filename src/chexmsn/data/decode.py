"""From a JPEG, PNG or DICOM file to a square of gray pixels."""

import io
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import simplejpeg
from jaxtyping import Num, UInt8, UInt16
from PIL import Image

from chexmsn.core.errors import UserError
from chexmsn.data.dicom import Rendering, decode_dicom, is_dicom
from chexmsn.data.image import SMALLEST_SIDE, Decoded, Gray, UnreadableImage

_Levels = UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]

Fit = Literal["crop", "stretch", "pad", "medfuse"]

Square = UInt8[np.ndarray, "S S"] | UInt16[np.ndarray, "S S"]
"""The same for an image as wide as high."""

LARGEST_FILE = 1 << 30
"""Bytes. 89 million pixels of 16 bits, the most that is decoded, take a sixth of it uncompressed."""

MOST_SCANS = 500
"""More than this in a progressive JPEG is made to take forever (libjpeg-turbo's own limit in its fuzz targets)."""

MEDFUSE_WIDTH = 512

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error)  # what Pillow raises for broken files
_TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)  # more than 89 million pixels
_ORIENTATION_TAG = 0x112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation: how the stored image must be turned to stand upright


def decode(path: Path, enough: int, rendering: Rendering = "window") -> Decoded:
    """Read a JPEG, PNG or DICOM file, known by its content and not its name, as upright gray.

    A JPEG much larger than needed is decoded at an eighth to half of its size, yet with at least `enough`
    pixels along both sides. Colour becomes luma (ITU-R 601), alpha is dropped. More than 8 bits stay
    16, scaled from the image's own range to 0 ... 65535 (as the makers of MIMIC-CXR-JPG did with DICOM, to 255).
    `rendering` is how DICOM is shown.

    Pillow reads PNG of 16-bit colour, or of 16-bit gray with alpha, as 8 bits.

    Raises UnreadableImage for what is missing, empty, truncated, no image, or absurdly large or small.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            content = _content(path)
            return decode_dicom(content, rendering) if is_dicom(content) else _decode(content, enough)
        except _TOO_LARGE as error:
            raise UnreadableImage("more than 89 million pixels") from error
        except Image.UnidentifiedImageError as error:
            raise UnreadableImage(_unidentified(content[:4])) from error
        except _BROKEN as error:
            raise UnreadableImage(getattr(error, "strerror", None) or str(error)) from error


def _content(path: Path) -> bytes:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, a device has no end
        raise UnreadableImage("no file")
    if not about.st_size:
        raise UnreadableImage("empty file")
    if about.st_size > LARGEST_FILE:
        raise UnreadableImage(f"a file of {about.st_size / 1e9:.1f} GB")
    return path.read_bytes()


def _unidentified(start: bytes) -> str:
    """Why Pillow does not know what begins like this."""
    if start.startswith(b"\xff\xd8"):
        return "a JPEG whose head is damaged, or of 12 bits, which are not read"
    return "a PNG whose head is damaged" if start == b"\x89PNG" else "neither JPEG, PNG nor DICOM"


def _decode(content: bytes, enough: int) -> Decoded:
    image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
    if min(image.size) < SMALLEST_SIDE:
        raise UnreadableImage(f"only {image.width} x {image.height} pixels")
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG))
    sideways = turn is not None and image.getexif()[_ORIENTATION_TAG] >= 5
    stored = image.size if sideways else image.size[::-1]
    if image.format != "PNG":
        _refuse_endless(image, content)
    gray = _jpeg_to_gray(content, enough) if _is_plain_jpeg(image) else _to_gray(image)
    upright = gray if turn is None else np.asarray(Image.fromarray(gray).transpose(turn))
    return Decoded(upright, stored, alpha=image.has_transparency_data)


def _is_plain_jpeg(image: Image.Image) -> bool:
    return image.format != "PNG" and image.mode in ("L", "RGB")  # simplejpeg does not turn CMYK into gray


def _refuse_endless(image: Image.Image, content: bytes) -> None:
    """Of a gray image that is not progressive one scan is read, and counting takes a tenth of the time of decoding."""
    if ("progressive" in image.info or image.mode != "L") and content.count(b"\xff\xda") > MOST_SCANS:
        raise UnreadableImage(f"a JPEG of more than {MOST_SCANS} scans")


def _jpeg_to_gray(content: bytes, enough: int) -> UInt8[np.ndarray, "H W"]:
    return simplejpeg.decode_jpeg(content, "GRAY", min_height=enough, min_width=enough, min_factor=2)[:, :, 0]


def _to_gray(image: Image.Image) -> Gray:
    if image.mode.startswith("I"):
        return _full_range(np.asarray(image))
    if image.mode == "P":  # a palette may hide transparency
        image = image.convert("RGBA")
    return np.asarray(image.convert("L"))


def _full_range(pixels: Num[np.ndarray, "H W"]) -> UInt16[np.ndarray, "H W"]:
    low, high = float(pixels.min()), float(pixels.max())
    scaled = pixels.astype(np.float32)  # exact for 16 bits; in place from here, for a film may have 89 million pixels
    scaled -= low
    scaled *= 65535 / max(high - low, 1.0)
    return np.rint(scaled, out=scaled).astype(np.uint16)


def to_depth(pixels: _Levels, dtype: np.dtype) -> _Levels:
    """The same image, or images, in 8 or 16 bits: white stays white, so that 255 and 65535 stand for each other.

    >>> to_depth(np.array([[0, 1, 255]], np.uint8), np.dtype(np.uint16)).tolist()
    [[0, 257, 65535]]
    >>> to_depth(np.array([[128, 129, 65535]], np.uint16), np.dtype(np.uint8)).tolist()
    [[0, 1, 255]]
    """
    if pixels.dtype == dtype:
        return pixels
    if dtype == np.uint16:
        return pixels * np.uint16(257)
    return ((pixels + np.uint32(128)) // 257).astype(np.uint8)


def check_fit(fit: str) -> None:
    """Raise UserError for a fit that is not offered."""
    if fit not in get_args(Fit):
        raise UserError(f"fit must be one of {', '.join(get_args(Fit))}, not {fit!r}")


def enough_for(size: int, fit: Fit) -> int:
    """How many pixels along both sides a decoder must keep for a square of `size`.

    A seventh part more than the square has: a square of 256 px made of a radiograph of 2544 x 3056 px decoded at an
    eighth differs from that of a full decode by 0.3 gray levels in the mean (benchmarks/prepare_speed.py).
    `medfuse` needs every pixel, as its makers' program did.
    """
    return 1 << 16 if fit == "medfuse" else -(-8 * size // 7)


def fit_square(pixels: Gray, size: int, fit: Fit) -> Square:
    """A size x size image of the same depth, resized with an antialiased triangle filter (torchvision's default).

    `crop`: the centre square, `stretch`: both sides to `size`, `pad`: the whole image on black, `medfuse`: the centre
    square of what `medfuse_resize` makes of it (8 bits).

    >>> fit_square(np.full((20, 40), 9, np.uint8), 16, "pad")[[0, 8]].max(axis=1).tolist()
    [0, 9]
    """
    if fit == "medfuse":
        return fit_square(medfuse_resize(pixels), size, "crop")
    image = Image.fromarray(pixels)
    if fit == "pad":
        return _pad(image, size)
    box = _centre_square(image) if fit == "crop" else None
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def medfuse_resize(pixels: Gray) -> UInt8[np.ndarray, "h 512"]:
    """What MedFuse's resize.py makes of a radiograph (nyuad-cai/MedFuse): 512 px wide, its shape kept, a new JPEG.

    It names neither filter nor quality, so they are Pillow's defaults: bicubic, 75. The height is cut, not rounded.
    """
    image = Image.fromarray(to_depth(pixels, np.dtype(np.uint8)))
    height = max(1, int(image.height * (MEDFUSE_WIDTH / image.width)))
    coded = io.BytesIO()
    image.resize((MEDFUSE_WIDTH, height), Image.Resampling.BICUBIC).save(coded, "JPEG", quality=75)
    return np.asarray(Image.open(coded))


def _centre_square(image: Image.Image) -> tuple[float, float, float, float]:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return left, top, left + side, top + side


def _pad(image: Image.Image, size: int) -> Square:
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new(image.mode, (size, size))
    square.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


def shrinkage(stored: tuple[int, int], size: int, fit: Fit) -> tuple[float, float]:
    """How many stored pixels one pixel of the square spans, along rows and columns.

    >>> shrinkage((512, 1024), 256, "crop"), shrinkage((512, 1024), 256, "stretch")
    ((2.0, 2.0), (2.0, 4.0))
    """
    rows, columns = stored
    if fit == "stretch":
        return rows / size, columns / size
    side = max(stored) if fit == "pad" else min(stored)
    return side / size, side / size
