"""Defocus: convolution with a disk, what a lens out of focus makes of a point.

Cause: a film or screen photographed out of focus.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), as `bethgelab/imagecorruptions` implements it:
the disk is smoothed a little and the image mirrored about its edge pixels.
Level: radius in pixels; between whole radii the two disks are mixed. No radius may exceed that of severity 5. At
224 px, a pixel of a 430 mm field is 1.9 mm wide: severity 1 spreads a point over 13 mm, severity 5 over 40 mm.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.bands import filter_images, gaussian_bands
from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._convolution import correlate
from chexmsn.corruptions._severity import distinct, interpolated

TITLE = "Defocus"
CAUSE = "films and screens photographed out of focus"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "radius in pixels"
LEVELS = (3.0, 4.0, 6.0, 8.0, 10.0)
IDENTITY = 0.0
_SMOOTHING = (0.0, 0.1, 0.5, 0.5, 0.5, 0.5)  # standard deviation in pixels at severities 0 to 5
_REACH = 12  # the largest disk, and two pixels for its smoothing


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blur by a disk of radius `level`. Nothing is drawn."""
    level = distinct(level)
    whole = level.floor()
    blends = torch.lerp(disks(whole, _REACH), disks(whole + 1, _REACH), (level - whole)[:, None, None])
    smoothing = interpolated(level, (IDENTITY, *LEVELS), _SMOOTHING)
    bands = gaussian_bands(smoothing, side=2 * _REACH + 1, largest=max(_SMOOTHING))
    return correlate(images, filter_images(bands, blends[:, None], bands)[:, 0], (_REACH, _REACH), "mirror")


def disks(radius: Float[Tensor, "B"], reach: int) -> Float[Tensor, "B K K"]:
    """Disks of 2 `reach` + 1 pixels a side, each of sum 1."""
    tap = torch.arange(-reach, reach + 1, device=radius.device)
    inside = tap**2 + tap[:, None] ** 2 <= radius[:, None, None] ** 2
    return inside / inside.sum(dim=(1, 2), keepdim=True)
