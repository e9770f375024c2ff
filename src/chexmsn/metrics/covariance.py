"""Variances of AUROCs without resampling, and tests of their differences.

The quick check beside the bootstrap: per finding only, since a macro needs the covariance of
findings. Scores of K models on the same images are K x N x C.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from chexmsn.metrics.placements import placements
from chexmsn.metrics.ranking import check_scores

_ROUNDING = 1e-12  # a variance of a difference below this share of the variances is rounding


class Covariance(NamedTuple):
    """AUROCs of K models per finding, and how they vary together; NaN where undefined."""

    auroc: Float64[np.ndarray, "K C"]
    covariance: Float64[np.ndarray, "C K K"]


class ZTest(NamedTuple):
    """A difference of two AUROCs per finding, its standard score and two-sided p value."""

    difference: Float64[np.ndarray, "C"]
    z: Float64[np.ndarray, "C"]
    p: Float64[np.ndarray, "C"]


def z_test(estimate: Covariance, first: int = 0, second: int = 1) -> ZTest:
    """Do two of the models differ? Positive where the first ranks better.

    No z and no p (NaN) where the variance of the difference is 0 or undefined: two equal models, constant
    scores or perfect separation by both, a single positive.
    """
    difference = estimate.auroc[first] - estimate.auroc[second]
    both = estimate.covariance[:, [first, first, second], [first, second, second]]
    variance = both @ np.array([1.0, -2.0, 1.0])
    known = variance > _ROUNDING * (both[:, 0] + both[:, 2])
    z = difference / np.sqrt(np.where(known, variance, np.nan))
    return ZTest(difference, z, np.array([math.erfc(abs(value) / math.sqrt(2)) for value in z]))


def clustered_covariance(
    scores: Float[np.ndarray, "K N C"], labels: Float[np.ndarray, "N C"], patients: Shaped[np.ndarray, "N"]
) -> Covariance:
    """The covariance of Obuchowski 1997 (Biometrics 53:567): DeLong's for patients with several images.

    With one image a patient it is that of DeLong et al. 1988 (Biometrics 44:837). Undefined (NaN) below two patients
    with positives or two with negatives, counting labelled images alone; 0 for constant scores and for perfect
    separation, which proves nothing. Close to the bootstrap by patient, and too low by up to a tenth with few positive
    patients. Raises UserError as `auroc`.

    >>> rng = np.random.default_rng(0)
    >>> labels = (rng.random((200, 1)) < 0.3).astype(float)
    >>> scores = np.stack([labels + rng.normal(size=(200, 1)), rng.normal(size=(200, 1))])
    >>> bool(z_test(clustered_covariance(scores, labels, np.arange(200))).p[0] < 1e-6)
    True
    """
    for of_model in scores:
        check_scores(of_model, labels)
    patient_of = np.unique(patients, return_inverse=True)[1]
    findings = [_of_finding(scores[:, :, c], labels[:, c], patient_of) for c in range(labels.shape[1])]
    return Covariance(np.stack([auroc for auroc, _ in findings], axis=1), np.stack([matrix for _, matrix in findings]))


def _of_finding(
    scores: Float[np.ndarray, "K N"], label: Float[np.ndarray, "N"], patient_of: Int64[np.ndarray, "N"]
) -> tuple[Float64[np.ndarray, "K"], Float64[np.ndarray, "K K"]]:
    models, positives, negatives = len(scores), int((label == 1).sum()), int((label == 0).sum())
    if not (positives and negatives):
        return np.full(models, np.nan), np.full((models, models), np.nan)
    wins, losses = map(np.stack, zip(*(placements(of_model, label) for of_model in scores), strict=True))
    auroc = wins.mean(axis=1) / negatives
    own, other = wins / negatives - auroc[:, None], losses / positives - auroc[:, None]
    positive, negative = patient_of[label == 1], patient_of[label == 0]
    everyone = int(patient_of.max()) + 1
    a, b = _sums(own / positives, positive, everyone), _sums(other / negatives, negative, everyone)
    cross = _scatter(a, b, len(np.union1d(positive, negative)))
    alone = _scatter(a, a, len(np.unique(positive))) + _scatter(b, b, len(np.unique(negative)))
    return auroc, alone + cross + cross.T


def _scatter(a: Float64[np.ndarray, "K U"], b: Float64[np.ndarray, "K U"], units: int) -> Float64[np.ndarray, "K K"]:
    return a @ b.T * (units / (units - 1) if units > 1 else np.nan)


def _sums(
    deviations: Float64[np.ndarray, "K P"], patient_of: Int64[np.ndarray, "P"], patients: int
) -> Float64[np.ndarray, "K U"]:
    return np.stack([np.bincount(patient_of, row, minlength=patients) for row in deviations])
