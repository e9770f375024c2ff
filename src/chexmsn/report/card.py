"""A robustness card: one page about one model, to lie in the model's own repository as HTML and as Markdown.

With 14 findings, sex, age and view the Markdown has some 50 lines (tests/test_report_card.py holds it to 56): it keeps
what is in doubt, what was measured and how; `chexmsn report` has the rest.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from chexmsn.core.files import write_atomic
from chexmsn.report.conditions import CLEAN, Condition, at, at_conditions, headline, in_sentence, is_missing
from chexmsn.report.pages import template
from chexmsn.report.place import check_place
from chexmsn.report.plans import focus, group_name, hardest
from chexmsn.report.results import StressRun, read_run, stack_further
from chexmsn.report.summary import LEAST_SKILL, Point, auroc, cautions, number_of, summary
from chexmsn.report.tables import CHANCE, MACRO, NOT_RECORDED, Number, drop_of, facts, has_number, scores
from chexmsn.report.words import HARD_SPACE, percent, three_digits

WORST = 3
FINDINGS_SHOWN = 5
ARROW = " \u2192 "


class Table(NamedTuple):
    """A table of words, ready for either format."""

    title: str
    head: list[str]
    rows: list[list[str]]


class Card(NamedTuple):
    """What a card says, in the order of the page; `further` are lines of a lead and what it is about."""

    name: str
    points: list[Point]
    cautions: list[str]
    tables: list[Table]
    further: list[tuple[str, str]]
    about: list[tuple[str, str]]
    limits: str
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
    findings, others = _findings(run, macro)
    return Card(
        name=run.label,
        points=summary([run]),
        cautions=cautions([run]),
        tables=[table for table in (_conditions(macro), findings) if table.rows],
        further=[*others, *_groups(run, macro), *_reliance(run, macro)],
        about=_about(run),
        limits=_LIMITS,
        command=run.get("command"),
        level=f"{100 * run.get('level', default=0.95):g}{HARD_SPACE}%",
        version=version("chexmsn"),
    )


_LIMITS = (
    "The corruptions are simulations: surviving them is no evidence of safety with another detector, hospital or "
    "population. Labels of public collections are mined from reports and noisy. Intervals say nothing of another "
    "training of the same model. Severities that are not in mm are defined at 224\u00a0px. For research only: nothing "
    "here was validated for clinical use."
)
_ABOUT = {  # the facts of `tables.facts`, by what they are called on a card
    "Model": {"": "Method", "encoder ": "Encoder", "input ": "Input", "fingerprint ": "Model fingerprint"},
    "Data": {"": "Data", "tested on ": "Tested on", "fingerprint ": "Data fingerprint"},
    "Protocol": {"seed ": "Seed", "draws per image ": "Draws per image", "patient resamples ": "Patient resamples"},
    "Seen in training": {"": "Corruptions seen in training"},
    "Run": {"": "State", "started ": "Started", "took ": "Duration", "with ": "Versions"},
}


def _about(run: StressRun) -> list[tuple[str, str]]:
    known = {title: values[0] for title, values in facts([run]) if values[0] not in (NOT_RECORDED, "none")}
    told = {
        lead: "; ".join(said + known[title] for said, title in parts.items() if title in known)
        for lead, parts in _ABOUT.items()
    }
    return [(lead, text) for lead, text in told.items() if text]


def _conditions(macro: pd.DataFrame) -> Table:
    """The clean images, regions missing at random, and of the rest what costs most."""
    common = [condition for condition in headline(macro) if condition.corruption == CLEAN or _at_random(condition)]
    rest = [condition for condition in hardest(macro) if condition not in common]
    worst = sorted(_records(at_conditions(macro, rest)), key=lambda row: row.absolute_drop, reverse=True)[:WORST]
    title = "Macro AUROC where regions are missing" + f", and what costs most {at(rest)}" * bool(worst)
    head = ["Condition", "Macro AUROC", "Drop", "Skill lost"]
    return Table(title, head, [_line(row) for row in [*_records(at_conditions(macro, common)), *worst]])


def _at_random(condition: Condition) -> bool:
    return is_missing(condition.corruption) and "/" not in condition.corruption


def _records(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows() if has_number(row)]


def _line(row: pd.Series) -> list[str]:
    label = Condition(row.corruption, row.severity).label
    if row.corruption == CLEAN:
        return [label, auroc(number_of(row)), "", ""]
    clean = row.value + row.absolute_drop
    lost = _lost(row) if clean - CHANCE >= LEAST_SKILL else "no skill to lose"
    seen = " (seen in training)" if row.seen_in_training else ""
    return [label + seen, auroc(number_of(row)), _signed(drop_of(row, "absolute_drop")), lost]


def _lost(row: pd.Series) -> str:
    return percent(row.above_chance_drop) if pd.notna(row.above_chance_drop) else "clean value not surely above chance"


def _signed(number: Number) -> str:
    interval = f" ({three_digits(number.low)} to {three_digits(number.high)})" if number.has_interval else ""
    return three_digits(number.value) + interval


def _findings(run: StressRun, macro: pd.DataFrame) -> tuple[Table, list[tuple[str, str]]]:
    """The findings that lose most under the condition that stands for all, and in a line the others."""
    worst, rows = focus(macro), scores(run.results, finding=None)
    there = {row.finding: row for row in _records(at_conditions(rows, [worst] if worst else []))}
    clean = _records(rows[rows.corruption == CLEAN])
    clean.sort(key=lambda row: there[row.finding].absolute_drop if row.finding in there else -1.0, reverse=True)
    head = ["Finding", "Positive images", "Clean AUROC", *([worst.label] if worst else [])]
    lines = [[row.finding, f"{row.positives:,.0f}", *_both(row, there, auroc, worst)] for row in clean[:FINDINGS_SHOWN]]
    title = f"Findings{' that lose most' * (len(clean) > FINDINGS_SHOWN and worst is not None)}"
    others = "; ".join(
        f"{row.finding} {ARROW.join(_both(row, there, lambda number: three_digits(number.value), worst))}"
        for row in clean[FINDINGS_SHOWN:]
    )
    lead = f"Other findings, clean{ARROW + in_sentence(worst.label) if worst else ''}"
    return Table(title, head, lines), [(lead, others)] * bool(others)


def _both(
    row: pd.Series, there: Mapping[str, pd.Series], told: Callable[[Number], str], worst: Condition | None
) -> list[str]:
    """The clean value of a finding, and the degraded one where anything degraded was tested."""
    hard = [told(number_of(there[row.finding])) if row.finding in there else "none"] if worst else []
    return [told(number_of(row)), *hard]


def _groups(run: StressRun, macro: pd.DataFrame) -> list[tuple[str, str]]:
    """A line per attribute: each group's clean macro AUROC, its drop, and how far that is above the largest group's."""
    worst, table = focus(macro), stack_further([run], "subgroups")
    if table.empty:
        return []
    rows = table[(table.finding == MACRO) & (table.status == "ok")]
    drops, gaps = _drops(rows, worst), _drops(stack_further([run], "group_differences"), worst)
    told: dict[str, list[str]] = {}
    for row in _records(rows[rows.corruption == CLEAN]):
        drop = f", drop {drops[row.group, row.level]}" if (row.group, row.level) in drops else ""
        gap = f", {gaps[row.group, row.level]} above the largest group's" if (row.group, row.level) in gaps else ""
        group = f"{group_name(row.group, row.level)} ({row.patients:,.0f} patients) {auroc(number_of(row))}{drop}{gap}"
        told.setdefault(row.group, []).append(group)
    under = f", and drop ({in_sentence(worst.label)})" if worst else ""
    return [(f"By {group}, clean macro AUROC{under}", "; ".join(groups)) for group, groups in told.items()]


def _drops(table: pd.DataFrame, worst: Condition | None) -> dict[tuple[str, str], str]:
    """The macro drop of each group; empty for folders of an earlier version, which lack the table."""
    if table.empty or worst is None:
        return {}
    rows = _records(at_conditions(table[table.finding == MACRO], [worst]))
    return {(row.group, row.level): _signed(drop_of(row, "absolute_drop")) for row in rows}


def _reliance(run: StressRun, macro: pd.DataFrame) -> list[tuple[str, str]]:
    """Calibration and operating point, clean and under the condition that stands for all."""
    worst = focus(macro)
    shown = [Condition(CLEAN, 0.0), *([worst] if worst else [])]
    lead = f"Clean{ARROW + in_sentence(worst.label) if worst else ''}"
    told = [
        f"{title} {ARROW.join(_value(table, condition, metric) for condition in shown)}"
        for name, titles in _RELIANCE.items()
        if not (table := stack_further([run], name)).empty
        for metric, title in titles.items()
    ]
    return [(lead, "; ".join(told))] * bool(told)


_RELIANCE = {
    "calibration": {"ece": "calibration error"},
    "operating": {"sensitivity": "sensitivity", "specificity": "specificity"},
}


def _value(table: pd.DataFrame, condition: Condition, metric: str) -> str:
    rows = at_conditions(table[(table.finding == MACRO) & (table.metric == metric)], [condition])
    return auroc(number_of(rows.iloc[0])) if len(rows) and pd.notna(rows.value.iloc[0]) else "none"
