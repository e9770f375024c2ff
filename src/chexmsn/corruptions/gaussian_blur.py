"""Gaussian blur: convolution with a Gaussian of sigma pixels, cut at 4 sigma, the edge pixel repeated.

Cause: focal spot, scatter in the detector, photographs of a film or screen, loss of resolution.
Source: ImageNet-C's extra corruptions (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`.
Level: sigma in pixels, at most that of severity 5. At 224 px, a pixel of a 430 mm field is 1.9 mm wide: severity 1
is already 4.5 mm wide at half maximum and severity 5 is 27 mm, against 0.2 to 0.3 mm of a digital detector; at 112
px, twice that.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.bands import gaussian_blur
from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._severity import distinct

TITLE = "Gaussian blur"
CAUSE = "focal spot, photographed films and screens, loss of resolution"
SOURCE = "ImageNet-C (extra), Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "standard deviation in pixels"
LEVELS = (1.0, 2.0, 3.0, 4.0, 6.0)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blur by a standard deviation of `level` pixels. Nothing is drawn."""
    return gaussian_blur(images, distinct(level), LEVELS[-1])
