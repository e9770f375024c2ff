"""What is measured of scores, with its resamples: the ranking, and how far the scores are probabilities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from chexmsn.core.errors import UserError
from chexmsn.evaluation.cohort import LEVEL, MACRO, Cohort, Estimate
from chexmsn.evaluation.conditions import Condition
from chexmsn.metrics.bootstrap import resampled_auroc, resampled_average_precision
from chexmsn.metrics.jackknife import left_out, left_out_auroc
from chexmsn.metrics.ranking import auroc, average_precision

Ranking = Float[np.ndarray, "N C"]
Parts = TypeVar("Parts", bound=tuple)
Cells = Mapping[Condition, Sequence[Ranking]]
"""The scores under each condition, one array per repeat, rows as in the cohort."""


@dataclass(frozen=True)
class Measure:
    """A metric of scores and labels (N x C each): on the test set, on resamples, and without each patient."""

    value: Callable[[Ranking, Ranking], Float[np.ndarray, "C"]]
    resampled: Callable[..., Float[np.ndarray, "R C"]]
    left_out: Callable[..., Float[np.ndarray, "U C"]]

    @classmethod
    def of(cls, value: Callable, resampled: Callable) -> "Measure":
        """A metric whose leave-one-patient-out values are resamples like others."""
        return cls(value, resampled, partial(left_out, resampled))

    def estimate(self, repeats: Sequence[Ranking], cohort: Cohort) -> Estimate:
        """The mean over the repeats of a random corruption.

        Each image has draws of its own, so resampling patients already carries the spread of the draws.
        """
        each = [self._parts(scores, cohort) for scores in repeats]
        return cohort.with_macro(*(np.mean(part, axis=0) for part in zip(*each, strict=True)))

    def _parts(self, scores: Ranking, cohort: Cohort) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        without = np.empty((0, len(cohort.findings)))
        if cohort.left_out_rows:
            without = self.left_out(scores, cohort.labels, cohort.patients)
        return self.value(scores, cohort.labels), self.resampled(scores, cohort.labels, cohort.counts), without


RANKING = {
    "auroc": Measure(auroc, resampled_auroc, left_out_auroc),
    "average_precision": Measure.of(average_precision, resampled_average_precision),
}


def read_cells(scores: pd.DataFrame, cohort: Cohort) -> dict[Condition, list[Ranking]]:
    """The cells of a table of scores.

    Raises UserError where scores and labels are not of the same images and findings.
    """
    columns = [f"score:{finding}" for finding in cohort.findings]
    if missing := [name for name in columns if name not in scores]:
        raise UserError(f"the scores lack the columns {', '.join(missing)}: scores and labels must be of one run")
    cells: dict[Condition, list[Ranking]] = {}
    for (corruption, severity, repeat), cell in scores.groupby(["corruption", "severity", "repeat"], observed=True):
        array = cell.set_index("image_key")[columns].reindex(cohort.table["image_key"]).to_numpy(np.float64)
        if len(cell) != len(array) or np.isnan(array).any():
            what = f"{corruption} at severity {severity:g}, repeat {repeat}"
            raise UserError(
                f"the scores of {what} are not one per labelled image: scores and labels must be of one run"
            )
        cells.setdefault(Condition(str(corruption), severity), []).append(array)
    return cells


def not_surely_above(
    clean: Float[np.ndarray, "R F"], chance: float | Float[np.ndarray, "R F"]
) -> Bool[np.ndarray, "F"]:
    """Where the 95 % interval of the clean value reaches down to chance: a share of such a skill tells nothing.

    >>> not_surely_above(np.array([[0.4, 0.6], [0.6, 0.7]]), 0.5)
    array([ True, False])
    """
    gap = clean - chance
    return (gap <= 0).sum(axis=0) > (1 - LEVEL) / 2 * (~np.isnan(gap)).sum(axis=0)


def where_skilled(share: Parts, clean: Parts, chance: float | Float[np.ndarray, "R F"]) -> Parts:
    """A share of the skill above chance, without a number where the clean value is not surely above chance."""
    unsure = not_surely_above(clean.samples, chance)
    return type(share)(*(np.where(unsure, np.nan, part) for part in share))


def rows_of(cohort: Cohort, estimate: Estimate, **about: object) -> pd.DataFrame:
    """The value and interval of an estimate as rows of a long table, macro first."""
    low, high = cohort.interval(estimate)
    return named(cohort, **about, value=estimate.value, low=low, high=high)


def named(cohort: Cohort, **columns: object) -> pd.DataFrame:
    """A table of a row for macro and for each finding."""
    return pd.DataFrame({"finding": [MACRO, *cohort.findings], **columns})
