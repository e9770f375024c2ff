"""Pixelation: averages over the cells of a coarser grid, shown as squares.

Cause: thumbnails and previews taken for the image, tele-radiology over thin lines.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`: Pillow's box filter
down, nearest neighbour up. MedMNIST-C's scales 0.3, 0.25, 0.2, 0.15, 0.1 are valid levels here.
Level: cells per pixel along a side, cut to a whole number of cells. At 224 px, a pixel of a 430 mm field is 1.9 mm
wide and a cell of severity 5 is 7.7 mm.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from chexmsn.core.bands import filter_images
from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._severity import distinct

TITLE = "Pixelation"
CAUSE = "thumbnails, previews, tele-radiology"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "cells per pixel along a side"
LEVELS = (0.6, 0.5, 0.4, 0.3, 0.25)
IDENTITY = 1.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Average over `level` times as many cells per side. Nothing is drawn."""
    rows, columns = (cells(distinct(level), side) for side in images.shape[2:])
    return filter_images(rows, images, columns).clamp_(0.0, 1.0)


def cells(level: Float[Tensor, "B"], side: int) -> Float[Tensor, "B side side"]:
    """Matrices that give each pixel of an axis the mean of its cell.

    A pixel counts in the cell that holds its centre, as in Pillow.
    """
    # The double of a level in single precision may lie below it: 0.29999998 of 10 pixels are 3 cells, not 2.
    count = (level.double() * side + 1e-4).floor().clamp(min=1.0)[:, None]
    centre = torch.arange(side, device=level.device) + 0.5
    first = (torch.arange(side, device=level.device) * (side / count) + 0.5).floor()
    last = ((torch.arange(side, device=level.device) + 1) * (side / count) + 0.5).floor()
    inside = (centre > first[..., None]) & (centre < last[..., None])
    means = inside / inside.sum(dim=2, keepdim=True).clamp(min=1)
    return means.float().gather(1, _shown(count, side)[..., None].expand(-1, -1, side))


def _shown(count: Float[Tensor, "B 1"], side: int) -> Int64[Tensor, "B side"]:
    """The cell that each pixel shows. Pillow adds the step up: its rounding decides where a centre lies on an edge."""
    step = (count / side).expand(-1, side).clone()
    step[:, 0] /= 2
    return step.cumsum(dim=1).long()
