"""The table of subgroups: whether some people are served worse, and whether they lose more."""

import numpy as np
import pandas as pd

from chexmsn.evaluation.cohort import Cohort, Estimate
from chexmsn.evaluation.conditions import CLEAN
from chexmsn.evaluation.measures import RANKING, Cells, Ranking
from chexmsn.evaluation.results import COLUMNS, drop_rows
from chexmsn.metrics.subgroups import FEWEST, age_bands, groups, large_enough

_COLUMNS = ["model", "group", "level", *(name for name in COLUMNS[1:] if name != "seen_in_training")]


def subgroups_table(cells: Cells, cohort: Cohort, model: str) -> pd.DataFrame:
    """`subgroups.parquet`: AUROC and drops within groups by sex, age band and view.

    A finding is told of a group where it has ten positives and ten negatives there. Macro values of an attribute's
    levels are over one set of findings, those told of all its levels that tell at least half of the macro's findings:
    means over other sets could not be compared. The other levels have no macro.
    """
    parts = []
    for attribute, levels in _levels(cohort).items():
        for level, group, rows in _groups(levels, cohort):
            clean = _estimate(cells[CLEAN], group, rows)
            for condition, repeats in cells.items():
                table = drop_rows(clean, _estimate(repeats, group, rows), group.constant(0.5), group)
                about = {"model": model, "group": attribute, "level": level, **vars(condition), "metric": "auroc"}
                parts.append(table.assign(**about, status=_status(group)))
    return pd.concat(parts, ignore_index=True)[_COLUMNS] if parts else pd.DataFrame(columns=_COLUMNS)


def _levels(cohort: Cohort) -> dict[str, dict[str, np.ndarray]]:
    """The positions of the images of each level, by attribute; only of what the labels tell."""
    known = {name: cohort.table[name] for name in ("sex", "age", "view") if name in cohort.table}
    values = {name: column.astype(object).to_numpy() for name, column in known.items()}
    if "age" in values:
        values["age"] = age_bands(known["age"].to_numpy(np.float64))
    levels: dict[str, dict[str, np.ndarray]] = {}
    for name, rows in groups(values).items():
        attribute, _, level = name.partition("=")
        levels.setdefault(attribute, {})[level] = rows
    return levels


def _groups(levels: dict[str, np.ndarray], cohort: Cohort) -> list[tuple[str, Cohort, np.ndarray]]:
    """Each level as a cohort of its own, with the attribute's set of findings for the macro."""
    told = {level: large_enough(cohort.labels[rows]) for level, rows in levels.items()}
    shown = [level for level, enough in told.items() if 2 * enough[cohort.in_macro].sum() >= cohort.in_macro.sum()]
    shared = cohort.in_macro & np.logical_and.reduce([told[level] for level in shown])
    nothing = np.zeros_like(shared)
    return [
        (level, cohort.part(rows, told[level], shared if level in shown else nothing), rows)
        for level, rows in levels.items()
    ]


def _estimate(repeats: list[Ranking], group: Cohort, rows: np.ndarray) -> Estimate:
    estimate = RANKING["auroc"].estimate([scores[rows] for scores in repeats], group)
    told = np.array([True, *group.has_value])
    return Estimate(*(np.where(told, part, np.nan) for part in estimate))


def _status(group: Cohort) -> list[str]:
    few = f"fewer than {FEWEST} positives or {FEWEST} negatives in this group"
    macro = "ok" if group.in_macro.any() else "too few findings with enough images in this group"
    return [macro, *("ok" if told else few for told in group.has_value)]
