"""Scatter: a share of the radiation arrives from anywhere nearby, E' = (1 - f) E + f (E * Gaussian of 30 mm).

Contrast of small things falls to 1 - f in exposure, the total exposure stays. The noise of the image stays as well:
real scatter brings quanta of its own, whose noise `dose` can add.

Cause: no grid, or a misaligned one, at the bedside; veiling glare in the detector.
Source: 90 % of the radiation in the mediastinum is scatter without a grid (Niklason et al. 1981, doi
10.1118/1.595027, abstract read); scatter to primary 2 to 4 in portable chests (doi 10.1007/s10140-022-02063-z,
abstract read). The kernel, of tens of mm, and the ladder are ours; the image counts as mirrored beyond its border.
Level: f, the share scattered beside what the image has already. At 224 px, the kernel's deviation is 16 pixels of a
430 mm field.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._diffusion import diffused
from chexmsn.corruptions._known import NOTHING_KNOWN, Known
from chexmsn.corruptions._signal import displayed, exposure_of

TITLE = "Scatter"
CAUSE = "no grid or a misaligned one, veiling glare"
SOURCE = "Niklason et al. 1981, doi 10.1118/1.595027 (abstract read); kernel and ladder ours"
FAMILY = "radiographic"
UNIT = "share of the radiation scattered"
LEVELS = (0.1, 0.25, 0.4, 0.55, 0.7)
IDENTITY = 0.0
KERNEL_MM = 30.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws, known: Known = NOTHING_KNOWN) -> Images:
    """Scatter a share `level` of the exposure. Nothing is drawn."""
    exposure = exposure_of(images)
    scattered = diffused(exposure, known.pixels(torch.full_like(level, KERNEL_MM), images))
    return displayed(exposure.lerp(scattered, level[:, None, None, None]))
