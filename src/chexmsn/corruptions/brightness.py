"""Brightness: clip(v + c), the whole image lighter.

Cause: exposure index off target, another look-up table at export, a bright room around a photographed film.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`: added to the HSV value,
which for gray is the value itself. MedMNIST-C multiplies instead (`chexmsn.corruptions.as_medmnist_c`).
Level: c as a share of the display range; negative darkens. No lengths are involved, so it is the same at 224 px and
any size.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Brightness"
CAUSE = "exposure off target, look-up tables of vendors, bright surroundings"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "added, share of the display range"
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Add `level`. Nothing is drawn."""
    return (images + level[:, None, None, None]).clamp_(0.0, 1.0)
