"""Gamma: v ** g, middle grays darker (g > 1) or lighter (g < 1), black and white kept.

Cause: displays and exports with another characteristic curve, vendor look-up tables.
Source: MedMNIST-C (Di Salvo et al. 2024, arXiv 2406.17536), `medmnistc-api`: `gamma_corr_up`. Its `gamma_corr_down`
has 0.9, 0.8, 0.7, 0.6, 0.4, which are valid levels here.
Level: the exponent g. No lengths are involved, so it is the same at 224 px and any size.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Gamma"
CAUSE = "characteristic curves of displays, exports and vendors"
SOURCE = "MedMNIST-C, Di Salvo et al. 2024, arXiv 2406.17536"
FAMILY = "radiographic"
UNIT = "exponent"
LEVELS = (1.1, 1.2, 1.3, 1.4, 1.6)
IDENTITY = 1.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Raise each value to the power `level`. Nothing is drawn."""
    return images ** level[:, None, None, None]
