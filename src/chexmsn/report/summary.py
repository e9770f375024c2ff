"""What the numbers say, in plain words, and where they say nothing.

Two intervals that do not meet tell two models apart; two that overlap leave it open. Where a paired
comparison is there (`chexmsn compare`), it speaks: it is sharper.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from chexmsn.report.comparison import SURE, Comparison, question
from chexmsn.report.conditions import (
    BLACK,
    CLEAN,
    HARD_SEVERITY,
    HEADLINE_SHARE,
    TOKENS,
    Condition,
    corruption_title,
    in_sentence,
    is_missing,
)
from chexmsn.report.results import StressRun, stack
from chexmsn.report.tables import CHANCE, MACRO, Number, drop_of, has_number, is_finished, scores
from chexmsn.report.words import HARD_SPACE, listed, p_value, percent, three_digits

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
    asked = rows[["corruption", "severity", "metric"]].drop_duplicates().itertuples(index=False)
    return [Point(question(*one), *_verdict(rows, one)) for one in asked]


def _verdict(rows: pd.DataFrame, one: tuple) -> tuple[list[str], str]:
    same = rows.severity.isna() if pd.isna(one.severity) else rows.severity == one.severity
    pairs = rows[same & (rows.corruption == one.corruption) & (rows.metric == one.metric)]
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
    """What a reader must know before comparing: other data, other findings, unfinished runs, left-out findings."""
    return [*differences(runs), *_unfinished(runs), *_left_out(runs), *_no_interval(runs)]


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
    names = ["the macro AUROC" if name == MACRO else name for name in dict.fromkeys(bare.finding)]
    return [f"Too few patients with or without the finding for an interval: {listed(names)}."] if names else []


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
    ways = {label: way for label in labels if (way := _way_of_missing(table, label))}
    records = _records(table, {label: Condition(way, HEADLINE_SHARE) for label, way in ways.items()})
    drops = {label: drop_of(record, "absolute_drop") for label, record in records.items()}
    lines = [_drop_sentence(label, record) for label, record in records.items()]
    lead = f"With {100 * HEADLINE_SHARE:.0f}{HARD_SPACE}% of the patches gone"
    painted = [label for label in ways if ways[label] != TOKENS]
    if len(painted) in (0, len(ways)):
        return Point(lead, lines, order(drops, "loses more", comparable))
    compared = {label: drop for label, drop in drops.items() if label not in painted}
    return Point(lead, [*lines, _aside(painted)], order(compared, "loses more", comparable))


def _aside(painted: Sequence[str]) -> str:
    return (
        f"No tokens could be removed from {listed(painted)}, whose pixels are black instead. That is harder and does "
        "not compare with the others; the row “Patches black” of the table does."
    )


def _way_of_missing(table: pd.DataFrame, label: str) -> str | None:
    rows = table[(table.model == label) & (table.severity == HEADLINE_SHARE) & (table.status == "ok")]
    return next((way for way in (TOKENS, BLACK) if (rows.corruption == way).any()), None)


def _drop_sentence(label: str, record: pd.Series) -> str:
    drop = drop_of(record, "absolute_drop")
    text = f"{label} {falls(drop)} to {record.value:.3f}{_shares(record)}."
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
    if record.value + record.absolute_drop - CHANCE < LEAST_SKILL:
        return f"{relative}; its skill above chance is too small for a share of it to mean anything"
    return f"{relative}, {percent(record.above_chance_drop)} of its skill above chance"


def _hard(table: pd.DataFrame, labels: Sequence[str]) -> Point:
    rows = table[(table.severity == HARD_SEVERITY) & ~table.corruption.map(is_missing) & table.absolute_drop.notna()]
    lines = [_extremes(label, rows[rows.model == label]) for label in labels if (rows.model == label).any()]
    return Point(f"When the image is degraded, at severity {HARD_SEVERITY}", lines, "")


def _extremes(label: str, rows: pd.DataFrame) -> str:
    ordered = rows.sort_values("absolute_drop")
    least, most = ordered.iloc[0], ordered.iloc[-1]
    if most.absolute_drop <= 0:
        return f"{label} is lowered by none of them."
    text = f"{label} suffers most from {_name(most)}: it {falls(drop_of(most, 'absolute_drop'))} to {most.value:.3f}"
    if len(ordered) == 1:
        return f"{text}."
    mildest = f"it {falls(drop_of(least, 'absolute_drop'))} to {least.value:.3f}"
    return f"{text}. Least harm comes from {_name(least)}: {mildest}."


def _name(record: pd.Series) -> str:
    return in_sentence(corruption_title(record.corruption))


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


def falls(drop: Number) -> str:
    """A drop in words; a negative one is a rise.

    >>> falls(Number(-0.02, -0.03, -0.01))
    'rises by 0.020 (0.010 to 0.030)'
    """
    if drop.value < 0:
        return f"rises by {auroc(Number(-drop.value, -drop.high, -drop.low))}"
    return f"falls by {auroc(drop)}"


def _between(number: Number) -> str:
    return f" ({three_digits(number.low)} to {three_digits(number.high)})" if number.has_interval else ""
