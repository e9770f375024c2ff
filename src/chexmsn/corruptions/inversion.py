"""Inversion: 1 - v, bones black and air white.

Cause: MONOCHROME1 read as MONOCHROME2, an inverted display saved as such.
Source: a reason for rejection in the experiment of 178 centres in Moscow (doi 10.1038/s41598-023-27397-7, abstract
read).
Level: 1, the only one. No lengths are involved, so it is the same at 224 px and any size.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Inversion"
CAUSE = "wrong photometric interpretation (MONOCHROME1 as 2)"
SOURCE = "doi 10.1038/s41598-023-27397-7 (abstract read)"
FAMILY = "radiographic"
UNIT = "inverted or not"
LEVELS = (1.0, 1.0, 1.0, 1.0, 1.0)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Invert where `level` is 1. Nothing is drawn."""
    return images.lerp(1 - images, level[:, None, None, None])
