"""The detector's signal behind a displayed radiograph.

A display value v in [0, 1] (white = little reached the detector) stands for an exposure E(v) = exp(-D v), relative to
that of black; D is the logarithm of the range of exposures shown. What happens before the logarithm (quanta, read-out
noise, scatter, a grid) is simulated there. Vendors' later processing is not undone: no collection says what it was.
"""

import math

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.shapes import Images

RANGE = math.log(100)
"""D: two decades of exposure between black and white (general knowledge of chest radiography)."""


def exposure_of(images: Images) -> Float[Tensor, "B 1 H W"]:
    """The exposure behind each pixel, from 1 at black to 0.01 at white."""
    return images.mul(-RANGE).exp_()


def displayed(exposure: Float[Tensor, "B 1 H W"]) -> Images:
    """The display value of each exposure; more than black's is black, less than white's is white.

    >>> import torch
    >>> displayed(exposure_of(torch.full((1, 1, 1, 1), 0.25))).item()
    0.25
    """
    return exposure.clamp(min=math.exp(-RANGE)).log_().div_(-RANGE).clamp_(0.0, 1.0)
