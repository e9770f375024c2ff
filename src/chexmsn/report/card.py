"""A robustness card: one page about one model, to lie in the model's own repository as HTML and as Markdown."""

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from chexmsn.core.files import write_atomic
from chexmsn.report.conditions import CLEAN, Condition, is_headline, is_missing
from chexmsn.report.pages import template
from chexmsn.report.place import check_place
from chexmsn.report.plans import focus, group_name, hardest
from chexmsn.report.results import StressRun, read_run, stack_further
from chexmsn.report.summary import LEAST_SKILL, Point, auroc, cautions, number_of, summary
from chexmsn.report.tables import CHANCE, MACRO, NOT_RECORDED, Number, drop_of, facts, has_number, scores
from chexmsn.report.words import HARD_SPACE, percent, three_digits

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
    tables = [_headline(macro), _worst(macro), _findings(run, macro), _groups(run), _reliance(run, macro)]
    return Card(
        name=run.label,
        points=summary([run]),
        cautions=cautions([run]),
        about=[(name, values[0]) for name, values in facts([run]) if values[0] not in (NOT_RECORDED, "none")],
        tables=[table for table in tables if table.rows],
        limits=_LIMITS,
        command=run.get("command"),
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
    rows = [row for row in _records(macro) if is_headline(_condition(row)) and _is_common(row)]
    return Table("Headline numbers", ["Condition", "Macro AUROC", "Drop", "Skill lost"], [_line(row) for row in rows])


def _is_common(row: pd.Series) -> bool:
    """On a card there is room for the clean images and for missing regions; the rest is among the worst or not."""
    return row.corruption == CLEAN or (is_missing(row.corruption) and "/" not in row.corruption)


def _worst(macro: pd.DataFrame) -> Table:
    shown = set(hardest(macro))
    rows = [row for row in _records(macro) if _condition(row) in shown and not is_missing(row.corruption)]
    worst = sorted(rows, key=lambda row: row.absolute_drop, reverse=True)[:WORST]
    title = "What costs most at severity 5"
    return Table(title, ["Condition", "Macro AUROC", "Drop", "Skill lost"], [_line(row) for row in worst])


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
    there = rows[(rows.corruption == worst.corruption) & (rows.severity == worst.severity)] if worst else rows.iloc[:0]
    hard = {row.finding: auroc(number_of(row)) for row in _records(there)}
    lines = [
        [name, f"{row.positives:,.0f}", auroc(number_of(row)), *([hard.get(name, "none")] if worst else [])]
        for name, row in clean.items()
    ]
    return Table("Findings", ["Finding", "Positive images", "Clean AUROC", *([worst.label] if worst else [])], lines)


def _groups(run: StressRun) -> Table:
    table = stack_further([run], "subgroups")
    head = ["Group", "Patients", "Clean macro AUROC"]
    if table.empty:
        return Table("Subgroups", head, [])
    rows = table[(table.finding == MACRO) & (table.corruption == CLEAN) & (table.status == "ok")]
    lines = [
        [group_name(row.group, row.level), f"{row.patients:,.0f}", auroc(number_of(row))] for row in _records(rows)
    ]
    return Table("Subgroups", head, lines)


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
    of = (table.corruption == condition.corruption) & (table.severity == condition.severity)
    rows = table[of & (table.finding == MACRO) & (table.metric == metric)]
    return auroc(number_of(rows.iloc[0])) if len(rows) and pd.notna(rows.value.iloc[0]) else "none"
