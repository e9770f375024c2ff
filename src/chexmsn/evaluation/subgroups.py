"""The tables of subgroups: whether some people are served worse, and whether they lose more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexmsn.evaluation.cohort import Cohort, Estimate, interval_of
from chexmsn.evaluation.conditions import CLEAN, Condition
from chexmsn.evaluation.measures import RANKING, Cells, Ranking, named
from chexmsn.evaluation.results import COLUMNS, DROP_COLUMNS, drop_rows, with_drops
from chexmsn.metrics.subgroups import FEWEST, age_bands, groups, large_enough

_COLUMNS = ["model", "group", "level", *(name for name in COLUMNS[1:] if name != "seen_in_training")]
_ABOUT = ["model", "group", "level", "against", "corruption", "severity", "finding", "metric"]
_DIFFERENCES = [*_ABOUT, *(name for names in DROP_COLUMNS.values() for name in names), "status"]


@dataclass(frozen=True)
class Group:
    """Some of the people.

    Attributes:
        attribute: sex, age or view.
        level: of the attribute.
        cohort: its images, over the same resamples of the patients, with the findings that it tells something of.
        auroc: its AUROC under each condition.
    """

    attribute: str
    level: str
    cohort: Cohort
    auroc: Mapping[Condition, Estimate]

    @property
    def patients(self) -> int:
        """How many there are."""
        return len(np.unique(self.cohort.patients))


def groups_of(cells: Cells, cohort: Cohort) -> list[Group]:
    """The groups by sex, age band and view, as far as the labels tell them.

    A finding is told of a group where it has ten positives and ten negatives there. Macro values of an attribute's
    levels are over one set of findings, those told of all its levels that tell at least half of the macro's findings:
    means over other sets could not be compared. The other levels have no macro.
    """
    return [
        Group(attribute, level, group, {c: _estimate(repeats, group, rows) for c, repeats in cells.items()})
        for attribute, levels in _levels(cohort).items()
        for level, group, rows in _cohorts(levels, cohort)
    ]


def subgroups_table(found: Sequence[Group], model: str) -> pd.DataFrame:
    """`subgroups.parquet`: AUROC and drops within each group."""
    parts = [
        drop_rows(group.auroc[CLEAN], corrupted, group.cohort.constant(0.5), group.cohort).assign(
            group=group.attribute, level=group.level, **vars(condition), status=_status(group.cohort)
        )
        for group in found
        for condition, corrupted in group.auroc.items()
    ]
    if not parts:
        return pd.DataFrame(columns=_COLUMNS)
    return pd.concat(parts, ignore_index=True).assign(model=model, metric="auroc")[_COLUMNS]


def differences_table(found: Sequence[Group], cohort: Cohort, model: str) -> pd.DataFrame:
    """`group_differences.parquet`: how AUROC and drops of a group differ from those of the attribute's largest group.

    Each number is that of `level` less that of `against`, with its interval from the resamples that both share. There
    is none where either group is too small to tell something of the finding.
    """
    parts = [
        _difference(group, largest, condition, cohort)
        for largest, others in _against(found)
        for group in others
        for condition in group.auroc
    ]
    if not parts:
        return pd.DataFrame(columns=_DIFFERENCES)
    return pd.concat(parts, ignore_index=True).assign(model=model, metric="auroc")[_DIFFERENCES]


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


def _cohorts(levels: dict[str, np.ndarray], cohort: Cohort) -> list[tuple[str, Cohort, np.ndarray]]:
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


def _against(found: Sequence[Group]) -> list[tuple[Group, list[Group]]]:
    """Of each attribute the group of most patients, and the others; one that has a macro value where there is one."""
    by_attribute = {
        a: [group for group in found if group.attribute == a] for a in dict.fromkeys(g.attribute for g in found)
    }
    largest = {
        a: max(levels, key=lambda group: (group.cohort.in_macro.any(), group.patients))
        for a, levels in by_attribute.items()
    }
    return [(largest[a], [g for g in levels if g is not largest[a]]) for a, levels in by_attribute.items()]


def _difference(group: Group, largest: Group, condition: Condition, cohort: Cohort) -> pd.DataFrame:
    chance = cohort.constant(0.5)
    ours, theirs = (
        with_drops(_of_all(one, CLEAN, cohort), _of_all(one, condition, cohort), chance) for one in (group, largest)
    )
    bearable = 1 - (1 - group.cohort.undefined_at_most) * (1 - largest.cohort.undefined_at_most)  # it needs both
    rows = named(cohort)
    for name, ends in DROP_COLUMNS.items():
        gap = Estimate(*map(np.subtract, ours[name], theirs[name]))
        rows[list(ends)] = np.column_stack([gap.value, *interval_of(gap, cohort.interval_kind, bearable)])
    about = {"group": group.attribute, "level": group.level, "against": largest.level}
    return rows.assign(**about, **vars(condition), status=_status_of_both(group.cohort, largest.cohort))


def _of_all(group: Group, condition: Condition, cohort: Cohort) -> Estimate:
    """A group's estimate with a leave-one-out value for everyone: leaving out somebody else changes nothing."""
    estimate = group.auroc[condition]
    if not cohort.left_out_rows:
        return estimate
    without = np.tile(estimate.value, (cohort.left_out_rows, 1))
    without[np.isin(np.unique(cohort.patients), group.cohort.patients)] = estimate.left_out
    return estimate._replace(left_out=without)


def _status_of_both(*both: Cohort) -> list[str]:
    few = f"fewer than {FEWEST} positives or {FEWEST} negatives in one of the groups"
    macro = "ok" if all(group.in_macro.any() for group in both) else "too few findings with enough images in one group"
    return [macro, *("ok" if told else few for told in np.logical_and.reduce([group.has_value for group in both]))]
