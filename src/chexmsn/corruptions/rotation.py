"""Rotation about the image's centre; what comes from outside is black.

Cause: a patient or a cassette that lies askew, above all at the bedside.
Source: general knowledge of the field; CheXphoto (Phillips et al. 2020, arXiv 2007.06199, code read) rotates by 5
degrees per level. Ladder: ours. Whether clockwise or not is drawn.
Level: angle in degrees. No lengths are involved, so it is the same at 224 px and any size.
"""

import math

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._geometry import either_way, fetched, places

TITLE = "Rotation"
CAUSE = "a patient or cassette that lies askew"
SOURCE = "CheXphoto, arXiv 2007.06199 (code read); ladder ours"
FAMILY = "radiographic"
UNIT = "degrees"
LEVELS = (3.0, 5.0, 10.0, 15.0, 20.0)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Rotate by `level` degrees to either side."""
    angle = (either_way(draws.uniform(1)[:, 0]) * level * (math.pi / 180))[:, None, None]
    right, below = places(images)
    return fetched(images, angle.cos() * right + angle.sin() * below, angle.cos() * below - angle.sin() * right)
