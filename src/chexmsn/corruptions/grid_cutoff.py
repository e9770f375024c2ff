"""Grid cut-off: less and less exposure towards one side, which becomes lighter.

Cause: a focused grid that is tilted, off centre or at the wrong distance absorbs the beam it should let pass.
Source: general knowledge of the field; the linear ramp and the ladder are ours. The side, left or right, is drawn:
lines of a grid mostly run along the body.
Level: share of the exposure lost at the far edge; none is lost at the near one. No lengths are involved, so it is the
same at 224 px and any size.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._geometry import either_way, places
from chexmsn.corruptions._signal import displayed, exposure_of

TITLE = "Grid cut-off"
CAUSE = "a focused grid tilted, off centre or at the wrong distance"
SOURCE = "general knowledge; model and ladder ours"
FAMILY = "radiographic"
UNIT = "share of the exposure lost at one edge"
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Lower the exposure towards one side, by `level` at its edge."""
    right, _ = places(images)
    way = either_way(draws.uniform(1)[:, 0])[:, None, None]
    ramp = 0.5 + way * right / images.shape[3]
    return displayed(exposure_of(images) * (1 - level[:, None, None, None] * ramp[:, None]))
