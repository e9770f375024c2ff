"""Histogram equalisation: each value becomes the share of the image's pixels that are no brighter.

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


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blend with the equalised image by `level`. Nothing is drawn."""
    return images.lerp(equalised(images), level[:, None, None, None]).clamp_(0.0, 1.0)


def equalised(images: Images) -> Images:
    """The rank of each pixel within its image, equal pixels alike, from 0 for the darkest to 1 for the brightest."""
    values = images.flatten(1).contiguous()
    ordered = values.sort(dim=1).values
    below, up_to = (torch.searchsorted(ordered, v, right=True).float() for v in (ordered[:, :1].contiguous(), values))
    return ((up_to - below) / (values.shape[1] - below).clamp(min=1)).view_as(images)
