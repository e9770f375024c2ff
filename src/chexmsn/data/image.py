"""What reading an image gives: gray pixels, or the reason why there are none."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16

Gray = UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"]
"""An image of one channel; black is 0, and white the largest number that its kind holds: 255 or 65535."""

SMALLEST_SIDE = 16
"""Fewer pixels than this along a side is an icon, not a radiograph."""


LONGEST_REASON = 300
"""Characters. A damaged file may have anything in place of a number, and reasons quote numbers."""


class UnreadableImage(Exception):
    """A file that does not hold a usable image; the message is the reason, on one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split())[:LONGEST_REASON])


class Decoded(NamedTuple):
    """A gray image, the rows and columns of the file before it was decoded at a smaller scale, where the file says so
    the height and width in mm of a stored pixel, and whether the file held transparency, which is dropped."""

    pixels: Gray
    stored: tuple[int, int]
    pixel_mm: tuple[float, float] | None = None
    alpha: bool = False

    @classmethod
    def whole(cls, pixels: Gray) -> "Decoded":
        """An image that was not scaled."""
        return cls(pixels, pixels.shape)
