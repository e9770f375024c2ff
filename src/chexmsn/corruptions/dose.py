"""Dose: quantum noise of a fraction of the dose, drawn before the logarithm.

A pixel of exposure E receives on average Q = Q0 E f quanta at dose fraction f, K of them by Poisson's law. An image
of full dose has its own noise already, so only what is missing is added: E' = E + sqrt(1 - f) (K / (Q0 f) - E), of
variance E / Q0 (1 / f - 1). Bright regions, which few quanta reach, become noisiest.

Cause: mAs lowered, thick patients, bedside exposures.
Source: raw values scaled to the lower dose and noise added per pixel, as Veldkamp et al. 2009, J Digit Imaging
22:114 (abstract read: noise within 5 % of real low-dose images). Its orders of magnitude are general knowledge:
31,000 quanta per mm2 and microgray (RQA5, RQA9), 2.5 microgray at the detector, detective quantum efficiency 0.6.
They are received here at a display value of 0.35, about the mean of a frontal chest. Ladder: ours.
Level: dose fraction. Quanta of a pixel's whole area count: noise of a fine detector, averaged to the size of this
pixel. At 224 px, a pixel of a 430 mm field is 1.9 mm wide and receives 171,000 quanta: severity 2 is below a gray
level in the lung, severity 5 is 3 gray levels of 255 there and 14 in the mediastinum. The noise is white: a
detector's blur is far narrower than such a pixel.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._known import NOTHING_KNOWN, Known
from chexmsn.corruptions._signal import RANGE, displayed, exposure_of

TITLE = "Low dose (quantum noise)"
CAUSE = "lowered mAs, thick patients, bedside exposures"
SOURCE = "Veldkamp et al. 2009, J Digit Imaging 22:114 (abstract read); ladder ours"
FAMILY = "radiographic"
UNIT = "fraction of the dose"
LEVELS = (1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 1024)
IDENTITY = 1.0
QUANTA_PER_MM2 = 31_000 * 2.5 * 0.6 / math.exp(-RANGE * 0.35)
"""Q0 per area: quanta that count where the image is black, at full dose."""
_MOST = 1e9  # quanta per pixel: more overflow torch's counts, and their noise is a thousandth of a gray level


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws, known: Known = NOTHING_KNOWN) -> Images:
    """Add the noise that a dose fraction `level` has more than the full dose."""
    fraction = level.clamp(max=1.0)[:, None, None, None]
    quanta = (QUANTA_PER_MM2 * known.pixel_size(images).square()).clamp(max=_MOST)[:, None, None, None] * fraction
    exposure = exposure_of(images)
    seen = draws.poisson_field(exposure * quanta) / quanta
    noisy = exposure + (1 - fraction).sqrt() * (seen - exposure)
    return displayed(torch.maximum(noisy, 0.5 / quanta))  # no quantum at all reads as half a one
