"""Differences between two models, conditions or groups, over resamples that both share.

With one set of counts for all, the difference of two estimates is, resample by resample, a paired
one: of AUROCs, macros, drops or areas alike.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from chexmsn.metrics.bootstrap import UNDEFINED_AT_MOST, AtMost, percentile_interval, undefined_share


class Difference(NamedTuple):
    """A difference, its percentile interval and two-sided p value; NaN where there is none."""

    value: Float64[np.ndarray, "*C"]
    low: Float64[np.ndarray, "*C"]
    high: Float64[np.ndarray, "*C"]
    p: Float64[np.ndarray, "*C"]


def paired_difference(
    value: Float[np.ndarray, "*C"] | float,
    samples: Float[np.ndarray, "R *C"],
    level: float = 0.95,
    *,
    undefined_at_most: AtMost = UNDEFINED_AT_MOST,
) -> Difference:
    """A difference on the test set (`a - b`) with its interval and p value from the shared resamples (`a - b` of each).

    >>> a, b = np.array([0.80, 0.82, 0.84]), np.array([0.70, 0.75, 0.79])
    >>> difference = paired_difference(0.07, a - b)
    >>> float(difference.low.round(4)), float(difference.p)
    (0.051, 0.25)
    """
    low, high = percentile_interval(samples, level, undefined_at_most=undefined_at_most)
    known = undefined_share(samples) <= undefined_at_most
    return Difference(np.asarray(value), low, high, np.where(known, two_sided_p(samples), np.nan))


def two_sided_p(samples: Float[np.ndarray, "R *C"]) -> Float64[np.ndarray, "*C"]:
    """2 min(share <= 0, share >= 0) of resampled differences: at least 1 / (resamples + 1), at most 1.

    Over the resamples that have a value; NaN where none has.
    """
    known = np.asarray((~np.isnan(samples)).sum(axis=0))
    tail = np.minimum((samples <= 0).sum(axis=0), (samples >= 0).sum(axis=0))
    share = 2 * tail / np.where(known > 0, known, np.nan)
    return np.asarray(share.clip(1 / (known + 1), 1.0))
