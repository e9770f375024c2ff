"""AUROC and average precision per finding.

Both compare every positive image with the others, so one sorted list per finding is all they need:
where each positive's score falls among the negatives and among the positives. Labels are 1, 0 or
NaN; NaN leaves the image out for that finding alone. A finding whose images are all of one class
has no value (NaN): scikit-learn's answer to that changed from an error to 0.0 to NaN over the years.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from chexmsn.core.errors import UserError


class Ranking(NamedTuple):
    """One finding's images sorted by score (P positives, M negatives), and where the positives fall among them.

    Attributes:
        positives: rows of the positive images, lowest score first.
        negatives: rows of the negative images, lowest score first.
        below: how many negatives score less than each positive.
        up_to: how many negatives score at most as much as each positive.
        peers_below: how many positives score less than each positive.
    """

    positives: Int64[np.ndarray, "P"]
    negatives: Int64[np.ndarray, "M"]
    below: Int64[np.ndarray, "P"]
    up_to: Int64[np.ndarray, "P"]
    peers_below: Int64[np.ndarray, "P"]

    @property
    def has_both_classes(self) -> bool:
        return len(self.positives) > 0 and len(self.negatives) > 0


def rank(scores: Float[np.ndarray, "N"], labels: Float[np.ndarray, "N"]) -> Ranking:
    """Sort one finding's images once; NaN labels are left out."""
    order = np.argsort(scores, kind="stable")
    positives, negatives = (order[labels[order] == label] for label in (1, 0))
    low, high = scores[negatives], scores[positives]
    return Ranking(
        positives,
        negatives,
        np.searchsorted(low, high),
        np.searchsorted(low, high, "right"),
        np.searchsorted(high, high),
    )


def auroc(scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "C"]:
    """Area under the ROC curve per finding: P(a positive scores above a negative) + P(they tie) / 2.

    NaN where a finding has one class only (no images at all included); 0.5 where its scores are constant.
    Raises UserError where a score is not finite, a label is none of 0, 1, NaN, or there is no finding.

    >>> auroc(np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0.0], [0.0], [1.0], [1.0]]))
    array([0.75])
    """
    return per_finding(_auroc, scores, labels)


def average_precision(scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "C"]:
    """Average precision per finding: precision summed over steps of recall, tied scores as one step.

    Its chance level is the prevalence. Not the trapezoidal area under the precision-recall curve,
    which is larger. NaN and UserError as `auroc`; constant scores reach the prevalence.

    >>> average_precision(np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0.0], [0.0], [1.0], [1.0]])).round(4)
    array([0.8333])
    """
    return per_finding(_average_precision, scores, labels)


def _auroc(ranking: Ranking) -> float:
    if not ranking.has_both_classes:
        return np.nan
    return float((ranking.below + ranking.up_to).mean() / 2 / len(ranking.negatives))


def _average_precision(ranking: Ranking) -> float:
    if not ranking.has_both_classes:
        return np.nan
    hits = len(ranking.positives) - ranking.peers_below
    false_alarms = len(ranking.negatives) - ranking.below
    return float((hits / (hits + false_alarms)).mean())


def per_finding(
    metric: Callable[[Ranking], np.ndarray | float], scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, "*R C"]:
    """A metric of every finding, side by side. Raises UserError as `auroc` does."""
    check_scores(scores, labels)
    return np.stack([metric(rank(s, y)) for s, y in zip(scores.T, labels.T, strict=True)], axis=-1)


def check_scores(scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"]) -> None:
    """Raise UserError where a score is NaN or infinite, a label is none of 0, 1, NaN, or there is no finding."""
    if scores.shape[1] == 0:
        raise UserError("there is no finding to judge, the scores have 0 columns: give one column per finding")
    if not np.isfinite(scores).all():
        image, finding = np.argwhere(~np.isfinite(scores))[0]
        what = f"that of image {image}, finding {finding} is {scores[image, finding]:g}".replace("nan", "NaN")
        raise UserError(f"scores must be finite numbers, but {what}: score it anew")
    wrong = labels[~(np.isnan(labels) | (labels == 0) | (labels == 1))]
    if wrong.size:
        raise UserError(f"labels to rank by must be 0, 1 or NaN, not {wrong[0]:g}: choose another label policy")


def both_classes(labels: Float[np.ndarray, "N C"]) -> Bool[np.ndarray, "C"]:
    """Which findings have positives and negatives, and hence an AUROC."""
    return (labels == 1).any(axis=0) & (labels == 0).any(axis=0)


def macro(values: Float[np.ndarray, "*R C"], findings: Bool[np.ndarray, "C"]) -> Float[np.ndarray, "*R"]:
    """The unweighted mean over a fixed set of findings.

    Choose the set once, on the labels of the clean test set (`both_classes`), and keep it for every
    model, condition and resample: a macro over a changing set cannot be compared. Where one of the
    set has no value, the macro has none (NaN).

    >>> float(macro(np.array([0.8, 0.6, np.nan]), np.array([True, True, False])))
    0.7
    """
    return np.asarray(values[..., findings].mean(axis=-1))
