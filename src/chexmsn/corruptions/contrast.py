"""Contrast: clip(m + f (v - m)), m the image's mean: gray levels move together.

Cause: high tube voltage, scatter without a grid, a wide window, a washed-out photograph of a film.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`. MedMNIST-C's levels are
0.9, 0.8, 0.7, 0.6, 0.4 down and 1.1, 1.2, 1.3, 1.4, 1.6 up, which are valid levels here.
Level: f, what is left of the contrast. No lengths are involved, so it is the same at 224 px and any size.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Contrast"
CAUSE = "high tube voltage, scatter, wide windows, washed-out photographs"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "share of the contrast left"
LEVELS = (0.4, 0.3, 0.2, 0.1, 0.05)
IDENTITY = 1.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Scale the distance to the image's mean by `level`. Nothing is drawn."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean.lerp(images, level[:, None, None, None]).clamp_(0.0, 1.0)
