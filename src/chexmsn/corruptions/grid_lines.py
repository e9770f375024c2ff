"""Grid lines: a sinusoid in exposure, E' = E (1 + a sin), across the image.

Cause: a stationary anti-scatter grid whose lines, finer than a pixel, appear as moire when the image is resized.
Source: general knowledge of the field; CheXphoto (Phillips et al. 2020, arXiv 2007.06199, code read) blends moire
patterns of photographed screens. Ladder: ours. Frequency (0.08 to 0.45 cycles per pixel: aliasing makes any), phase,
a tilt of up to 3 degrees and whether lines run up or across are drawn.
Level: amplitude a, a share of the exposure. At 224 px, a pixel of a 430 mm field is 1.9 mm wide; a real grid has seven
or more lines in it. Severity 5 is 6 gray levels of 255.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._geometry import waves
from chexmsn.corruptions._signal import displayed, exposure_of

TITLE = "Grid lines"
CAUSE = "stationary grid, moire when an image is resized"
SOURCE = "general knowledge; CheXphoto, arXiv 2007.06199 (code read); ladder ours"
FAMILY = "radiographic"
UNIT = "amplitude, share of the exposure"
LEVELS = (0.01, 0.02, 0.04, 0.07, 0.1)
IDENTITY = 0.0
_FREQUENCY = (0.08, 0.45)  # cycles per pixel
_TILT = math.radians(3)


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Modulate the exposure by `level`."""
    tone, phase, tilt, across = draws.uniform(4).T
    direction = (2 * tilt - 1) * _TILT + torch.where(across < 0.5, 0.0, math.pi / 2)
    turns = _FREQUENCY[0] + (_FREQUENCY[1] - _FREQUENCY[0]) * tone
    wave = waves(images, direction, turns, phase)
    return displayed(exposure_of(images) * (1 + level[:, None, None, None] * wave))
