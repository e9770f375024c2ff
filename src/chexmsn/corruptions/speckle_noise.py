"""Speckle noise: clip(v + v N(0, sigma)), drawn per pixel.

Cause: gain that varies from pixel to pixel: uneven detector sensitivity, film and scanner grain.
Source: ImageNet-C's extra corruptions (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`.
Level: sigma as a share of the pixel's own value, so black stays black. At 224 px, a pixel of a 430 mm
field is 1.9 mm wide: the noise has the grain of that pixel.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Speckle noise"
CAUSE = "gain that varies from pixel to pixel, grain of film and scanner"
SOURCE = "ImageNet-C (extra), Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "standard deviation, share of the pixel's value"
LEVELS = (0.15, 0.2, 0.35, 0.45, 0.6)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Multiply by 1 plus normal noise of standard deviation `level`."""
    noise = draws.normal_field(images.shape[1:])
    return noise.mul_(level[:, None, None, None]).add_(1.0).mul_(images).clamp_(0.0, 1.0)
