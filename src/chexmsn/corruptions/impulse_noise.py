"""Impulse noise (salt and pepper): a pixel turns white with probability p / 2 and black with p / 2.

Cause: dead and stuck detector pixels, errors of transfer and of scanning.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`.
Level: p, the share of the pixels that are lost. At 224 px, a pixel of a 430 mm field is 1.9 mm wide, ten
times a detector's: a lost pixel stands for a cluster of them.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Impulse noise"
CAUSE = "dead and stuck detector pixels, errors of transfer"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "share of the pixels lost"
LEVELS = (0.03, 0.06, 0.09, 0.17, 0.27)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Replace a share `level` of the pixels by black and white; the pixels of a milder level are among them."""
    number = draws.bits_field(images.shape[1:])
    half = (level * 2**15).round()[:, None, None, None]  # 65536 numbers, of which a share of level / 2 is black
    black, white = ((half - 2**15).short(), (2**15 - 1 - half).short())
    return images.masked_fill(number < black, 0.0).masked_fill_(number > white, 1.0)
