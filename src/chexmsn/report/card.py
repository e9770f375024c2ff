"""A robustness card: one page about one model, to lie in the model's own repository as HTML and as Markdown."""

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from chexmsn.core.files import write_atomic
from chexmsn.report.conditions import CLEAN, Condition, at, at_conditions, headline, is_missing
from chexmsn.report.pages import template
from chexmsn.report.place import check_place
from chexmsn.report.plans import focus, group_name, hardest
from chexmsn.report.results import StressRun, read_run, stack_further
from chexmsn.report.summary import LEAST_SKILL, Point, auroc, cautions, number_of, summary
from chexmsn.report.tables import CHANCE, MACRO, NOT_RECORDED, Number, drop_of, facts, has_number, scores
from chexmsn.report.words import HARD_SPACE, percent, shareable, three_digits

WORST = 5


class Table(NamedTuple):
    """A table of words, ready for either format."""

    title: str
    head: list[str]
    rows: list[list[str]]


class Card(NamedTuple):
    """What a card says, in the order of the page."""

    name: str
    points: list[Point]
    cautions: list[str]
    about: list[tuple[str, str]]
    tables: list[Table]
    limits: list[str]
    command: str | None
    level: str
    version: str


def build_card(folder: Path, out: Path) -> Path:
    """Write `card.html` and `card.md` about the model of a stress folder; returns the HTML file.

    It is made from the result files alone, which name no image and no patient. Raises UserError for a folder that
    cannot be reported (`results.read_run`), and for an `out` that holds anything but reports and cards.
    """
    check_place(out)
    card = card_of(read_run(folder))
    pages = {"card.html": template("card.html.j2").render(card=card)}
    pages["card.md"] = template("card.md.j2").render(card=card)
    for name, text in pages.items():
        write_atomic(out / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
    return out / "card.html"


def card_of(run: StressRun) -> Card:
    """The card of one run."""
    macro = scores(run.results)
    tables = [_headline(macro), _worst(macro), _findings(run, macro), _groups(run, macro), _reliance(run, macro)]
    return Card(
        name=run.label,
        points=summary([run]),
        cautions=cautions([run]),
        about=[(name, values[0]) for name, values in facts([run]) if values[0] not in (NOT_RECORDED, "none")],
        tables=[table for table in tables if table.rows],
        limits=_LIMITS,
        command=shareable(run.get("command")),
        level=f"{100 * run.get('level', default=0.95):g}{HARD_SPACE}%",
        version=version("chexmsn"),
    )


_LIMITS = [
    "The corruptions are simulations. Surviving them is no evidence of safety with another detector, another hospital "
    "or another population.",
    "The labels of public collections are mined from reports and are noisy; that is what the model is measured with.",
    "Intervals are over the patients of this test set and say nothing of another training of the same model.",
    "Severities that are not in mm are defined at 224\u00a0px and mean something else at another size.",
    "For research only: nothing here was validated for clinical use.",
]


def _headline(macro: pd.DataFrame) -> Table:
    return Table("Headline numbers", _HEAD, [_line(row) for row in _records(at_conditions(macro, _common(macro)))])


_HEAD = ["Condition", "Macro AUROC", "Drop", "Skill lost"]


def _common(macro: pd.DataFrame) -> list[Condition]:
    """On a card there is room for the clean images and for regions missing at random; the rest is among the worst."""
    return [condition for condition in headline(macro) if condition.corruption == CLEAN or _at_random(condition)]


def _at_random(condition: Condition) -> bool:
    return is_missing(condition.corruption) and "/" not in condition.corruption


def _worst(macro: pd.DataFrame) -> Table:
    common = _common(macro)
    shown = [condition for condition in hardest(macro) if condition not in common]
    worst = sorted(_records(at_conditions(macro, shown)), key=lambda row: row.absolute_drop, reverse=True)[:WORST]
    return Table(f"What costs most {at(shown)}", _HEAD, [_line(row) for row in worst])


def _records(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows() if has_number(row)]


def _condition(row: pd.Series) -> Condition:
    return Condition(row.corruption, row.severity)


def _line(row: pd.Series) -> list[str]:
    if row.corruption == CLEAN:
        return [_condition(row).label, auroc(number_of(row)), "", ""]
    clean = row.value + row.absolute_drop
    lost = percent(row.above_chance_drop) if clean - CHANCE >= LEAST_SKILL else "no skill to lose"
    seen = " (seen in training)" if row.seen_in_training else ""
    return [_condition(row).label + seen, auroc(number_of(row)), _signed(drop_of(row, "absolute_drop")), lost]


def _signed(number: Number) -> str:
    interval = f" ({three_digits(number.low)} to {three_digits(number.high)})" if number.has_interval else ""
    return three_digits(number.value) + interval


def _findings(run: StressRun, macro: pd.DataFrame) -> Table:
    worst, rows = focus(macro), scores(run.results, finding=None)
    clean = {row.finding: row for row in _records(rows[rows.corruption == CLEAN])}
    there = at_conditions(rows, [worst] if worst else [])
    hard = {row.finding: auroc(number_of(row)) for row in _records(there)}
    lines = [
        [name, f"{row.positives:,.0f}", auroc(number_of(row)), *([hard.get(name, "none")] if worst else [])]
        for name, row in clean.items()
    ]
    return Table("Findings", ["Finding", "Positive images", "Clean AUROC", *([worst.label] if worst else [])], lines)


def _groups(run: StressRun, macro: pd.DataFrame) -> Table:
    """Clean AUROC of each group, its drop, and how that differs from the drop of the largest group of its kind."""
    worst, table = focus(macro), stack_further([run], "subgroups")
    of_drops = [f"Drop, {worst.label}", "Less that of the largest"] if worst else []
    head = ["Group", "Patients", "Clean macro AUROC", *of_drops]
    if table.empty:
        return Table("Subgroups", head, [])
    rows = table[(table.finding == MACRO) & (table.status == "ok")]
    drops, gaps = _drops_of_groups(rows, worst), _gaps(run, worst)
    lines = []
    for row in _records(rows[rows.corruption == CLEAN]):
        key = row.group, row.level
        lost = [drops.get(key, "none"), gaps.get(key, "")] if worst else []
        lines.append([group_name(*key), f"{row.patients:,.0f}", auroc(number_of(row)), *lost])
    return Table("Subgroups", head, lines)


def _drops_of_groups(rows: pd.DataFrame, worst: Condition | None) -> dict[tuple[str, str], str]:
    there = _records(at_conditions(rows, [worst] if worst else []))
    return {(row.group, row.level): _signed(drop_of(row, "absolute_drop")) for row in there}


def _gaps(run: StressRun, worst: Condition | None) -> dict[tuple[str, str], str]:
    """How the drop of each group differs from that of the largest; empty for folders of an earlier version."""
    table = stack_further([run], "group_differences")
    if table.empty or worst is None:
        return {}
    rows = _records(at_conditions(table[table.finding == MACRO], [worst]))
    largest = {(row.group, row.against): "the largest" for row in rows}
    return largest | {(row.group, row.level): _signed(drop_of(row, "absolute_drop")) for row in rows}


def _reliance(run: StressRun, macro: pd.DataFrame) -> Table:
    """Calibration and operating point, clean and under the condition that stands for all."""
    worst = focus(macro)
    shown = [Condition(CLEAN, 0.0), *([worst] if worst else [])]
    metrics = {"calibration": {"ece": "Calibration error", "brier": "Brier score"}}
    metrics["operating"] = {"sensitivity": "Sensitivity", "specificity": "Specificity"}
    lines = [
        [title, *(_value(table, condition, metric) for condition in shown)]
        for name, titles in metrics.items()
        if not (table := stack_further([run], name)).empty
        for metric, title in titles.items()
    ]
    return Table("Probabilities and thresholds", ["Macro", *(condition.label for condition in shown)], lines)


def _value(table: pd.DataFrame, condition: Condition, metric: str) -> str:
    rows = at_conditions(table[(table.finding == MACRO) & (table.metric == metric)], [condition])
    return auroc(number_of(rows.iloc[0])) if len(rows) and pd.notna(rows.value.iloc[0]) else "none"
