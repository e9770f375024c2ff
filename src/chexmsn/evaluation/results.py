"""The table of results: values, drops and their intervals.

Every condition, metric and finding sees the same resamples of the patients, which makes every drop a paired one.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from chexmsn.evaluation.cohort import Cohort, Estimate
from chexmsn.evaluation.conditions import CLEAN, Condition
from chexmsn.evaluation.measures import not_surely_above, where_skilled
from chexmsn.evaluation.notes import FEW, NO_WIDTH, RARE, UNSKILLED
from chexmsn.metrics.bootstrap import FEWEST_PATIENTS
from chexmsn.metrics.degradation import above_chance_drop, absolute_drop, relative_drop

DROPS = ("absolute_drop", "relative_drop", "above_chance_drop")
DROP_COLUMNS = {"value": ("value", "low", "high")} | {drop: (drop, f"{drop}_low", f"{drop}_high") for drop in DROPS}
COLUMNS = (
    *("model", "corruption", "severity", "finding", "metric"),
    *(name for names in DROP_COLUMNS.values() for name in names),
    *("images", "patients", "positives", "status", "seen_in_training", "note"),
)


def results_table(
    estimates: Mapping[Condition, Mapping[str, Estimate]],
    cohort: Cohort,
    conditions: Sequence[Condition],
    *,
    model: str,
    not_applicable: Mapping[Condition, str],
    seen: Collection[str],
) -> pd.DataFrame:
    """The long table of results: one row per condition, metric and finding, `macro` first.

    Drops compare with the clean condition: absolute A0 - A, relative (A0 - A) / A0, above chance
    (A0 - A) / (A0 - chance), where chance is 0.5 for AUROC and the prevalence for average precision.
    The macro drops are those of the macro values (ratios of means, not means of ratios).

    `status` is "ok", or the sentence that says why there is no value. A value without an interval (NaN) is one for
    which too many resamples have no patient with, or none without, the finding, or which is of fewer than
    `FEWEST_PATIENTS`. A drop above chance has no number where the clean value is not surely above chance. `note` says
    so, and of an interval without width where that comes from; it is empty where there is nothing to say.

    Args:
        estimates: of each condition that applies, by metric: auroc and average_precision.
        cohort: the test set.
        conditions: the conditions of the table, the clean one among them.
        model: the model's name.
        not_applicable: conditions that do not apply to this model, each with the sentence that says so.
        seen: corruptions the model was trained on.
    """
    chance = {"auroc": cohort.constant(0.5), "average_precision": cohort.prevalence}
    parts = []
    for condition in conditions:
        about = {"model": model, "corruption": condition.corruption, "severity": condition.severity}
        for metric, of_chance in chance.items():
            if condition in not_applicable:
                rows = cohort.sizes.assign(status=not_applicable[condition])
            else:
                rows = drop_rows(estimates[CLEAN][metric], estimates[condition][metric], of_chance, cohort)
            parts.append(rows.assign(**about, metric=metric, seen_in_training=condition.corruption in seen))
    return pd.concat([part.reindex(columns=COLUMNS) for part in parts], ignore_index=True)


def drop_rows(clean: Estimate, corrupted: Estimate, chance: Estimate, cohort: Cohort) -> pd.DataFrame:
    """Value, drops and intervals of one condition and metric, macro first."""
    rows = cohort.sizes.copy()
    for name, estimate in with_drops(clean, corrupted, chance).items():
        rows[list(DROP_COLUMNS[name])] = np.column_stack([estimate.value, *cohort.interval(estimate)])
    status = [cohort.without_value.get(finding, "ok") for finding in rows["finding"]]
    return rows.assign(status=status, note=_notes(rows, not_surely_above(clean.samples, chance.samples)))


def _notes(rows: pd.DataFrame, unsure: Bool[np.ndarray, "F"]) -> list[str]:
    there = rows["value"].notna()
    few = rows["patients"] < FEWEST_PATIENTS
    said = {
        FEW: there & few,
        RARE: there & ~few & rows["low"].isna(),
        UNSKILLED: there & unsure,
        NO_WIDTH: there & (rows["low"] == rows["high"]),
    }
    return ["; ".join(note for note, holds in said.items() if holds[row]) for row in rows.index]


def with_drops(clean: Estimate, corrupted: Estimate, chance: Estimate) -> dict[str, Estimate]:
    """A value and its three drops from the clean one."""
    return {
        "value": corrupted,
        "absolute_drop": Estimate(*map(absolute_drop, clean, corrupted)),
        "relative_drop": Estimate(*map(relative_drop, clean, corrupted)),
        "above_chance_drop": where_skilled(
            Estimate(*map(above_chance_drop, clean, corrupted, chance)), clean, chance.samples
        ),
    }


def without_interval(table: pd.DataFrame) -> list[str]:
    """Of macro and the findings, those that have a value and no interval: too few patients with or without it."""
    clean = table[(table["corruption"] == CLEAN.corruption) & (table["metric"] == "auroc")]
    return clean.loc[clean["value"].notna() & clean["low"].isna(), "finding"].tolist()
