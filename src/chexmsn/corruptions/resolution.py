"""Loss of resolution: averages over the cells of a coarser grid, and lines drawn between them.

Cause: thumbnails, tele-radiology over thin lines, networks trained on small images.
Source: mean AUROC of 14 findings 0.842 at 1024 px against 0.827 at 256 px (arXiv 2306.06051, abstract read); some
findings are better at low resolution (Haque et al. 2021, abstract read). Ladder: ours. ImageNet-C's `pixelate` shows
squares.
Level: pixels left per pixel along a side, rounded to a whole number of them. At 224 px, they are 128, 96, 64, 48 and
32 pixels; those of severity 5 are 13 mm wide in a 430 mm field.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.bands import filter_images
from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._coverage import covered

TITLE = "Loss of resolution"
CAUSE = "thumbnails, tele-radiology"
SOURCE = "arXiv 2306.06051 (abstract read); ladder ours"
FAMILY = "radiographic"
UNIT = "pixels left per pixel along a side"
LEVELS = (128 / 224, 96 / 224, 64 / 224, 48 / 224, 32 / 224)
IDENTITY = 1.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Average to `level` times as many pixels per side, and back. Nothing is drawn."""
    (down, up), (left, right) = (_cells(level, side) for side in images.shape[2:])
    return filter_images(up, filter_images(down, images, left), right).clamp_(0.0, 1.0)


def _cells(level: Float[Tensor, "B"], side: int) -> tuple[Float[Tensor, "B side side"], Float[Tensor, "B side side"]]:
    """Matrices that average an axis to fewer cells, and that interpolate linearly between their centres."""
    count = (level.double() * side).round().clamp(min=1.0)[:, None]
    pixel = torch.arange(side, device=level.device)
    start = pixel * (side / count)  # of the cells; those beyond the last begin where the axis ends
    means = covered(start, start + side / count, side) * (count / side)[:, None]
    place = torch.minimum(((pixel + 0.5) * (count / side) - 0.5).clamp(min=0.0), count - 1)
    between = (1 - (place[:, :, None] - pixel).abs()).clamp(min=0.0)
    return means.float(), between.float()
