"""Scale: the image enlarged or reduced about its centre; what comes from outside is black.

Cause: another distance of tube and detector, a child on an adult's detector, another crop at export.
Source: general knowledge of the field; ladder ours. Whether it is enlarged or reduced is drawn.
Level: the factor by which it is enlarged or reduced. No lengths are involved, so it is the same at 224 px and any size.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._geometry import fetched, places

TITLE = "Scale"
CAUSE = "other distances and sizes, another crop"
SOURCE = "general knowledge; ladder ours"
FAMILY = "radiographic"
UNIT = "factor of enlargement or reduction"
LEVELS = (1.05, 1.1, 1.2, 1.3, 1.4)
IDENTITY = 1.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Enlarge or reduce by a factor `level`."""
    factor = torch.where(draws.uniform(1)[:, 0] < 0.5, level, 1 / level)[:, None, None]
    right, below = places(images)
    return fetched(images, right * factor, below * factor)
