"""Single frequency: one plane wave of gray over the whole image.

Cause: none in radiography: a guard against training that has merely learned the usual list.
Source: after ImageNet-C-bar's single-frequency gray (Mintun et al. 2021, `facebookresearch/augmentation-corruption`,
readme read); form and ladder ours. Direction, phase and period (4 to 16 pixels) are drawn. Keep it out of training.
Level: amplitude as a share of the display range. Periods are in pixels: at 224 px, 8 to 31 mm of a 430 mm field.
"""

import math

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._geometry import waves

TITLE = "Single-frequency gray"
CAUSE = "none: held back from training, against learning the usual list"
SOURCE = "after ImageNet-C-bar, Mintun et al. 2021 (readme read); form and ladder ours"
FAMILY = "held-back"
UNIT = "amplitude, share of the display range"
LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Add a wave of amplitude `level`."""
    way, tone, phase = draws.uniform(3).T
    wave = waves(images, way * math.pi, 1 / (4 + 12 * tone), phase)
    return (images + level[:, None, None, None] * wave).clamp_(0.0, 1.0)
