"""From attenuation to the picture: exposure exp(-mu), scatter, detector blur, quanta, logarithm, display.

Facts and orders of magnitude: a standard chest beam carries about 31,000 quanta per mm2 and microgray; a
clinical exposure of 2.5 microgray at 60 % detective quantum efficiency is the reference, `dose` = 1. Without a
grid (bedside, AP) most of what reaches the mediastinum is scatter (Niklason et al. 1981, doi 10.1118/1.595027).
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from chexmsn.data.phantom.canvas import Plane, blur

QUANTA_PER_MM2 = (
    31_000 * 2.5 * 0.6 / 0.12
)  # at the open beam: the reference dose holds behind a patient of transmission 0.12


@dataclass(frozen=True)
class Technique:
    """How the picture was taken: dose relative to a clinical one, scattered share, contrast of the display."""

    dose: float = 1.0
    scatter: float = 0.3
    equalised: float = 0.4
    darkness: float = 0.0


def expose(attenuation: Plane, pixel: float, technique: Technique, rng: np.random.Generator) -> Plane:
    """Detected quanta per pixel, for pixels of `pixel` mm: expectation exp(-attenuation), Poisson noise."""
    primary = np.exp(-attenuation)
    wide = max(4, round(attenuation.shape[0] * pixel / 45))  # a kernel of some 45 mm, as wide as scatter spreads
    coarse = Image.fromarray(primary).resize((wide, wide), Image.Resampling.BOX)
    haze = np.asarray(coarse.resize(primary.shape, Image.Resampling.BICUBIC))
    mixed = (1 - technique.scatter) * primary + technique.scatter * np.maximum(haze, 0)
    sharp = np.maximum(blur(mixed, 0.45), 0)
    return rng.poisson(sharp * (technique.dose * QUANTA_PER_MM2 * pixel**2)).astype(np.float32)


def develop(quanta: Plane, pixel: float, technique: Technique) -> Plane:
    """The display value in [0, 1], white = dense: logarithm, range, partly equalised histogram.

    The read-out follows the dose, but not quite: a tenth of its logarithm stays visible as brightness.
    """
    reference = QUANTA_PER_MM2 * pixel**2 * technique.dose**0.9
    density = -np.log(np.maximum(quanta, 0.5) / reference)
    low, high = np.percentile(density[::2, ::2], [1.0, 99.7])
    value = np.clip((density - low) / max(high - low, 0.5), 0, 1)
    levels = np.quantile(value[::2, ::2], np.linspace(0, 1, 33))
    levels = levels + np.arange(33) * 1e-6  # strictly rising, as interpolation needs
    equal = np.interp(value, levels, np.linspace(0, 1, 33)).astype(np.float32)
    mixed = (1 - technique.equalised) * value + technique.equalised * equal
    return np.clip(mixed, 0, 1) ** np.float32(np.exp(technique.darkness + 0.1 * np.log(technique.dose)))
