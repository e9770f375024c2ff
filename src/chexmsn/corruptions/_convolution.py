"""Filters that are no product of a row and a column, each image with its own, by Fourier transform."""

from itertools import count
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from chexmsn.core.shapes import Images

Border = Literal["nearest", "mirror"]
"""What lies beyond an image: its edge pixels repeated, or the image mirrored about them (they are not repeated)."""


def correlate(
    images: Images, kernels: Float[Tensor, "B K L"], origin: tuple[int, int], border: Border
) -> Float[Tensor, "B 1 H W"]:
    """Weigh the neighbours of each pixel: out(y, x) = sum of kernel(k, l) image(y + k - origin 0, x + l - origin 1).

    Weights that are not negative and sum to 1 keep values in [0, 1], to which rounding errors are cut.
    """
    padded = _padded(_padded(images, kernels.shape[1], origin[0], 2, border), kernels.shape[2], origin[1], 3, border)
    size = [_fast_length(side) for side in padded.shape[2:]]
    # On a CPU one image after the other: a batch leaves the cache, and takes two to three times as long.
    at_once = 1 if images.device.type == "cpu" else len(images)
    parts = zip(padded[:, 0].split(at_once), kernels.split(at_once), strict=True)
    filtered = [_product(image, kernel, size) for image, kernel in parts]
    height, width = images.shape[2:]
    return torch.cat(filtered)[:, None, :height, :width].clamp(0.0, 1.0)


def _product(
    images: Float[Tensor, "B P Q"], kernels: Float[Tensor, "B K L"], size: list[int]
) -> Float[Tensor, "B M N"]:
    spectrum = torch.fft.rfft2(images, s=size).mul_(torch.fft.rfft2(kernels, s=size).conj())
    return torch.fft.irfft2(spectrum, s=size)


def _padded(images: Float[Tensor, "B 1 P Q"], taps: int, origin: int, axis: int, border: Border) -> Tensor:
    side = images.shape[axis]
    position = torch.arange(-origin, side + taps - 1 - origin, device=images.device)
    return images.index_select(axis, position.clamp(0, side - 1) if border == "nearest" else _mirrored(position, side))


def _mirrored(position: Int64[Tensor, "n"], side: int) -> Int64[Tensor, "n"]:
    period = max(2 * (side - 1), 1)
    return side - 1 - (position % period - (side - 1)).abs()


def _fast_length(side: int) -> int:
    """The next length without a prime factor above 5: 248 = 8 x 31 takes three times as long as 250."""
    return next(length for length in count(side) if 2**20 * 3**12 * 5**9 % length == 0)
