"""Logistic regression on features, one per finding, with an L2 penalty.

The low-shot evaluation of Masked Siamese Networks (Assran et al. 2022, arXiv 2204.07141; facebookresearch/msn
`logistic_eval.py`) is a setting: `--features before-norm --options.scaling per-sample --options.C "[400, 4000]"`
(their penalties 0.0025 and 0.00025 on the sum of the losses). Where we differ: one regression per finding in place of
a softmax over classes, and scikit-learn's solver to convergence in place of 300 passes.
"""

import functools
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from chexmsn.core.limits import check_limits
from chexmsn.evaluation.probes._base import AbstractProbe, Bank, Scores, Setting

log = logging.getLogger(__name__)

PASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of logistic regression; of several values, the best on the validation split is taken.

    Attributes:
        C: weight of the losses' sum against half the squared length of the weights; small values are a strong penalty.
        scaling: standardised (every feature to mean 0 and standard deviation 1 on the images that are fitted to), or
            per-sample (every image's features to mean 0 and length 1, and no intercept: MSN's).
    """

    C: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    scaling: Literal["standardised", "per-sample"] = "standardised"

    def __post_init__(self) -> None:
        check_limits(self, C="(0, inf)")


class Probe(AbstractProbe):
    """Each finding's regression is fitted to the images whose label is known."""

    def __init__(self, config: Config, bank: Bank) -> None:
        super().__init__(config, bank)
        features = _plain(bank.features)
        standard = StandardScaler().fit(features).transform
        self._scale = standard if config.scaling == "standardised" else _per_sample
        self._inputs, self._labels = self._scale(features), _plain(bank.labels)
        self._models = functools.cache(self._fit)

    @property
    def settings(self) -> list[Setting]:
        return [{"C": value} for value in self.config.C]

    def scores(self, queries: Float[Tensor, "N D"], settings: Sequence[Setting]) -> list[Scores]:
        inputs = self._scale(_plain(queries))
        probabilities = ([m.predict_proba(inputs)[:, 1] for m in self._models(**setting)] for setting in settings)
        return [np.stack(findings, axis=1) for findings in probabilities]

    def _fit(self, C: float) -> list[LogisticRegression]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told below, once
            models = [self._fit_one(labels, C) for labels in self._labels.T]
        if slow := sum(model.n_iter_[0] >= PASSES for model in models):
            log.warning("C = %g: %d of %d regressions stopped after %d passes", C, slow, len(models), PASSES)
        return models

    def _fit_one(self, labels: Float[np.ndarray, "M"], C: float) -> LogisticRegression:
        known = ~np.isnan(labels)
        intercept = self.config.scaling == "standardised"
        return LogisticRegression(C=C, fit_intercept=intercept, max_iter=PASSES).fit(self._inputs[known], labels[known])


def _plain(tensor: Float[Tensor, "N D"]) -> Float[np.ndarray, "N D"]:
    return tensor.double().cpu().numpy()


def _per_sample(features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Each image's features around their own mean, scaled to unit length."""
    centred = features - features.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)
