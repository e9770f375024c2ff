"""Tables of many kinds in one shape: what a column is called and means, and a value with its interval in each cell."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from chexmsn.report.areas import names_of, overs
from chexmsn.report.comparison import ERRORS, Comparison, question
from chexmsn.report.conditions import CLEAN, IN_WORDS, at_conditions, conditions, corruption_title, headline
from chexmsn.report.plans import focus, group_name, group_pair
from chexmsn.report.results import StressRun, stack_further
from chexmsn.report.tables import MACRO, Number, interval
from chexmsn.report.words import DASH, p_value, percent, three_digits


class Entry(NamedTuple):
    """A cell: its text, what it sorts by, the small print below it, and the model whose sign it bears."""

    text: str
    sort: float | str
    small: str = ""
    model: str = ""


class Column(NamedTuple):
    """A column's head, and what a number in it means."""

    name: str
    help: str = ""


class Sheet(NamedTuple):
    """A table of the page: the first cell of a row is its head."""

    name: str
    columns: list[Column]
    rows: list[list[Entry]]


def entry(number: Number, told: Callable[[float], str] = three_digits, note: str = "") -> Entry:
    """A value with its interval; `note` says why something is missing.

    >>> entry(Number(0.75, 0.7, 0.8))
    Entry(text='0.750', sort=0.75, small='0.700 to 0.800', model='')
    """
    if pd.isna(number.value):
        return Entry(note or "none", "")
    return Entry(told(number.value), float(number.value), interval(number, told, note))


def of_model(model: str) -> Entry:
    """The cell that names a model."""
    return Entry(model, model, model=model)


_HELP = {
    "ece": "Distance between the probability that was said and how often the finding is there. 0 is best.",
    "brier": "Mean squared error of the probability. 0 is best; saying one half for everything gives 0.25.",
    "sensitivity": "Share of the images with a finding that are called positive at the threshold set on clean images.",
    "specificity": "Share of the images without a finding that are called negative at that threshold.",
    "ppv": "Share of the images called positive that have the finding. Depends on how common the finding is.",
    "npv": "Share of the images called negative that do not have the finding. Depends on how common the finding is.",
    "area": "Mean AUROC over the whole ladder of severities, the clean image included.",
    "area_above_chance": "The same for the skill above chance, as a share of that on clean images: 1 loses nothing.",
}
_NAMES = {"ece": "Calibration error", "brier": "Brier score", "ppv": "PPV", "npv": "NPV"} | {
    "area": "Mean AUROC",
    "area_above_chance": "Share of the skill kept",
}


def calibration_sheet(table: pd.DataFrame) -> Sheet:
    """Macro calibration error and Brier score under the headline conditions."""
    return _by_condition(table, "Calibration under each condition", ("ece", "brier"))


def operating_sheet(table: pd.DataFrame) -> Sheet:
    """Macro rates at the thresholds under the headline conditions."""
    return _by_condition(table, "Operating point under each condition", ("sensitivity", "specificity", "ppv", "npv"))


def _by_condition(table: pd.DataFrame, name: str, metrics: Sequence[str]) -> Sheet:
    macro = table[table.finding == MACRO]
    rows = at_conditions(macro, headline(macro))
    found = {
        key: entry(number_of(row))
        for row in rows.itertuples()
        if (key := (row.corruption, row.severity, row.model, row.metric))
    }
    lines = [
        [Entry(condition.label, place), of_model(model), *(found.get((*condition, model, m), _NONE) for m in metrics)]
        for place, condition in enumerate(conditions(rows))
        for model in rows.model.unique()
    ]
    return Sheet(name, [Column("Condition"), Column("Model"), *map(_column, metrics)], lines)


_NONE = Entry("none", "")


def _column(metric: str) -> Column:
    return Column(_NAMES.get(metric, metric.capitalize()), _HELP[metric])


def number_of(row) -> Number:
    """The value and interval of a row of a table."""
    return Number(row.value, row.low, row.high)


def areas_sheet(runs: Sequence[StressRun]) -> Sheet:
    """The area under the degradation curve of every corruption, and the mean of each family."""
    table = stack_further(runs, "areas")
    rows = table[table.finding == MACRO]
    wide = {(row.over, row.corruption, row.model, row.metric): number_of(row) for row in rows.itertuples()}
    found, metrics = overs(runs), ("area", "area_above_chance")
    lines = [
        [Entry(name, place), of_model(key[-1]), *(entry(wide[*key, metric]) for metric in metrics)]
        for place, (over, name) in enumerate(names_of(found).items())
        for key, other in found.items()
        if other == over
    ]
    return Sheet("Areas under the degradation curve", [Column("Over"), Column("Model"), *map(_column, metrics)], lines)


def subgroups_sheet(table: pd.DataFrame) -> Sheet:
    """What is told of each group: clean AUROC, and the drop under the condition that stands for all."""
    macro = table[table.finding == MACRO]
    worst = focus(macro) or focus(table)
    told = table[(table.status == "ok") | (table.finding == MACRO)]
    hard = {_group_key(row): Number(row.absolute_drop, row.absolute_drop_low, row.absolute_drop_high)
            for row in told.itertuples() if worst and (row.corruption, row.severity) == worst}  # fmt: skip
    lines = [_group_line(row, hard) for row in told[told.corruption == CLEAN].itertuples()]
    drop = (
        [Column(f"Drop, {worst.label}", "Points of AUROC lost from the clean images of this group.")] if worst else []
    )
    head = [Column("Group"), Column("Finding"), Column("Model"), Column("Patients"), Column("Clean AUROC", _AUROC)]
    return Sheet("Subgroups", [*head, *drop], lines)


_AUROC = "Chance that an image with the finding scores higher than one without. 0.5 is guessing, 1 is perfect."


def _group_key(row) -> tuple[str, ...]:
    return row.group, row.level, row.model, row.finding


def _group_line(row, hard: dict[tuple[str, ...], Number]) -> list[Entry]:
    name = group_name(row.group, row.level)
    start = [Entry(name, name), Entry(row.finding, row.finding), of_model(row.model)]
    patients = Entry(f"{row.patients:,.0f}" if row.patients else DASH, float(row.patients))
    clean = entry(number_of(row)) if row.status == "ok" else Entry(row.status, "")
    return [
        *start,
        patients,
        clean,
        *([entry(hard[_group_key(row)])] if _group_key(row) in hard else [_NONE] if hard else []),
    ]


def group_differences_sheet(table: pd.DataFrame) -> Sheet:
    """How each group differs from the largest of its kind, clean and under the condition that stands for all."""
    macro = table[table.finding == MACRO]
    worst = focus(macro) or focus(table)
    told = table[table.status == "ok"]
    hard = {_pair_key(row): Number(row.absolute_drop, row.absolute_drop_low, row.absolute_drop_high)
            for row in (at_conditions(told, [worst]) if worst else told[:0]).itertuples()}  # fmt: skip
    lines = [_gap_line(row, hard) for row in told[told.corruption == CLEAN].itertuples()]
    drop = [Column(f"Difference of drops, {worst.label}", "Above 0 the first group loses more.")] if worst else []
    head = [Column("Groups"), Column("Finding"), Column("Model"), Column("Difference of clean AUROC", _GAP)]
    return Sheet("Differences between groups", [*head, *drop], lines)


_GAP = "First group less second. Above 0 findings are told apart better in the first."


def _pair_key(row) -> tuple[str, ...]:
    return *_group_key(row), row.against


def _gap_line(row, hard: dict[tuple[str, ...], Number]) -> list[Entry]:
    name = group_pair(row)
    start = [Entry(name, name), Entry(row.finding, row.finding), of_model(row.model), entry(number_of(row))]
    return [*start, *([entry(hard[_pair_key(row)]) if _pair_key(row) in hard else _NONE] if hard else [])]


def primary_sheet(comparison: Comparison) -> Sheet:
    """The comparison that was decided on beforehand."""
    return _pairs("Primary comparison", comparison.primary)


def further_sheet(comparison: Comparison) -> Sheet:
    """The other differences of macro values under the headline conditions."""
    rows = comparison.differences
    rows = rows[(rows.finding == MACRO) & ~rows.primary & rows.metric.isin(["auroc", "relative_drop", "area"])]
    single = rows[rows.severity.notna()]
    kept = rows[rows.severity.isna() | rows.index.isin(at_conditions(single, headline(single, "difference")).index)]
    sheet, told = _pairs("Further differences", kept[kept.difference.notna()]), kept.q[kept.difference.notna()]
    lines = [[*line, Entry(p_value(q), _sortable(q))] for line, q in zip(sheet.rows, told, strict=True)]
    return Sheet(sheet.name, [*sheet.columns, _Q], lines)


def errors_sheet(comparison: Comparison) -> Sheet:
    """Each model's errors as multiples of the reference's; no rows where no reference was named."""
    rows = comparison.models[(comparison.models.finding == MACRO) & comparison.models.metric.isin(ERRORS)]
    wide = {(row.corruption, row.model, row.metric): number_of(row) for row in rows.itertuples()}
    lines = [
        [
            Entry(IN_WORDS.get(name) or corruption_title(name), place),
            Entry(model, model),
            *(entry(wide[name, model, e]) for e in ERRORS),
        ]
        for place, (name, model) in enumerate(dict.fromkeys((name, model) for name, model, _ in wide))
    ]
    columns = [Column(title, _ERROR_HELP[name]) for name, title in ERRORS.items()]
    return Sheet("Errors as multiples of the reference's", [Column("Over"), Column("Model"), *columns], lines)


_ERROR_HELP = {
    "corruption_error": "1 - AUROC, summed over the severities, divided by the reference's. Below 1 it errs less.",
    "relative_corruption_error": "The same of what corruption adds to the clean error. Unstable where the reference "
    "hardly drops.",
}


def findings_sheet(comparison: Comparison) -> Sheet:
    """Finding by finding on clean images, with DeLong's test beside the resamples."""
    rows = comparison.differences
    kept = rows[
        (rows.finding != MACRO) & (rows.metric == "auroc") & (rows.corruption == CLEAN) & rows.difference.notna()
    ]
    lines = [
        [
            Entry(row.finding, row.finding),
            *_pair(row),
            *(Entry(p_value(p), _sortable(p)) for p in (row.q, row.delong_p)),
        ]
        for row in kept.itertuples()
    ]
    delong = Column("DeLong's p", "Test of a single AUROC difference in Obuchowski's form; not corrected.")
    return Sheet("Findings on clean images", [Column("Finding"), *_PAIR_COLUMNS, _Q, delong], lines)


def _pairs(name: str, rows: pd.DataFrame) -> Sheet:
    lines = []
    for place, row in enumerate(rows.itertuples()):
        told = percent if row.metric == "relative_drop" else three_digits
        lines.append([Entry(question(row.corruption, row.severity, row.metric), place), *_pair(row, told)])
    return Sheet(name, [Column("What"), *_PAIR_COLUMNS], lines)


_PAIR_COLUMNS = [
    Column("First"),
    Column("Second"),
    Column("Difference", "First less second, on the same images; the interval is over the same resampled patients."),
    Column("p", "How often resamples would show so large a difference if there were none."),
    Column("p after Holm", "Corrected for all comparisons of the same question; below 0.05 the models differ."),
]


_Q = Column("q", "For looking around: taking all with a q below 0.05 as differences, one in twenty of them is none.")


def _pair(row, told: Callable[[float], str] = three_digits) -> list[Entry]:
    values = [Entry(name, value, told(value)) for name, value in ((row.a, row.value_a), (row.b, row.value_b))]
    ps = [Entry(p_value(p), _sortable(p)) for p in (row.p, row.p_holm)]
    return [*values, entry(Number(row.difference, row.low, row.high), told, row.note), *ps]


def _sortable(value: float) -> float | str:
    return float(value) if pd.notna(value) else ""


def models_sheet(comparison: Comparison) -> Sheet:
    """Each model's own values in the primary comparison, with the spread over its runs."""
    asked = set(comparison.primary[["corruption", "severity", "metric"]].fillna(-1).itertuples(index=False, name=None))
    rows = comparison.models[comparison.models.finding == MACRO]
    keys = rows[["corruption", "severity", "metric"]].fillna(-1).itertuples(index=False, name=None)
    kept = rows[[key in asked for key in keys]]
    lines = [
        [
            Entry(question(row.corruption, row.severity, row.metric), place),
            Entry(row.model, row.model),
            entry(number_of(row), note=row.note),
            Entry(f"{row.runs:.0f}", float(row.runs)),
            Entry(three_digits(row.spread) if pd.notna(row.spread) else "one run", _sortable(row.spread)),
        ]
        for place, row in enumerate(kept.itertuples())
    ]
    spread = Column("Spread", "Standard deviation over the runs of one model: what another training would change.")
    return Sheet(
        "Values of the models", [Column("What"), Column("Model"), Column("Value"), Column("Runs"), spread], lines
    )
