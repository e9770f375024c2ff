"""Lines through log odds: how scores would have to be bent to be probabilities.

Logistic regression of the labels on the scores' log odds, per finding, by Newton's method. Scores are
probabilities in [0, 1], labels 1, 0 or NaN (left out). Probabilities within 1e-7 of 0 or 1 count as
that far away, since their log odds are infinite.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from chexmsn.metrics.calibration import check_probabilities

_NEAREST = 1e-7
_STEPS = 100
_EXACT = 1e-10  # in log odds, as the next
_REACH = 4.0


class CalibrationLine(NamedTuple):
    """log odds of the truth = intercept + slope x log odds of the score, per finding; 1 and 0 are perfect.

    Attributes:
        slope: below 1 the scores are too extreme (overconfident), above 1 too timid.
        intercept: fitted together with the slope.
        in_the_large: the intercept at slope 1: above 0 the scores are too low on the whole.
    """

    slope: Float64[np.ndarray, "C"]
    intercept: Float64[np.ndarray, "C"]
    in_the_large: Float64[np.ndarray, "C"]


def calibration_line(scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"]) -> CalibrationLine:
    """Calibration slope and intercepts (Cox 1958; Van Calster et al. 2019, BMC Med. 17:230).

    NaN where a finding has one class only; slope and intercept also where the scores are constant or separate the
    classes perfectly, for which no finite line is best. Raises UserError as `reliability`.
    """
    check_probabilities(scores, labels)
    return CalibrationLine(*np.array([_line(*_known(s, y)) for s, y in zip(scores.T, labels.T, strict=True)]).T)


def _known(
    scores: Float[np.ndarray, "N"], labels: Float[np.ndarray, "N"]
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    known = ~np.isnan(labels)
    return _log_odds(scores[known]), labels[known].astype(np.float64)


def _line(x: Float64[np.ndarray, "n"], y: Float64[np.ndarray, "n"]) -> tuple[float, float, float]:
    if not 0 < y.sum() < len(y):
        return np.nan, np.nan, np.nan
    (in_the_large,) = _newton(np.ones((len(x), 1)), y, x)
    if np.ptp(x) == 0 or _separated(x, y):
        return np.nan, np.nan, float(in_the_large)
    intercept, slope = _newton(np.stack([np.ones_like(x), x], axis=1), y, np.zeros_like(x))
    return float(slope), float(intercept), float(in_the_large)


def _separated(x: Float64[np.ndarray, "n"], y: Float64[np.ndarray, "n"]) -> bool:
    positive, negative = x[y == 1], x[y == 0]
    return bool(positive.min() >= negative.max() or positive.max() <= negative.min())


def _newton(
    features: Float64[np.ndarray, "n D"], y: Float64[np.ndarray, "n"], offset: Float64[np.ndarray, "n"]
) -> Float64[np.ndarray, "D"]:
    """The maximum likelihood weights.

    The likelihood is concave, but nearly straight where probabilities are close to 0 or 1: no step may change the log
    odds by more than `_REACH`, and steps are halved until the likelihood does not fall.
    """
    weights, z = np.zeros(features.shape[1]), offset
    for _ in range(_STEPS):
        curvature = (features * (_sigmoid(z) * _sigmoid(-z))[:, None]).T @ features
        step = np.linalg.solve(curvature, features.T @ (y - _sigmoid(z)))
        change = np.abs(features @ step).max()
        if change <= _EXACT:
            break
        step *= min(1.0, _REACH / change)
        while _likelihood(z + features @ step, y) < _likelihood(z, y):
            step /= 2
        weights = weights + step
        z = offset + features @ weights
    return weights


def _likelihood(z: Float64[np.ndarray, "n"], y: Float64[np.ndarray, "n"]) -> float:
    return float((y * z - np.logaddexp(0, z)).sum())


def _log_odds(scores: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    p = scores.astype(np.float64).clip(_NEAREST, 1 - _NEAREST)
    return np.log(p) - np.log1p(-p)


def _sigmoid(z: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return np.exp(-np.logaddexp(0, -z))
