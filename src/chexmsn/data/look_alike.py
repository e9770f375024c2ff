"""Pictures for the look-alikes of collections: not radiographs, but no two are alike."""

import numpy as np
from jaxtyping import Float


def picture(rows: int, columns: int, rng: np.random.Generator) -> Float[np.ndarray, "rows columns"]:
    """A bright middle between two dark fields, lit unevenly, with one blob; in [0, 1].

    >>> picture(4, 6, np.random.default_rng(0)).shape
    (4, 6)
    """
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    fields = sum(np.exp(-(((x - side) / 0.3) ** 2) - ((y - rng.normal(0, 0.1)) / 0.6) ** 2) for side in (-0.45, 0.45))
    blob = np.exp(-((x - rng.uniform(-0.6, 0.6)) ** 2 + (y - rng.uniform(-0.6, 0.6)) ** 2) / 0.02)
    light = 0.75 + 0.2 * x * rng.uniform(-1, 1) + 0.1 * y - 0.5 * fields + 0.3 * blob
    return light.clip(0, 1)
