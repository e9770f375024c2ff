"""Flip: left and right exchanged; the heart lies on the other side.

Cause: a film hung or scanned from the back, a wrong export. It looks like dextrocardia with situs inversus.
Source: general knowledge of the field.
Level: 1, the only one. No lengths are involved, so it is the same at 224 px and any size. Training that flips its views
at random, as the published system's group does and the recipes here do, teaches this invariance: a small drop then
shows what was trained, and that the model cannot tell the sides apart.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Horizontal flip"
CAUSE = "film hung or scanned from the back, wrong export"
SOURCE = "general knowledge"
FAMILY = "radiographic"
UNIT = "flipped or not"
LEVELS = (1.0, 1.0, 1.0, 1.0, 1.0)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Flip where `level` is 1. Nothing is drawn."""
    return torch.where(level[:, None, None, None] > 0, images.flip(3), images)
