"""Filters that are no product of a row and a column, each image with its own, by Fourier transform."""

from itertools import count, repeat
from math import ceil
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from chexmsn.core.shapes import Images

Border = Literal["nearest", "mirror"]
"""What lies beyond an image: its edge pixels repeated, or the image mirrored about them (they are not repeated)."""


def correlate(
    images: Images, kernels: Float[Tensor, "R K L"], origin: tuple[int, int], border: Border
) -> Float[Tensor, "B 1 H W"]:
    """Weigh the neighbours of each pixel: out(y, x) = sum of kernel(k, l) image(y + k - origin 0, x + l - origin 1).

    Each image has its kernel (R = B) or all have one (R = 1). Weights that are not negative and sum to 1 keep values
    in [0, 1], to which rounding errors are cut.
    """
    taps = kernels.shape[1:]
    size = [_fast_length(side + tap - 1) for side, tap in zip(images.shape[2:], taps, strict=True)]
    axes = zip(images.shape[2:], taps, origin, strict=True)
    rows, columns = (_positions(*axis, border).to(images.device) for axis in axes)
    # On a CPU one image after the other: a batch leaves the cache, and takes two to three times as long.
    at_once = 1 if images.device.type == "cpu" else len(images)
    spectra = (torch.fft.rfft2(part, s=size).conj() for part in kernels.split(at_once))
    if len(kernels) == 1:
        spectra = repeat(next(spectra))
    height, width = images.shape[2:]
    filtered = []
    for part, spectrum in zip(images[:, 0].split(at_once), spectra, strict=False):
        padded = part.index_select(1, rows).index_select(2, columns)
        product = torch.fft.rfft2(padded, s=size).mul_(spectrum)
        filtered.append(torch.fft.irfft2(product, s=size)[:, :height, :width].clamp(0.0, 1.0))
    return torch.cat(filtered).unsqueeze(1)


def _positions(side: int, taps: int, origin: int, border: Border) -> Int64[Tensor, "n"]:
    """Which pixels of an axis a kernel meets, from where it first touches the image to where it leaves it."""
    position = torch.arange(-origin, side + taps - 1 - origin)
    return position.clamp(0, side - 1) if border == "nearest" else _mirrored(position, side)


def _mirrored(position: Int64[Tensor, "n"], side: int) -> Int64[Tensor, "n"]:
    period = max(2 * (side - 1), 1)
    return side - 1 - (position % period - (side - 1)).abs()


def _fast_length(side: int) -> int:
    """The next multiple of 32 without a prime factor above 5: 248 = 8 x 31 takes four times as long as 256."""
    return next(length for length in count(32 * ceil(side / 32), 32) if 2**20 * 3**12 * 5**9 % length == 0)
