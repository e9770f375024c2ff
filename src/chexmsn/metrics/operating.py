"""What happens at a fixed threshold: AUROC can stay while all scores move past it.

Thresholds are chosen on clean validation images (`thresholds.choose_thresholds`) and kept under every
corruption. A finding counts as present where `score >= threshold`. Labels are 1, 0 or NaN (left out).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Integer

from chexmsn.metrics.ranking import check_scores


class OperatingPoint(NamedTuple):
    """Rates in [0, 1] per finding; NaN where there is nothing to take a share of, or no threshold (NaN).

    Attributes:
        sensitivity: share of the positives that are called present.
        specificity: share of the negatives that are called absent.
        ppv: positive predictive value: share of those called present that are positive.
        npv: negative predictive value: share of those called absent that are negative.
    """

    sensitivity: Float64[np.ndarray, "*R C"]
    specificity: Float64[np.ndarray, "*R C"]
    ppv: Float64[np.ndarray, "*R C"]
    npv: Float64[np.ndarray, "*R C"]


def operating_point(
    scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"], thresholds: Float[np.ndarray, "C"]
) -> OperatingPoint:
    """The rates on the test set. Predictive values hold at its prevalence alone. Raises UserError as `auroc`.

    >>> scores, labels = np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0.0], [0.0], [1.0], [1.0]])
    >>> operating_point(scores, labels, np.array([0.8]))._asdict()
    {'sensitivity': array([0.5]), 'specificity': array([1.]), 'ppv': array([1.]), 'npv': array([0.66666667])}
    """
    once = np.ones((1, len(scores)), np.int64)
    return OperatingPoint(*(rate[0] for rate in resampled_operating_point(scores, labels, thresholds, once)))


def resampled_operating_point(
    scores: Float[np.ndarray, "N C"],
    labels: Float[np.ndarray, "N C"],
    thresholds: Float[np.ndarray, "C"],
    counts: Integer[np.ndarray, "R N"],
) -> OperatingPoint:
    """The rates in every resample, R x C; the thresholds stay. Raises UserError as `auroc`."""
    check_scores(scores, labels)
    weights, present = counts.astype(np.float64), scores >= thresholds
    positive, negative = (weights @ (labels == label) for label in (1, 0))
    hits, false_alarms = (weights @ ((labels == label) & present) for label in (1, 0))
    misses, rejections = positive - hits, negative - false_alarms
    shares = ((hits, positive), (rejections, negative), (hits, hits + false_alarms), (rejections, misses + rejections))
    return OperatingPoint(*(_share(part, whole, thresholds) for part, whole in shares))


def _share(
    part: Float64[np.ndarray, "R C"], whole: Float64[np.ndarray, "R C"], thresholds: Float[np.ndarray, "C"]
) -> Float64[np.ndarray, "R C"]:
    return part / np.where((whole > 0) & ~np.isnan(thresholds), whole, np.nan)
