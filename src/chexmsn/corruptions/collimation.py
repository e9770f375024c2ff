"""Collimation: borders of one to four sides are covered.

Cause: a field set too narrow, which cuts off costophrenic angles or apices; shutters drawn at the workstation.
Source: general knowledge of the field; incomplete coverage of the lungs is a reason for rejection in doi
10.1038/s41598-023-27397-7 (abstract read). Ladder: ours. Which sides, and whether they are black (a shutter) or
white (not exposed), is drawn.
Level: share of the height or width covered at each of these sides, exact: a border may end within a pixel. No
lengths are involved, so it is the same at 224 px and any size.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._coverage import covered, painted

TITLE = "Collimation"
CAUSE = "a field set too narrow, shutters"
SOURCE = "doi 10.1038/s41598-023-27397-7 (abstract read); ladder ours"
FAMILY = "radiographic"
UNIT = "share of the side covered, per border"
LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Cover a share `level` at one to four sides."""
    height, width = images.shape[2:]
    how_many, colour = draws.uniform(2).T
    closed = draws.stream("sides").permutation(4) < 1 + (4 * how_many).floor()[:, None]
    top, bottom, left, right = (closed * level[:, None]).T
    rows = covered(top * height, (1 - bottom) * height, height)
    columns = covered(left * width, (1 - right) * width, width)
    covering = 1 - rows[:, None, :, None] * columns[:, None, None, :]
    return painted(images, covering, torch.where(colour < 0.5, 0.0, 1.0)[:, None, None, None])
