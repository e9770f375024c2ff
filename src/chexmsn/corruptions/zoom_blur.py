"""Zoom blur: the mean of the image and of its enlargements.

Cause: a camera moved towards a film or screen while the shutter is open.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), as `bethgelab/imagecorruptions` implements it:
the corners of the central part are moved to those of the image (bilinear), and the image counts twice. Its
enlargements are 12 up to 1.11 and 16 up to 1.15 in steps of 0.01, 11 up to 1.20 and 13 up to 1.24 in steps of 0.02,
11 up to 1.30 in steps of 0.03.
Level: the largest enlargement less 1; between those of the severities their blurs are mixed. At 224 px, severity 5
moves the middle of an edge by 26 pixels, 50 mm of a 430 mm field; it is the same share of the image at any size.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._severity import interpolated

TITLE = "Zoom blur"
CAUSE = "a camera that moves towards a film or screen"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "largest enlargement less 1"
LEVELS = (0.11, 0.15, 0.2, 0.24, 0.3)
IDENTITY = 0.0
_PERCENT = (range(1), range(0, 12), range(0, 16), range(0, 21, 2), range(0, 25, 2), range(0, 31, 3))


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Average over enlargements up to `level`. Nothing is drawn."""
    blurred = torch.zeros_like(images)
    for percent, weights in _weights().items():
        weight = interpolated(level, (IDENTITY, *LEVELS), weights)
        blurred.addcmul_(weight[:, None, None, None], _enlarged(images, 1 + percent / 100))
    return blurred.clamp_(0.0, 1.0)


@cache
def _weights() -> dict[int, tuple[float, ...]]:
    """What each enlargement, in percent, weighs at severities 0 to 5."""
    percents = sorted({percent for steps in _PERCENT for percent in steps})
    return {p: tuple(((p in steps) + (p == 0)) / (len(steps) + 1) for steps in _PERCENT) for p in percents}


def _enlarged(images: Images, factor: float) -> Images:
    """The central part, enlarged: its first pixel stays in the corner, and what is too much at the far ends is cut."""
    height, width = images.shape[2:]
    part = [math.ceil(side / factor) for side in (height, width)]
    top, left = ((side - inner) // 2 for side, inner in zip((height, width), part, strict=True))
    central = images[:, :, top : top + part[0], left : left + part[1]]
    size = [max(round(inner * factor), side) for side, inner in zip((height, width), part, strict=True)]
    enlarged = functional.interpolate(central, size=size, mode="bilinear", align_corners=True)
    return enlarged[:, :, :height, :width]
