"""Variances of AUROCs without resampling, and tests of their differences.

The quick check beside the bootstrap: per finding only, since a macro needs the covariance of
findings. Scores of K models on the same images are K x N x C.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from chexmsn.metrics.bootstrap import Interval
from chexmsn.metrics.placements import placements
from chexmsn.metrics.ranking import check_scores

_ROUNDING = 1e-12  # a variance of a difference below this share of the variances is rounding


class Covariance(NamedTuple):
    """AUROCs of K models per finding, and how they vary together; NaN where undefined."""

    auroc: Float64[np.ndarray, "K C"]
    covariance: Float64[np.ndarray, "C K K"]

    def interval(self, level: float = 0.95) -> Interval:
        """The normal interval, K x C, cut to [0, 1]; of no width where the variance is 0."""
        deviation = np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2)).T
        reach = NormalDist().inv_cdf((1 + level) / 2) * deviation
        return Interval((self.auroc - reach).clip(0, 1), (self.auroc + reach).clip(0, 1))


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


def delong_covariance(scores: Float[np.ndarray, "K N C"], labels: Float[np.ndarray, "N C"]) -> Covariance:
    """The covariance of DeLong et al. 1988 (Biometrics 44:837), for independent images.

    Test sets with many images per patient are not: there take `clustered_covariance`. Undefined (NaN) below two
    positives or two negatives; 0 for constant scores and for perfect separation, which proves nothing.
    Raises UserError as `auroc`.

    >>> rng = np.random.default_rng(0)
    >>> labels = (rng.random((200, 1)) < 0.3).astype(float)
    >>> scores = np.stack([labels + rng.normal(size=(200, 1)), rng.normal(size=(200, 1))])
    >>> bool(z_test(delong_covariance(scores, labels)).p[0] < 1e-6)
    True
    """
    return _covariance(scores, labels, lambda own, other, _: _sample_covariance(own) + _sample_covariance(other))


def clustered_covariance(
    scores: Float[np.ndarray, "K N C"], labels: Float[np.ndarray, "N C"], patients: Shaped[np.ndarray, "N"]
) -> Covariance:
    """The covariance of Obuchowski 1997 (Biometrics 53:567): DeLong's for patients with several images.

    Undefined (NaN) below two patients with positives or two with negatives, counting labelled images alone. Close to
    the bootstrap by patient, and too low by up to a tenth with few positive patients. Raises UserError as `auroc`.
    """
    names, patient_of = np.unique(patients, return_inverse=True)

    def of_patients(
        own: Float64[np.ndarray, "K P"], other: Float64[np.ndarray, "K M"], label: Float[np.ndarray, "N"]
    ) -> Float64[np.ndarray, "K K"]:
        positive, negative = patient_of[label == 1], patient_of[label == 0]
        a, b = _sums(own, positive, len(names)), _sums(other, negative, len(names))
        both = len(np.union1d(positive, negative))
        cross = _scatter(a, b, both)
        return _scatter(a, a, len(np.unique(positive))) + _scatter(b, b, len(np.unique(negative))) + cross + cross.T

    return _covariance(scores, labels, of_patients)


def _covariance(
    scores: Float[np.ndarray, "K N C"], labels: Float[np.ndarray, "N C"], estimate: Callable[..., np.ndarray]
) -> Covariance:
    """AUROCs, and `estimate` of every finding's deviations: of positives / P and of negatives / M, and its labels."""
    for of_model in scores:
        check_scores(of_model, labels)
    findings = [_of_finding(scores[:, :, c], labels[:, c], estimate) for c in range(labels.shape[1])]
    return Covariance(np.stack([auroc for auroc, _ in findings], axis=1), np.stack([matrix for _, matrix in findings]))


def _of_finding(
    scores: Float[np.ndarray, "K N"], labels: Float[np.ndarray, "N"], estimate: Callable[..., np.ndarray]
) -> tuple[Float64[np.ndarray, "K"], Float64[np.ndarray, "K K"]]:
    models, positives, negatives = len(scores), int((labels == 1).sum()), int((labels == 0).sum())
    if not (positives and negatives):
        return np.full(models, np.nan), np.full((models, models), np.nan)
    wins, losses = map(np.stack, zip(*(placements(of_model, labels) for of_model in scores), strict=True))
    auroc = wins.mean(axis=1) / negatives
    own, other = wins / negatives - auroc[:, None], losses / positives - auroc[:, None]
    return auroc, estimate(own / positives, other / negatives, labels)


def _sample_covariance(deviations: Float64[np.ndarray, "K P"]) -> Float64[np.ndarray, "K K"]:
    return _scatter(deviations, deviations, deviations.shape[1])


def _scatter(a: Float64[np.ndarray, "K U"], b: Float64[np.ndarray, "K U"], units: int) -> Float64[np.ndarray, "K K"]:
    return a @ b.T * (units / (units - 1) if units > 1 else np.nan)


def _sums(
    deviations: Float64[np.ndarray, "K P"], patient_of: Int64[np.ndarray, "P"], patients: int
) -> Float64[np.ndarray, "K U"]:
    return np.stack([np.bincount(patient_of, row, minlength=patients) for row in deviations])
