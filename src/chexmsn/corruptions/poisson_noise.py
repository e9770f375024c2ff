"""Poisson (shot) noise: clip(Poisson(c v) / c), drawn per pixel, c quanta at white.

Cause: few X-ray quanta. A caricature of it: here the noise grows with brightness, while in a
radiograph the bright, dense regions receive the fewest quanta; and severity 1 already corresponds to
less than a thousandth of a clinical dose.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`: c = 60, 25, 12, 5, 3.
Level: 1 / c, what one quantum adds as a share of the display range, so that 0 is the identity and the
variance, v / c, grows in proportion to the level. At 224 px, a pixel of a 430 mm field is 1.9 mm wide and
collects the quanta of about a hundred detector pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Poisson noise"
CAUSE = "few X-ray quanta: low dose, thick patients"
SOURCE = "ImageNet-C (shot noise), Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "share of the display range per quantum"
LEVELS = (1 / 60, 1 / 25, 1 / 12, 1 / 5, 1 / 3)
IDENTITY = 0.0
_FINEST = 1e-9  # a billion quanta at white: finer ones overflow torch's counts, and make a hundredth of a gray level


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Replace each value by a count of quanta that are worth `level` each; a level of 0 leaves it as it is."""
    quantum = level[:, None, None, None]
    noisy = quantum > _FINEST
    counts = draws.poisson_field(images / torch.where(noisy, quantum, 1.0))
    return torch.where(noisy, (counts * quantum).clamp(max=1.0), images)
