"""Shift: the image lies off centre; what comes from outside is black.

Cause: positioning off centre, a crop of another size at export.
Source: general knowledge of the field; CheXphoto (Phillips et al. 2020, arXiv 2007.06199, code read) shifts by 20
pixels per level. Ladder: ours. The direction is drawn.
Level: length of the shift as a share of the image's long side; at 224 px, severity 5 is 45 pixels.
"""

import math

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._geometry import fetched, places

TITLE = "Shift"
CAUSE = "positioning off centre, another crop"
SOURCE = "CheXphoto, arXiv 2007.06199 (code read); ladder ours"
FAMILY = "radiographic"
UNIT = "share of the long side"
LEVELS = (0.04, 0.08, 0.12, 0.16, 0.2)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Shift by a share `level` of the long side."""
    direction = (2 * math.pi * draws.uniform(1)[:, 0])[:, None, None]
    pixels = (level * max(images.shape[2:]))[:, None, None]
    right, below = places(images)
    return fetched(images, right - pixels * direction.cos(), below - pixels * direction.sin())
