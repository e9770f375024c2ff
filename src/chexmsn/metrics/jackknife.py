"""Leave-one-patient-out values: how much each patient moves an estimate, which BCa intervals need.

Patients are in the order of `np.unique`; leaving out one without labelled images changes nothing.
Drops and differences are functions of the left-out values as they are of the values.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer, Shaped

from chexmsn.metrics.placements import count_below, placements
from chexmsn.metrics.ranking import check_scores

Resampled = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A function of scores (N x C), labels (N x C) and counts (R x N) that gives R x C, such as `resampled_auroc`."""

_BLOCK = 512  # patients at once: bounds the memory


def left_out_auroc(
    scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"], patients: Shaped[np.ndarray, "N"]
) -> Float64[np.ndarray, "U C"]:
    """AUROC per finding without each of the U patients; NaN where the rest has one class only.

    In closed form: a patient takes along what its images win and lose, less what they do among themselves, so all
    patients together cost a few sorts. Raises UserError as `auroc`.

    >>> scores, labels = np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0.0], [0.0], [1.0], [1.0]])
    >>> left_out_auroc(scores, labels, np.array(["a", "b", "c", "d"])).T
    array([[0.5, 1. , 1. , 0.5]])
    """
    check_scores(scores, labels)
    patient_of = np.unique(patients, return_inverse=True)[1]
    return np.stack([_left_out(s, y, patient_of) for s, y in zip(scores.T, labels.T, strict=True)], axis=1)


def _left_out(
    scores: Float[np.ndarray, "N"], labels: Float[np.ndarray, "N"], patient_of: Int64[np.ndarray, "N"]
) -> Float64[np.ndarray, "U"]:
    patients = patient_of.max(initial=-1) + 1
    wins, losses = placements(scores, labels)
    positive, negative = patient_of[labels == 1], patient_of[labels == 0]
    taken = np.bincount(positive, wins, patients) + np.bincount(negative, losses, patients)
    among = np.bincount(positive, _wins_at_home(scores, labels, patient_of), patients)
    p, m = (np.bincount(of_class, minlength=patients) for of_class in (positive, negative))
    pairs = (len(positive) - p) * (len(negative) - m)
    return (wins.sum() - taken + among) / np.where(pairs > 0, pairs, np.nan)


def _wins_at_home(
    scores: Float[np.ndarray, "N"], labels: Float[np.ndarray, "N"], patient_of: Int64[np.ndarray, "N"]
) -> Float64[np.ndarray, "P"]:
    """Of each positive, how many negatives of the same patient it beats."""
    values, rank = np.unique(scores, return_inverse=True)
    start = patient_of * len(values)
    place = start + rank  # sorts by patient first, then by score
    negatives = np.sort(place[labels == 0])
    return count_below(negatives, place[labels == 1]) - np.searchsorted(negatives, start[labels == 1])


def left_out(
    resampled: Resampled,
    scores: Float[np.ndarray, "N C"],
    labels: Float[np.ndarray, "N C"],
    patients: Shaped[np.ndarray, "N"],
) -> Float64[np.ndarray, "U C"]:
    """Any resampled metric without each of the U patients: their images counted 0 times, all others once.

    Costs as much as U resamples; for AUROC, `left_out_auroc` is far quicker.
    """
    patient_of = np.unique(patients, return_inverse=True)[1]
    patients_in_order = np.arange(patient_of.max(initial=-1) + 1)
    blocks = np.split(patients_in_order, range(_BLOCK, len(patients_in_order), _BLOCK))
    return np.concatenate([resampled(scores, labels, _without(block, patient_of)) for block in blocks])


def _without(patients: Int64[np.ndarray, "B"], patient_of: Int64[np.ndarray, "N"]) -> Integer[np.ndarray, "B N"]:
    return (patients[:, None] != patient_of).astype(np.int16)
