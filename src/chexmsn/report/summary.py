"""What the numbers say, in plain words, and where they say nothing.

Two intervals that do not meet tell two models apart; two that overlap leave it open. Where a paired
comparison is there (`chexmsn compare`), it speaks: it is sharper.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from chexmsn.report.comparison import SURE, Comparison, questions
from chexmsn.report.conditions import (
    BLACK,
    CLEAN,
    TOKENS,
    Condition,
    at,
    at_conditions,
    corruption_title,
    hard,
    in_sentence,
    is_all_or_nothing,
    is_missing,
)
from chexmsn.report.results import StressRun, stack
from chexmsn.report.tables import CHANCE, MACRO, Number, drop_of, has_number, is_finished, scores
from chexmsn.report.words import listed, p_value, percent, reason, three_digits

LEAST_SKILL = 0.05  # AUROC above chance; a share of less is a ratio of noise
SHARES = ("relative_drop", "above_chance_drop")  # of a comparison: what is lost of a whole
DROPS = ("absolute_drop", *SHARES)  # more is worse


class Point(NamedTuple):
    """One thing to know: a heading, a line per model, and what follows from the lines together."""

    lead: str
    lines: list[str]
    conclusion: str


def summary(runs: Sequence[StressRun]) -> list[Point]:
    """The points of the summary, in the order a reader wants them."""
    table = scores(stack(runs))
    labels = [run.label for run in runs]
    comparable = not differences(runs)
    points = [
        _clean(table, labels, comparable),
        _missing(table, labels, comparable),
        _hard(table, labels),
        _seen(table),
    ]
    return [point for point in points if point.lines]


def compared(comparison: Comparison) -> list[Point]:
    """What the comparison that was decided on beforehand says."""
    rows = comparison.primary
    return [Point(one.title, *_verdict(rows, one.of(rows))) for one in questions(rows)]


def _verdict(rows: pd.DataFrame, pairs: pd.DataFrame) -> tuple[list[str], str]:
    sure = pairs[pairs.p_holm < SURE]
    lines = [_difference(pair) for pair in sure.itertuples()]
    open_pairs = [f"{pair.a} and {pair.b}" for pair in pairs[~(pairs.p_holm < SURE)].itertuples()]
    if open_pairs:
        lines.append(f"Not told apart: {'; '.join(open_pairs)}. That is no proof that they are alike.")
    return lines, f"{len(sure)} of {len(pairs)} pairs differ.{_correction(rows, pairs)}"


def _correction(rows: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """For how many comparisons the p values of pairs were corrected: those of their family, as Holm's method has it."""
    sizes = sorted(set(rows[rows.family.isin(pairs.family)].groupby("family").size()))
    return f" Corrected for {listed([str(size) for size in sizes])} comparisons (Holm)." if sizes[-1:] > [1] else ""


def _difference(pair) -> str:
    higher, lower, sign = (pair.a, pair.b, 1) if pair.difference > 0 else (pair.b, pair.a, -1)
    ends = sorted((sign * pair.low, sign * pair.high))
    amount, verb = Number(sign * pair.difference, *ends), "loses more than" if pair.metric in DROPS else "is above"
    told = shares(amount) if pair.metric in SHARES else auroc(amount)
    return f"{higher} {verb} {lower} by {told}; p after correction {p_value(pair.p_holm)}."


def cautions(runs: Sequence[StressRun]) -> list[str]:
    """What a reader must know first: what is in doubt, other data or findings, unfinished runs, left-out findings."""
    return [*_doubts(runs), *differences(runs), *_unfinished(runs), *_left_out(runs), *_no_interval(runs)]


def _doubts(runs: Sequence[StressRun]) -> list[str]:
    """What answers to clean images left in doubt before the test."""
    told = [(run.label, doubt) for run in runs for doubt in run.get("doubts", default=[])]
    return [f"In doubt about {label}: {doubt}{'' if doubt.endswith(('.', '?')) else '.'}" for label, doubt in told]


def differences(runs: Sequence[StressRun]) -> list[str]:
    """Sentences on what makes these runs not comparable: other images, other findings, another label policy."""
    told = []
    if _distinct(runs, "data", "fingerprint") > 1:
        told.append(
            "The models were tested on different data: rows and curves stand beside each other but do not compare "
            "the models."
        )
    if _distinct(runs, "findings") > 1:
        told.append(
            "The macro AUROC is over different findings for different models, so their macro values are not comparable."
        )
    if _distinct(runs, "policy") > 1:
        told.append(
            "The runs treat uncertain or blank labels differently (see the parameters), so their values are not "
            "comparable."
        )
    return told


def _distinct(runs: Sequence[StressRun], *path: str) -> int:
    return len({repr(run.get(*path)) for run in runs})


def _unfinished(runs: Iterable[StressRun]) -> list[str]:
    names = [run.label for run in runs if not is_finished(run)]
    return [f"The stress test of {listed(names)} is unfinished: what is shown are the results so far."] if names else []


def _left_out(runs: Sequence[StressRun]) -> list[str]:
    reasons = {(finding, why) for run in runs for finding, why in run.get("left_out", default={}).items()}
    named = [f"{finding} ({why})" for finding, why in sorted(reasons)]
    return [f"Left out of the macro AUROC: {listed(named)}."] if named else []


def _no_interval(runs: Sequence[StressRun]) -> list[str]:
    table = stack(runs)
    bare = table[(table.metric == "auroc") & (table.corruption == CLEAN) & (table.status == "ok") & table.low.isna()]
    found: dict[str, dict[str, None]] = {}
    for name, note in zip(bare.finding, bare.note, strict=True):
        why = reason(note, "no interval").removeprefix("no interval").removeprefix(": ")
        called = "the macro AUROC" if name == MACRO else name
        found.setdefault(why or "too few patients with or without the finding", {})[called] = None
    return [f"No interval, {why}: {listed(list(names))}." for why, names in found.items()]


def _clean(table: pd.DataFrame, labels: Sequence[str], comparable: bool) -> Point:
    records = _records(table, {label: Condition(CLEAN, 0) for label in labels})
    values = {label: number_of(record) for label, record in records.items()}
    lines = [f"{label}: macro AUROC {auroc(number)}.{_weak(number)}" for label, number in values.items()]
    return Point("On clean images", lines, order(values, "is higher", comparable))


def _weak(number: Number) -> str:
    if not number.has_interval:
        return " There is no interval, so how sure this is remains open."
    if number.low > CHANCE:
        return ""
    return " This cannot be told from chance, so there is nothing that a corruption could take away."


def _missing(table: pd.DataFrame, labels: Sequence[str], comparable: bool) -> Point:
    """What missing regions cost: tokens removed where they can be, else the first other way that was tested."""
    ways = [condition for condition in hard(table) if is_missing(condition.corruption)]
    tested = [_records(table, dict.fromkeys(labels, way)) for way in ways]
    records = {label: next((of[label] for of in tested if label in of), None) for label in labels}
    told = {label: record for label, record in records.items() if record is not None}
    if not told:
        return Point("", [], "")
    first = next(way for way, of in zip(ways, tested, strict=True) if of)
    lines = [_drop_sentence(label, record) for label, record in told.items()]
    others = {
        label: Condition(r.corruption, r.severity) for label, r in told.items() if r.corruption != first.corruption
    }
    drops = {label: drop_of(record, "absolute_drop") for label, record in told.items() if label not in others}
    lead = f"{at([first]).capitalize()} ({in_sentence(corruption_title(first.corruption))})"
    return Point(lead, [*lines, *_aside(first, others)], order(drops, "loses more", comparable))


def _aside(first: Condition, others: dict[str, Condition]) -> list[str]:
    """A sentence about the models that the first way of missing was not tested on."""
    if not others:
        return []
    if (first.corruption, {way.corruption for way in others.values()}) == (TOKENS, {BLACK}):
        return [
            f"No tokens could be removed from {listed(list(others))}, whose pixels are black instead. That is harder "
            "and does not compare with the others; the row “Patches black” of the table does."
        ]
    told = [f"{label} with {in_sentence(way.label)}" for label, way in others.items()]
    return [f"Tested in another way, which does not compare with the others: {listed(told)}."]


def _drop_sentence(label: str, record: pd.Series) -> str:
    drop = drop_of(record, "absolute_drop")
    text = f"{label} {falls(record)}{_shares(record)}."
    if drop.low <= 0 <= drop.high:
        text += " The interval does not tell this from no change."
    if record.low <= CHANCE:
        text += " What is left cannot be told from chance."
    return text


def _shares(record: pd.Series) -> str:
    """The drop as shares, where it is one; of the skill only where there is enough to divide by."""
    if record.absolute_drop <= 0:
        return ""
    relative = f": {percent(record.relative_drop)} of its clean value"
    if pd.isna(record.above_chance_drop):
        return f"{relative}; its clean value is not surely above chance, so no share of its skill is told"
    if record.value + record.absolute_drop - CHANCE < LEAST_SKILL:
        return f"{relative}; its skill above chance is too small for a share of it to mean anything"
    return f"{relative}, {percent(record.above_chance_drop)} of its skill above chance"


def _hard(table: pd.DataFrame, labels: Sequence[str]) -> Point:
    """What costs most and least, of the condition that stands for each corruption."""
    wanted = [condition for condition in hard(table) if not is_missing(condition.corruption)]
    rows = at_conditions(table, wanted)
    rows = rows[rows.absolute_drop.notna()]
    several = rows.severity.nunique() > 1
    lines = [_extremes(label, own, several) for label in labels if len(own := rows[rows.model == label])]
    return Point(f"When the image is degraded, {at(wanted)}", lines, "")


def _extremes(label: str, rows: pd.DataFrame, several: bool) -> str:
    """Of one model; a condition is told with its severity where there are several."""
    ordered = rows.sort_values("absolute_drop")
    least, most = ordered.iloc[0], ordered.iloc[-1]
    if most.absolute_drop <= 0:
        return f"{label} is lowered by none of them."
    text = f"{label} suffers most from {_name(most, several)}: it {falls(most)}"
    if len(ordered) == 1:
        return f"{text}."
    return f"{text}. Least harm comes from {_name(least, several)}: it {falls(least)}."


def _name(record: pd.Series, with_severity: bool) -> str:
    title = in_sentence(corruption_title(record.corruption))
    told = with_severity and not is_all_or_nothing(record.corruption)
    return f"{title} at severity {record.severity:g}" if told else title


def _seen(table: pd.DataFrame) -> Point:
    seen = table[table.seen_in_training.astype(bool) & (table.corruption != CLEAN)]
    names = seen.drop_duplicates(["model", "corruption"]).groupby("model", sort=False).corruption
    lines = [
        f"{label} was trained with {listed([in_sentence(corruption_title(c)) for c in cs])}." for label, cs in names
    ]
    return Point("Seen in training", lines, "Results there say nothing about unseen damage; they are marked “seen”.")


def _records(table: pd.DataFrame, wanted: dict[str, Condition]) -> dict[str, pd.Series]:
    """The result row of each model under its condition, where there is a number."""
    rows = {(r.model, r.corruption, r.severity): r for _, r in table.iterrows() if has_number(r)}
    return {label: rows[label, *condition] for label, condition in wanted.items() if (label, *condition) in rows}


def order(numbers: dict[str, Number], verb: str, comparable: bool) -> str:
    """What the intervals say of the order of the models."""
    if len(numbers) < 2 or not comparable:
        return ""
    if not all(number.has_interval for number in numbers.values()):
        return "Some values have no interval, so nothing ranks the models here."
    ordered = sorted(numbers, key=lambda label: numbers[label].value, reverse=True)
    above = {a: [b for b in ordered if numbers[b].high < numbers[a].low] for a in ordered}
    told = [f"{a} {verb} than {listed(lower)}" for a, lower in above.items() if lower]
    if not told:
        return "All intervals overlap: no ranking of the models can be drawn from this."
    pairs = len(numbers) * (len(numbers) - 1) // 2
    rest = " All other intervals overlap and give no order." if sum(map(len, above.values())) < pairs else ""
    return f"Told apart by intervals that do not meet: {listed(told, '; ')}.{rest}"


def number_of(record: pd.Series) -> Number:
    """The value of a result row with its interval."""
    return Number(record.value, record.low, record.high)


def auroc(number: Number) -> str:
    """A value as a sentence tells it.

    >>> auroc(Number(0.7512, 0.7, 0.8))
    '0.751 (0.700 to 0.800)'
    """
    return f"{number.value:.3f}{_between(number)}"


def shares(number: Number) -> str:
    """A share in per cent, with its interval.

    >>> shares(Number(0.235, 0.2, 0.27)).replace("\xa0", " ")
    '23.5 % (20.0 % to 27.0 %)'
    """
    between = f" ({percent(number.low)} to {percent(number.high)})" if number.has_interval else ""
    return f"{percent(number.value)}{between}"


def falls(record: pd.Series) -> str:
    """What becomes of a clean value, in words; a negative drop is a rise.

    >>> ends = {"absolute_drop_low": 0.20, "absolute_drop_high": 0.23}
    >>> falls(pd.Series({"value": 0.767, "absolute_drop": 0.215} | ends))
    'falls from 0.982 to 0.767, a drop of 0.215 (0.200 to 0.230)'
    """
    drop = drop_of(record, "absolute_drop")
    ends = f"from {record.value + drop.value:.3f} to {record.value:.3f}"
    if drop.value < 0:
        return f"rises {ends}, a gain of {auroc(Number(-drop.value, -drop.high, -drop.low))}"
    return f"falls {ends}, a drop of {auroc(drop)}"


def _between(number: Number) -> str:
    return f" ({three_digits(number.low)} to {three_digits(number.high)})" if number.has_interval else ""
