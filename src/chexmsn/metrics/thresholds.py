"""Operating points: from which score on a finding counts as present."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def choose_thresholds(
    scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"], findings: Sequence[str]
) -> dict[str, float]:
    """The threshold per finding that maximises sensitivity + specificity - 1 (Youden 1950, doi 10.1002/1097-0142).

    A finding counts as present where `score >= threshold`; the threshold is one of the scores, the
    highest of several equally good ones. Labels are 0, 1 or NaN (left out). A finding without
    positives or without negatives has no threshold and is left out of the answer.

    >>> scores, labels = np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0.0], [0.0], [1.0], [1.0]])
    >>> choose_thresholds(scores, labels, ["Edema"])
    {'Edema': 0.8}
    """
    return {name: _youden(scores[:, c], labels[:, c]) for c, name in enumerate(findings) if _has_both(labels[:, c])}


def _has_both(labels: Float[np.ndarray, "N"]) -> bool:
    return bool((labels == 0).any() and (labels == 1).any())


def _youden(scores: Float[np.ndarray, "N"], labels: Float[np.ndarray, "N"]) -> float:
    known = ~np.isnan(labels)
    order = np.argsort(-scores[known], kind="stable")
    ranked, positive = scores[known][order], labels[known][order] == 1
    index = np.flatnonzero(np.append(np.diff(ranked) != 0, True))  # a threshold cannot part tied scores
    hits, false_alarms = np.cumsum(positive)[index], np.cumsum(~positive)[index]
    merit = hits * false_alarms[-1] - false_alarms * hits[-1]  # Youden's index times P N: integers, so ties are exact
    return float(ranked[index][np.argmax(merit)])
