"""Many comparisons at once: adjusted p values, and bands that hold for a whole curve.

Name one primary comparison before looking; correct the others together. A p value that is missing
(NaN) stays missing and does not count as a comparison.
"""

import numpy as np
from jaxtyping import Float, Float64

from chexmsn.metrics.bootstrap import UNDEFINED_AT_MOST, Interval


def holm(p: Float[np.ndarray, "T"]) -> Float64[np.ndarray, "T"]:
    """Holm's adjusted p values (1979, Scand. J. Stat. 6:65): bounds the chance of any false claim, dependent or not.

    >>> holm(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.06, 0.06])
    """
    order, ascending = _ascending(p)
    return _back(np.maximum.accumulate(ascending * np.arange(len(order), 0, -1)), order, len(p))


def benjamini_hochberg(p: Float[np.ndarray, "T"]) -> Float64[np.ndarray, "T"]:
    """Adjusted p values for exploration (1995, J. R. Stat. Soc. B 57:289): bounds the share of false claims.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.04, 0.04])
    """
    order, ascending = _ascending(p)
    scaled = ascending * len(order) / np.arange(1, len(order) + 1)
    return _back(np.minimum.accumulate(scaled[::-1])[::-1], order, len(p))


def _ascending(p: Float[np.ndarray, "T"]) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]  # NaN sorts last
    return order, p[order].astype(np.float64)


def _back(adjusted: Float[np.ndarray, "K"], order: np.ndarray, count: int) -> Float64[np.ndarray, "T"]:
    answer = np.full(count, np.nan)
    answer[order] = adjusted.clip(max=1.0)
    return answer


def simultaneous_band(
    value: Float[np.ndarray, "K"],
    samples: Float[np.ndarray, "R K"],
    level: float = 0.95,
    *,
    undefined_at_most: float = UNDEFINED_AT_MOST,
) -> Interval:
    """A band that holds the whole curve of K points with probability `level`, from the bootstrap's largest deviation.

    Each point's deviation from the curve is measured in its own standard error; the band is that of the quantile
    of the largest one. Wider than intervals point by point; it may leave the metric's range. A point that never
    varies (the drop at severity 0) has no width. No band (NaN) where more than a share of `undefined_at_most` of the
    resamples lacks a point.

    >>> rng = np.random.default_rng(0)
    >>> low, high = simultaneous_band(np.zeros(3), rng.normal(size=(4000, 3)))
    >>> bool((high > 2.2).all() and (high < 2.6).all())
    True
    """
    whole = samples[~np.isnan(samples).any(axis=1)]
    if len(whole) < (1 - undefined_at_most) * len(samples) or np.isnan(value).any():
        return Interval(np.full(len(value), np.nan), np.full(len(value), np.nan))
    error = whole.std(axis=0)
    furthest = (np.abs(whole - value) / np.where(error > 0, error, np.inf)).max(axis=1)
    reach = np.quantile(furthest, level) * error
    return Interval(value - reach, value + reach)
