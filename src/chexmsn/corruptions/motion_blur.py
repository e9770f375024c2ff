"""Motion blur: a weighted mean along a line, as if the picture had slipped to one side.

Cause: a hand-held photograph of a film or screen. A patient's breath is another corruption, in mm.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), as `bethgelab/imagecorruptions` implements it
(not as the original's ImageMagick): half a Gaussian from the pixel onwards, so the image shifts too; offsets are
whole pixels.
Level: standard deviation in pixels along the line; its reach of 2 r + 1 pixels, r = 10, 15, 15, 15, 20, is
interpolated as the level is, and the pixel at its end counts in part. No level may exceed that of severity 5. At
224 px, a pixel of a 430 mm field is 1.9 mm wide: severity 1 slips over some 40 mm.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._convolution import correlate
from chexmsn.corruptions._severity import interpolated

TITLE = "Motion blur"
CAUSE = "hand-held photographs of films and screens"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261; imagecorruptions' version"
FAMILY = "imagenet-c"
UNIT = "standard deviation in pixels"
LEVELS = (3.0, 5.0, 8.0, 12.0, 15.0)
IDENTITY = 0.0
_RADIUS = (0.0, 10.0, 15.0, 15.0, 15.0, 20.0)  # at severities 0 to 5
_TAPS = 41
_RISE = 29  # pixels that the longest line rises at the steepest angle


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blur by `level` pixels along a direction drawn between -45 and 45 degrees of the rows."""
    return slip(images, level, (draws.uniform(1)[:, 0] - 0.5) * (math.pi / 2))


def slip(images: Images, level: Float[Tensor, "B"], angle: Float[Tensor, "B"]) -> Images:
    """Blur along a direction of one's own choice, in radians between -pi/4 and pi/4, positive downwards."""
    tap = torch.arange(_TAPS, device=level.device)
    reach = 2 * interpolated(level, (IDENTITY, *LEVELS), _RADIUS) + 1
    weight = torch.exp(-0.5 * (tap / level.clamp(min=1e-6)[:, None]) ** 2) * (reach[:, None] - tap).clamp(0.0, 1.0)
    row, column = ((tap * step[:, None] - 0.5).ceil().long() for step in (angle.sin(), angle.cos()))
    kernels = weight.new_zeros(len(level), (2 * _RISE + 1) * _TAPS)
    kernels.scatter_add_(1, (row + _RISE) * _TAPS + column, weight / weight.sum(dim=1, keepdim=True))
    return correlate(images, kernels.view(-1, 2 * _RISE + 1, _TAPS), (_RISE, 0), "nearest")
