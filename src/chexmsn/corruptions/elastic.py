"""Elastic deformation: every pixel is fetched from a little aside, near ones from much the same direction.

Cause: curved films and screens, lenses; stands for differences of build and breath that a model should not care
about.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), as `bethgelab/imagecorruptions` implements it:
displacements drawn uniformly within 0.5 % of the height, smoothed by a Gaussian of 1 % of the side, times the
level; bilinear, and the image mirrored at its edges. Here the smoothing repeats the outermost displacements and is
cut at 4 standard deviations, not 3.
Level: the factor. At 224 px and severity 5 a pixel moves by 2.4 pixels in the root mean square along each axis, 5
mm of a 430 mm field; it moves the smaller a share of the image, the larger the image is.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chexmsn.core.bands import gaussian_bands
from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Elastic deformation"
CAUSE = "curved films and screens, lenses, build and breath"
SOURCE = "ImageNet-C (extra), Hendrycks & Dietterich 2019, arXiv 1903.12261; imagecorruptions' version"
FAMILY = "imagenet-c"
UNIT = "factor of the smoothed displacement"
LEVELS = (12.5, 16.25, 21.25, 25.0, 30.0)
IDENTITY = 0.0
_SMOOTHING = 0.01
_LARGEST = 0.005


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Fetch each pixel from a place that `level` moves away."""
    height, width = images.shape[2:]
    drawn = (2 * draws.uniform_field((2, height, width)) - 1) * (_LARGEST * height)
    down, right = (_smooth(field) * level[:, None, None] for field in drawn.unbind(1))
    row, column = (torch.arange(side, device=images.device) for side in (height, width))
    # grid_sample counts from -1 at the image's left edge to 1 at its right edge, columns first.
    grid = torch.stack([(column + right + 0.5) * (2 / width), (row[:, None] + down + 0.5) * (2 / height)], dim=3) - 1
    fetched = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return fetched.clamp_(0.0, 1.0)


def _smooth(field: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    rows, columns = (
        gaussian_bands(field.new_full((1,), _SMOOTHING * side), side=side, largest=_SMOOTHING * side)
        for side in field.shape[1:]
    )
    return rows @ field @ columns.mT
