"""Histogram equalisation: each value, at 16 bit, becomes its rank among the pixels of the image.

Cause: export of a collection with equalised histograms, contrast tools of viewers and of photographs.
Source: general knowledge of the field (MIMIC-CXR-JPG is exported so, other collections are not). Ladder: ours.
Level: share of the equalised image in the blend with the given one. No lengths are involved, so it is the same at
224 px and any size.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Histogram equalisation"
CAUSE = "equalised export, contrast tools of viewers"
SOURCE = "general knowledge; ladder ours"
FAMILY = "radiographic"
UNIT = "share of the equalised image"
LEVELS = (0.2, 0.4, 0.6, 0.8, 1.0)
IDENTITY = 0.0
_GRAYS = 2**16


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blend with the equalised image by `level`. Nothing is drawn."""
    return images.lerp(equalised(images), level[:, None, None, None]).clamp_(0.0, 1.0)


def equalised(images: Images) -> Images:
    """The rank of each pixel within its image, equal pixels alike, from 0 for the darkest to 1 for the brightest."""
    value = images.flatten(1).mul(_GRAYS - 1).round_().long()
    histogram = images.new_zeros(len(images), _GRAYS).scatter_add_(1, value, torch.ones_like(images).flatten(1))
    up_to = histogram.cumsum(1).gather(1, value)
    darkest = up_to.amin(dim=1, keepdim=True)
    return ((up_to - darkest) / (value.shape[1] - darkest).clamp(min=1)).view_as(images)
