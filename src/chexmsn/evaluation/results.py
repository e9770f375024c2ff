"""From scores and labels to the table of results: values, drops and their intervals.

Everything is computed from two tables, so that results can be repeated, and another statistic be
tried, without the model. Every condition, metric and finding sees the same resamples of the
patients, which makes every drop a paired one.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float

from chexmsn.core.errors import UserError
from chexmsn.core.progress import progress
from chexmsn.evaluation.cohort import Cohort, Estimate, Resampling
from chexmsn.evaluation.conditions import CLEAN, Condition
from chexmsn.metrics.bootstrap import resampled_auroc, resampled_average_precision
from chexmsn.metrics.degradation import above_chance_drop, absolute_drop, relative_drop
from chexmsn.metrics.jackknife import left_out, left_out_auroc
from chexmsn.metrics.ranking import auroc, average_precision

Ranking = Float[np.ndarray, "N C"]


@dataclass(frozen=True)
class Metric:
    """How a ranking is judged, and what a ranking by chance would reach."""

    value: Callable[[Ranking, Ranking], Float[np.ndarray, "C"]]
    resampled: Callable[..., Float[np.ndarray, "R C"]]
    left_out: Callable[..., Float[np.ndarray, "U C"]]
    chance: Callable[[Cohort], Estimate]

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


def _one_half(cohort: Cohort) -> Estimate:
    half = np.full(len(cohort.findings), 0.5)
    return cohort.with_macro(half, *(np.tile(half, (n, 1)) for n in (len(cohort.counts), cohort.left_out_rows)))


_precision_left_out = partial(left_out, resampled_average_precision)
METRICS = {
    "auroc": Metric(auroc, resampled_auroc, left_out_auroc, _one_half),
    "average_precision": Metric(
        average_precision, resampled_average_precision, _precision_left_out, lambda cohort: cohort.prevalence
    ),
}
DROPS = ("absolute_drop", "relative_drop", "above_chance_drop")
_COLUMNS = {"value": ("value", "low", "high")} | {drop: (drop, f"{drop}_low", f"{drop}_high") for drop in DROPS}
COLUMNS = (
    *("model", "corruption", "severity", "finding", "metric"),
    *(name for names in _COLUMNS.values() for name in names),
    *("images", "patients", "positives", "status", "seen_in_training"),
)


def results_table(
    scores: pd.DataFrame,
    labels: pd.DataFrame,
    conditions: Sequence[Condition],
    *,
    model: str,
    not_applicable: Mapping[Condition, str],
    seen: Collection[str],
    resampling: Resampling,
) -> pd.DataFrame:
    """The long table of results: one row per condition, metric and finding, `macro` first.

    Drops compare with the clean condition: absolute A0 - A, relative (A0 - A) / A0, above chance
    (A0 - A) / (A0 - chance), where chance is 0.5 for AUROC and the prevalence for average precision.
    The macro drops are those of the macro values (ratios of means, not means of ratios).

    `status` is "ok", or the sentence that says why there is no value. A value without an interval (NaN)
    is one for which too many resamples have no patient with, or none without, the finding.

    Args:
        scores: `scores.parquet`: image_key, corruption, severity, repeat, one `score:<Finding>` per finding.
        labels: `labels.parquet`: image_key, patient_id, one `label:<Finding>` per finding (1, 0; NaN is left out).
        conditions: the conditions of the table, the clean one among them.
        model: the model's name.
        not_applicable: conditions that do not apply to this model, each with the sentence that says so.
        seen: corruptions the model was trained on.
        resampling: how the intervals come about.

    Raises:
        UserError: scores and labels are not of the same images and findings.
    """
    cohort = Cohort.of(labels, resampling)
    cells = rankings(scores, cohort)
    clean = {name: metric.estimate(cells[CLEAN], cohort) for name, metric in METRICS.items()}
    parts = []
    for condition in progress(conditions, total=len(conditions), title="statistics", unit="condition"):
        for name, metric in METRICS.items():
            if condition in not_applicable:
                rows = cohort.sizes.assign(status=not_applicable[condition])
            else:
                rows = _rows(clean[name], metric.estimate(cells[condition], cohort), metric.chance(cohort), cohort)
            about = {"model": model, "corruption": condition.corruption, "severity": condition.severity}
            parts.append(rows.assign(**about, metric=name, seen_in_training=condition.corruption in seen))
    return pd.concat([part.reindex(columns=COLUMNS) for part in parts], ignore_index=True)


def without_interval(table: pd.DataFrame) -> list[str]:
    """Of macro and the findings, those that have a value and no interval: too few patients with or without it."""
    clean = table[(table["corruption"] == CLEAN.corruption) & (table["metric"] == "auroc")]
    return clean.loc[clean["value"].notna() & clean["low"].isna(), "finding"].tolist()


def rankings(scores: pd.DataFrame, cohort: Cohort) -> dict[Condition, list[Ranking]]:
    """Scores per condition, one N x C array per repeat, rows as in the cohort.

    Raises UserError where scores and labels are not of the same images and findings.
    """
    columns = [f"score:{finding}" for finding in cohort.findings]
    if missing := [name for name in columns if name not in scores]:
        raise UserError(f"the scores lack the columns {', '.join(missing)}: scores and labels must be of one run")
    cells: dict[Condition, list[Ranking]] = {}
    for (corruption, severity, repeat), cell in scores.groupby(["corruption", "severity", "repeat"], observed=True):
        ranking = cell.set_index("image_key")[columns].reindex(cohort.table["image_key"]).to_numpy(np.float64)
        if len(cell) != len(ranking) or np.isnan(ranking).any():
            what = f"{corruption} at severity {severity:g}, repeat {repeat}"
            raise UserError(
                f"the scores of {what} are not one per labelled image: scores and labels must be of one run"
            )
        cells.setdefault(Condition(str(corruption), float(severity)), []).append(ranking)
    return cells


def _rows(clean: Estimate, corrupted: Estimate, chance: Estimate, cohort: Cohort) -> pd.DataFrame:
    """Value, drops and intervals, macro first."""
    measured = {
        "value": corrupted,
        "absolute_drop": Estimate(*map(absolute_drop, clean, corrupted)),
        "relative_drop": Estimate(*map(relative_drop, clean, corrupted)),
        "above_chance_drop": Estimate(*map(above_chance_drop, clean, corrupted, chance)),
    }
    rows = cohort.sizes.copy()
    for name, estimate in measured.items():
        rows[list(_COLUMNS[name])] = np.column_stack([estimate.value, *cohort.interval(estimate)])
    return rows.assign(status=[cohort.without_value.get(finding, "ok") for finding in rows["finding"]])
