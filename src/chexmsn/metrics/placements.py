"""What each image contributes to an AUROC, which is all that analytic variances and the jackknife need."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Real


class Placements(NamedTuple):
    """One finding's P positives and M negatives, in the order of the images.

    Attributes:
        wins: of each positive, how many negatives score below it, ties counting one half.
        losses: of each negative, how many positives score above it, ties counting one half.
    """

    wins: Float64[np.ndarray, "P"]
    losses: Float64[np.ndarray, "M"]


def placements(scores: Float[np.ndarray, "N"], labels: Float[np.ndarray, "N"]) -> Placements:
    """The placements of one finding's images; NaN labels are left out.

    Differences of midranks in the joint and the separate samples (Sun and Xu 2014, IEEE Signal Process. Lett.
    21:1389), found in O(N log N) by looking each class up in the other. Either sum divided by P M is the AUROC.

    >>> placements(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    Placements(wins=array([1.5, 2. ]), losses=array([2. , 1.5]))
    """
    high, low = scores[labels == 1], scores[labels == 0]
    return Placements(count_below(low, high), len(high) - count_below(high, low))


def count_below(others: Real[np.ndarray, "M"], scores: Real[np.ndarray, "P"]) -> Float64[np.ndarray, "P"]:
    """How many of the others lie below each score, those equal to it counting one half."""
    ascending = np.sort(others)
    return (np.searchsorted(ascending, scores) + np.searchsorted(ascending, scores, "right")) / 2
