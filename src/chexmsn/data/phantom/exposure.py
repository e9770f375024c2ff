"""From attenuation to the picture: exposure exp(-mu), scatter, detector blur, quanta, logarithm, display.

Facts and orders of magnitude: a standard chest beam carries about 31,000 quanta per mm2 and microgray; a
clinical exposure of 2.5 microgray at 60 % detective quantum efficiency is the reference, `dose` = 1. Without a
grid (bedside, AP) most of what reaches the mediastinum is scatter (Niklason et al. 1981, doi 10.1118/1.595027).
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from chexmsn.data.phantom.canvas import Plane, blur

QUANTA_PER_MM2 = 31_000 * 2.5 * 0.6 / 0.12
"""In the open beam; the reference dose is what reaches the detector through 12 % transmission."""

OPEN_BEAM = 0.9
"""Less attenuation than this is air beside the patient, not lung."""


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
    wide = max(8, round(attenuation.shape[0] * pixel / 20))
    coarse = np.asarray(Image.fromarray(primary).resize((wide, wide), Image.Resampling.BOX))
    spread = Image.fromarray(blur(coarse, 1.6))  # some 30 mm wide, as scatter spreads
    haze = np.asarray(spread.resize(primary.shape, Image.Resampling.BICUBIC))
    mixed = (1 - technique.scatter) * primary + technique.scatter * np.maximum(haze, 0)
    sharp = _detector(mixed)
    return rng.poisson(sharp * (technique.dose * QUANTA_PER_MM2 * pixel**2)).astype(np.float32)


def _detector(image: Plane) -> Plane:
    """The spread of light within the detector: a quarter of every pixel's signal goes to its neighbours."""
    for axis in (0, 1):
        beside = np.pad(image, [(1, 1) if axis == a else (0, 0) for a in (0, 1)], mode="edge")
        before, after = (beside[:-2], beside[2:]) if axis == 0 else (beside[:, :-2], beside[:, 2:])
        image = 0.86 * image + 0.07 * (before + after)
    return image


def develop(quanta: Plane, pixel: float, technique: Technique) -> Plane:
    """The display value in [0, 1], white = dense: logarithm, range of interest, partly equalised histogram.

    The range starts a little below the darkest lung (the open beam is black) and follows the dose, but
    not quite: a tenth of its logarithm stays visible as brightness.
    """
    density = -np.log(np.maximum(quanta, 0.5) / (technique.dose * QUANTA_PER_MM2 * pixel**2))
    side = density.shape[0]
    middle = density[side // 5 : -side // 4 : 2, side // 4 : -side // 4 : 2]
    body = middle[middle > OPEN_BEAM]
    dark, high = np.percentile(body if body.size else middle, 3.0), np.percentile(density[::2, ::2], 99.6)
    low = dark - 0.30 * (high - dark)
    value = np.clip((density - low) / max(high - low, 0.5), 0, 1)
    tissue = value[::2, ::2][value[::2, ::2] > 0.04]
    levels = np.quantile(tissue, np.linspace(0, 1, 33)) + np.arange(33) * 1e-6  # strictly rising, to interpolate
    equal = np.interp(value, [0.0, *levels[1:]], np.linspace(0, 1, 33)).astype(np.float32)
    mixed = (1 - technique.equalised) * value + technique.equalised * equal
    return np.clip(mixed, 0, 1) ** np.float32(np.exp(technique.darkness + 0.1 * np.log(technique.dose)))
