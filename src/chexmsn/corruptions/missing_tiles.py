"""Missing tiles: some fields of an 8 x 8 grid are black.

Cause: failed modules of a detector, blocks lost in transfer or in decoding.
Source: general knowledge of the field; ladder ours. Which tiles is drawn.
Level: share of the tiles lost; of a broken number of tiles the last is darkened in part. What is lost at a mild
level is lost at a stronger one. At 224 px, a tile of a 430 mm field is 28 pixels or 54 mm wide. The patches of a
transformer are lost in other conditions (`patches-black` and its kin).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._coverage import painted, present

TITLE = "Missing tiles"
CAUSE = "failed detector modules, blocks lost in transfer"
SOURCE = "general knowledge; ladder ours"
FAMILY = "missing"
UNIT = "share of the tiles"
LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5)
IDENTITY = 0.0
TILES = 8
"""Along each side."""


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blacken a share `level` of the tiles."""
    lost = present(level * TILES**2, draws.permutation(TILES**2).float()).view(-1, 1, TILES, TILES)
    rows, columns = (torch.arange(side, device=images.device) * TILES // side for side in images.shape[2:])
    return painted(images, lost[:, :, rows][..., columns], 0.0)
