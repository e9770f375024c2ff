"""A Gaussian for sampled images, whose standard deviation may be far below a pixel."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.bands import filter_images


def diffused(images: Float[Tensor, "B 1 H W"], sigma: Float[Tensor, "B"]) -> Float[Tensor, "B 1 H W"]:
    """Blur each image by a standard deviation of `sigma` pixels; 0 leaves it as it is.

    What diffusion between neighbouring pixels makes of the image in time sigma ** 2 / 2, nothing passing its border
    (Lindeberg 1990, Scale-space for discrete signals). The variance is sigma ** 2 at any sigma, where samples of a
    narrow Gaussian would have none; the image counts as mirrored beyond its border, and its sum stays.
    """
    bands = {side: _bands(sigma, side) for side in set(images.shape[2:])}
    rows, columns = (bands[side] for side in images.shape[2:])
    return filter_images(rows, images, columns).clamp_(0.0, 1.0)


def _bands(sigma: Float[Tensor, "B"], side: int) -> Float[Tensor, "B side side"]:
    """Matrices that diffuse along an axis, from the cosines that diffusion only makes weaker."""
    number = torch.arange(side, device=sigma.device, dtype=torch.float64)  # autocast leaves doubles alone
    cosines = (math.pi / side * (number[:, None] + 0.5) * number).cos() * math.sqrt(2 / side)
    cosines[:, 0] = math.sqrt(1 / side)
    weaker = (-sigma.double().square()[:, None] * (1 - (math.pi / side * number).cos())).exp()
    return ((cosines * weaker[:, None]) @ cosines.mT).float()
