"""Electronic noise: normal noise of the read-out, the same everywhere before the logarithm.

Cause: amplifiers and digitisation of the detector; it dominates where few quanta arrive, so dense regions suffer most.
Source: additive normal noise in the linear signal, as arXiv 2509.25265 simulates it for chest radiographs on a ladder
(abstract read). Ladder: ours.
Level: standard deviation as a share of the image's mean signal, per pixel of the image as given. At 224 px, a pixel of
a 430 mm field is 1.9 mm wide and averages about a hundred detector pixels, each ten times as noisy.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._signal import displayed, exposure_of

TITLE = "Electronic noise"
CAUSE = "read-out of the detector, where few quanta arrive"
SOURCE = "arXiv 2509.25265 (abstract read); ladder ours"
FAMILY = "radiographic"
UNIT = "standard deviation, share of the mean signal"
LEVELS = (0.001, 0.003, 0.01, 0.02, 0.03)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Add normal noise of `level` times the mean signal."""
    exposure = exposure_of(images)
    spread = level[:, None, None, None] * exposure.mean(dim=(2, 3), keepdim=True)
    return displayed(exposure + draws.normal_field(images.shape[1:]) * spread)
