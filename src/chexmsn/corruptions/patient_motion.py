"""Patient motion: the mean along a short line on both sides of each pixel, mostly along the body.

Cause: breathing, tremor, long exposures at the bedside.
Source: general knowledge of the field; the blurs of ImageNet-C (arXiv 1903.12261) and CheXphoto (arXiv 2007.06199,
code read) go to one side or across. Ladder: ours. The line's angle to the body's axis is drawn within 30 degrees,
small ones more often.
Level: length of the line in mm, edge pixels repeated. At 224 px, a pixel of a 430 mm field is 1.9 mm wide: severity
5 is 8 pixels long. Lines longer than a quarter of the image are cut to that.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._convolution import correlate
from chexmsn.corruptions._known import NOTHING_KNOWN, Known

TITLE = "Patient motion"
CAUSE = "breathing, tremor, long exposures at the bedside"
SOURCE = "general knowledge; ladder ours"
FAMILY = "radiographic"
UNIT = "length in mm"
LEVELS = (2.0, 4.0, 8.0, 12.0, 16.0)
IDENTITY = 0.0
_TILT = math.radians(30)


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws, known: Known = NOTHING_KNOWN) -> Images:
    """Blur along a line of `level` mm."""
    reach = max(images.shape[2:]) // 8 + 1
    first, second = draws.uniform(2).T
    half = (known.pixels(level, images) / 2).clamp(max=reach - 1)
    return correlate(images, lines(half, (first - second) * _TILT, reach), (reach, reach), "nearest")


def lines(half: Float[Tensor, "B"], angle: Float[Tensor, "B"], reach: int) -> Float[Tensor, "B K K"]:
    """Kernels, 2 reach + 1 pixels a side: a line through the centre, `half` pixels either way, askew by an angle.

    The line is a row of points, each shared among the four pixels around it.
    """
    points = 4 * reach
    tap = torch.arange(-reach, reach + 1, device=half.device)
    share = (2 * torch.arange(points, device=half.device) + 1) / points - 1
    line = share * half.double()[:, None]  # autocast leaves doubles alone
    down, right = (
        (1 - (line * part[:, None])[:, :, None].sub(tap).abs()).clamp(min=0.0) for part in (angle.cos(), angle.sin())
    )
    return (down.mT @ right / points).float()
