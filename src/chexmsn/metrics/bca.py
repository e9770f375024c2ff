"""Bias-corrected and accelerated intervals: the best coverage near 1 and with few positives.

Efron 1987 (J. Am. Stat. Assoc. 82:171). About 2000 resamples or more; with fewer take the percentile
interval, whose ends lie less far out.
"""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Float64

from chexmsn.metrics.bootstrap import UNDEFINED_AT_MOST, AtMost, Interval, undefined_share

_NORMAL = NormalDist()
_ROUNDING = 1e-13  # two ways to the same number differ by less


def bca_interval(
    value: Float[np.ndarray, "*C"] | float,
    samples: Float[np.ndarray, "R *C"],
    left_out: Float[np.ndarray, "U *C"],
    level: float = 0.95,
    *,
    undefined_at_most: AtMost = UNDEFINED_AT_MOST,
) -> Interval:
    """The BCa interval of an estimate from its resamples and its leave-one-patient-out values.

    Findings, macro, drops and differences alike: what is done to the values is done to all three arrays.
    No interval (NaN) as `percentile_interval`, and where a left-out value is undefined or all resamples lie on one
    side of the value. Where every resample equals the value (constant scores, perfect separation) it has no width:
    resampling the same patients cannot show more, and a reader should be told.

    Args:
        value: on the test set.
        samples: on each resample.
        left_out: without each patient (`jackknife`).
        level: nominal coverage.
        undefined_at_most: share of resamples without a value that an interval bears, one for all or one per column.

    >>> samples = np.linspace(0.0, 1.0, 1001)
    >>> [float(end.round(3)) for end in bca_interval(0.5, samples, np.array([0.4, 0.5, 0.6]))]
    [0.025, 0.975]
    """
    values, columns = np.ravel(value), samples.reshape(len(samples), -1)
    bias, skew = bias_correction(values, columns), acceleration(values, left_out.reshape(len(left_out), -1))
    usable = (undefined_share(columns) <= undefined_at_most) & np.isfinite(bias) & np.isfinite(skew)
    ends = np.full((2, columns.shape[1]), np.nan)
    for c in np.flatnonzero(usable):
        shares = [_adjusted(tail, bias[c], skew[c]) for tail in ((1 - level) / 2, (1 + level) / 2)]
        ends[:, c] = np.quantile(columns[~np.isnan(columns[:, c]), c], shares)
    return Interval(*ends.reshape(2, *samples.shape[1:]))


def bias_correction(value: Float[np.ndarray, "C"], samples: Float[np.ndarray, "R C"]) -> Float64[np.ndarray, "C"]:
    """z0: the normal quantile of the share of resamples below the value, those equal to it counting one half.

    Infinite where all lie on one side; NaN where there is no value.
    """
    defined = (~np.isnan(samples)).sum(axis=0)
    below = ((samples < value).sum(axis=0) + (samples <= value).sum(axis=0)) / 2
    share = np.where(np.isnan(value), np.nan, below) / np.where(defined > 0, defined, np.nan)
    return np.array([_quantile(s) for s in share])


def acceleration(value: Float[np.ndarray, "C"], left_out: Float[np.ndarray, "U C"]) -> Float64[np.ndarray, "C"]:
    """a: the skewness of the leave-one-out values, over 6; 0 where leaving out any patient changes nothing.

    A patient who changes nothing, such as one without labelled images, is no part of the sample.
    """
    moved = ~(np.abs(left_out - value) <= _ROUNDING)
    mean = np.where(moved, left_out, 0.0).sum(axis=0) / moved.sum(axis=0).clip(min=1)
    deviation = np.where(moved, mean - left_out, 0.0)
    squares = (deviation**2).sum(axis=0)
    return (deviation**3).sum(axis=0) / (6 * np.where(squares == 0, 1.0, squares) ** 1.5)


def _adjusted(share: float, bias: float, skew: float) -> float:
    shifted = bias + _NORMAL.inv_cdf(share)
    return _NORMAL.cdf(bias + shifted / (1 - skew * shifted))


def _quantile(share: float) -> float:
    if 0 < share < 1:
        return _NORMAL.inv_cdf(share)
    return {0.0: -np.inf, 1.0: np.inf}.get(share, np.nan)
