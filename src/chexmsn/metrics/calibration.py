"""Whether a score of 0.8 means 80 %: calibration of probabilities, per finding.

Scores are probabilities in [0, 1], labels 1, 0 or NaN (left out, label by label). A finding of one
class still has a Brier score and a calibration error, but no line through its log odds. Calibration
worsens with corruption faster than ranking does (Ovadia et al. 2019, arXiv 1906.02530).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer

from chexmsn.core.errors import UserError
from chexmsn.metrics.ranking import check_scores

BINS = 15
Binning = Callable[[Float[np.ndarray, "n"]], Int64[np.ndarray, "n"]]
"""Which of the `BINS` bins each probability falls into: `equal_width` or `equal_count`."""


def equal_width(scores: Float[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Bins [k / 15, (k + 1) / 15), and 1 in the last one.

    >>> equal_width(np.array([0.0, 0.07, 0.5, 1.0]))
    array([ 0,  1,  7, 14])
    """
    return np.minimum((scores * BINS).astype(np.int64), BINS - 1)


def equal_count(scores: Float[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Bins of as many images each as can be, the larger ones first: steadier for rare findings.

    Equal scores on a border between bins are parted in the order of the images.
    """
    bins = np.empty(len(scores), np.int64)
    for number, rows in enumerate(np.array_split(np.argsort(scores, kind="stable"), BINS)):
        bins[rows] = number
    return bins


class Reliability(NamedTuple):
    """What is behind each bin of a reliability diagram; NaN in an empty bin.

    Attributes:
        weight: the bin's share of the labelled images.
        score: their mean probability.
        positive: their share of positives.
    """

    weight: Float64[np.ndarray, "*R C 15"]
    score: Float64[np.ndarray, "*R C 15"]
    positive: Float64[np.ndarray, "*R C 15"]


def reliability(
    scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"], binning: Binning = equal_width
) -> Reliability:
    """The reliability table, C x 15. Raises UserError as `auroc`, and for scores outside [0, 1]."""
    return Reliability(*(part[0] for part in resampled_reliability(scores, labels, _once(scores), binning)))


def resampled_reliability(
    scores: Float[np.ndarray, "N C"],
    labels: Float[np.ndarray, "N C"],
    counts: Integer[np.ndarray, "R N"],
    binning: Binning = equal_width,
) -> Reliability:
    """The reliability table of every resample, R x C x 15, in the bins of the test set. Errors as `reliability`."""
    check_probabilities(scores, labels)
    weights, exact = counts.astype(np.float64), scores.astype(np.float64)
    tables = [np.tensordot(weights, _binned(s, y, binning), axes=1) for s, y in zip(exact.T, labels.T, strict=True)]
    images, score, positive = np.stack(tables, axis=1).transpose(2, 0, 1, 3)
    return Reliability(
        _share(images, images.sum(axis=-1, keepdims=True)), _share(score, images), _share(positive, images)
    )


def _binned(
    scores: Float64[np.ndarray, "N"], labels: Float[np.ndarray, "N"], binning: Binning
) -> Float64[np.ndarray, "N 3 15"]:
    """What each image puts into its bin: itself, its probability, its label; nothing where it has no label."""
    known = np.flatnonzero(~np.isnan(labels))
    binned = np.zeros((len(scores), 3, BINS))
    binned[known, :, binning(scores[known])] = np.stack([np.ones(len(known)), scores[known], labels[known]], axis=1)
    return binned


def expected_calibration_error(table: Reliability) -> Float64[np.ndarray, "*R C"]:
    """The mean distance of probability and share of positives over bins, weighted by their images.

    Depends on the binning and is too high for few images: compare at equal binning and size. NaN without labels.

    >>> scores, labels = np.array([[0.1], [0.1], [0.7], [0.7]]), np.array([[0.0], [0.0], [1.0], [0.0]])
    >>> expected_calibration_error(reliability(scores, labels)).round(3)
    array([0.15])
    """
    return np.where(table.weight > 0, table.weight * _gap(table), np.where(table.weight == 0, 0, np.nan)).sum(axis=-1)


def maximum_calibration_error(table: Reliability) -> Float64[np.ndarray, "*R C"]:
    """The largest distance of any bin, however few its images. NaN without labels."""
    return np.fmax.reduce(_gap(table), axis=-1)


def _gap(table: Reliability) -> Float64[np.ndarray, "*R C 15"]:
    return np.abs(table.score - table.positive)


def brier(scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"]) -> Float64[np.ndarray, "C"]:
    """The mean squared distance of probability and label (Brier 1950). NaN without labels; errors as `reliability`.

    >>> brier(np.array([[0.2], [0.9]]), np.array([[0.0], [1.0]])).round(3)
    array([0.025])
    """
    return resampled_brier(scores, labels, _once(scores))[0]


def resampled_brier(
    scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"], counts: Integer[np.ndarray, "R N"]
) -> Float64[np.ndarray, "R C"]:
    """The Brier score per finding in every resample. Errors as `reliability`."""
    check_probabilities(scores, labels)
    known, weights = ~np.isnan(labels), counts.astype(np.float64)
    squares = np.where(known, (scores.astype(np.float64) - np.nan_to_num(labels)) ** 2, 0.0)
    return _share(weights @ squares, weights @ known)


def _once(scores: Float[np.ndarray, "N C"]) -> Integer[np.ndarray, "1 N"]:
    """The resample that is the test set itself."""
    return np.ones((1, len(scores)), np.int64)


def _share(part: Float64[np.ndarray, "..."], whole: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return part / np.where(whole > 0, whole, np.nan)


def check_probabilities(scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"]) -> None:
    """Raise UserError as `auroc` does, and where a score lies outside [0, 1]."""
    check_scores(scores, labels)
    outside = scores[(scores < 0) | (scores > 1)]
    if outside.size:
        raise UserError(
            f"calibration needs probabilities in [0, 1], not {outside[0]:g}: apply the sigmoid to logits first"
        )
