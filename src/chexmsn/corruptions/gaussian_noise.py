"""Gaussian noise: clip(v + N(0, sigma)), drawn per pixel.

Cause: electronic read-out noise, which dominates where few quanta reach the detector. The noise is
added to the display value, not to the linear signal.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`.
Level: sigma as a share of the display range. At 224 px, a pixel of a 430 mm field is 1.9 mm wide: the
noise has the grain of that pixel, and on a larger grid the same sigma averages out more.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Gaussian noise"
CAUSE = "electronic noise of the detector"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "standard deviation, share of the display range"
LEVELS = (0.08, 0.12, 0.18, 0.26, 0.38)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Add normal noise of standard deviation `level`."""
    noise = draws.normal_field(images.shape[1:])
    return noise.mul_(level[:, None, None, None]).add_(images).clamp_(0.0, 1.0)
