"""Focal blur: a Gaussian of some mm.

Cause: a large focal spot with the patient far from the detector, a film or screen photographed or zoomed out of
focus.
Source: CheXphoto's Gaussian blur of 1.5 to 10 pixels (Phillips et al. 2020, arXiv 2007.06199, code read), here in
mm; a focal spot alone stays well below severity 1. Ladder: ours.
Level: standard deviation in mm. At 224 px, a pixel of a 430 mm field is 1.9 mm wide: severity 5 is 4.2 pixels.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._diffusion import diffused
from chexmsn.corruptions._known import NOTHING_KNOWN, Known

TITLE = "Focal blur"
CAUSE = "focal spot, films and screens photographed out of focus"
SOURCE = "CheXphoto, arXiv 2007.06199 (code read); ladder ours"
FAMILY = "radiographic"
UNIT = "standard deviation in mm"
LEVELS = (1.0, 2.0, 4.0, 6.0, 8.0)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws, known: Known = NOTHING_KNOWN) -> Images:
    """Blur by a standard deviation of `level` mm. Nothing is drawn."""
    return diffused(images, known.pixels(level, images))
