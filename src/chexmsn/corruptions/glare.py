"""Glare: a soft white spot laid over the image.

Cause: a lamp or window mirrored by a film or screen that is photographed.
Source: CheXphoto's matte glare (Phillips et al. 2020, arXiv 2007.06199, code read), whose spot is of 50 pixels and
whose opacity 0.67 per level upwards. Spot (a Gaussian of 10 to 25 % of the long side along each axis) and ladder:
ours. Its place and widths are drawn.
Level: opacity in the middle of the spot. At 224 px, its deviation is 22 to 56 pixels.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._coverage import painted
from chexmsn.corruptions._geometry import places

TITLE = "Glare"
CAUSE = "lamps and windows mirrored by photographed films and screens"
SOURCE = "CheXphoto, arXiv 2007.06199 (code read); ladder ours"
FAMILY = "radiographic"
UNIT = "opacity"
LEVELS = (0.2, 0.35, 0.5, 0.65, 0.8)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Lay a white spot of opacity `level` over each image."""
    height, width = images.shape[2:]
    x, y, across, down = draws.uniform(4).T[:, :, None, None]
    right, below = places(images)
    long = max(height, width)
    far = ((right - (x - 0.5) * 0.8 * width) / ((0.1 + 0.15 * across) * long)).square()
    low = ((below - (y - 0.5) * 0.8 * height) / ((0.1 + 0.15 * down) * long)).square()
    return painted(images, level[:, None, None, None] * (-0.5 * (far + low)).exp()[:, None], 1.0)
