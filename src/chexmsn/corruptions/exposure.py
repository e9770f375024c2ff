"""Exposure off target: the whole image lighter or darker, what leaves the display range lost.

Cause: more or less exposure than the examination's target where no automatic rescaling follows, or one that mistook
the field (a lead apron, a prosthesis, open air).
Source: general knowledge of the field: factors of 2 in exposure are deviation indices of 3. Ladder: ours. Whether it
was too much (darker) or too little (lighter) is drawn; the noise that comes with too little is `dose`.
Level: doublings or halvings of the exposure. No lengths are involved, so it is the same at 224 px and any size.
"""

import math

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._geometry import either_way
from chexmsn.corruptions._signal import RANGE

TITLE = "Exposure off target"
CAUSE = "too much or too little exposure, rescaling that mistook the field"
SOURCE = "general knowledge; ladder ours"
FAMILY = "radiographic"
UNIT = "doublings or halvings of the exposure"
LEVELS = (0.25, 0.5, 1.0, 1.5, 2.0)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Raise or lower the exposure by a factor of 2 ** `level`."""
    lighter = either_way(draws.uniform(1)[:, 0]) * level * (math.log(2) / RANGE)
    return (images + lighter[:, None, None, None]).clamp_(0.0, 1.0)
