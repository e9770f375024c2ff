"""What each area of a report is over: models that were tested by other conditions get rows of their own.

A family's area holds whatever applied to a model: of missing regions, removed tokens for a transformer and not for a
CNN. Such numbers stand beside each other only where they are over the same conditions.
"""

from collections.abc import Sequence
from typing import NamedTuple

from chexmsn.evaluation.areas import family_of
from chexmsn.report.conditions import CLEAN, IN_WORDS, Condition, conditions_of, corruption_order, corruption_title
from chexmsn.report.results import StressRun, stack_further
from chexmsn.report.tables import scores


class Over(NamedTuple):
    """What an area of a model is over: a corruption or a family, and the conditions of it that apply."""

    over: str
    corruption: str
    conditions: frozenset[Condition]


def overs(runs: Sequence[StressRun]) -> dict[tuple[str, str, str], Over]:
    """What each area is over, by `over`, `corruption` and `model` of the table of areas."""
    return {
        (row.over, row.corruption, run.label): Over(
            row.over, row.corruption, _conditions(run, row.over, row.corruption)
        )
        for run in runs
        for row in stack_further([run], "areas").drop_duplicates(["over", "corruption"]).itertuples()
    }


def _conditions(run: StressRun, over: str, corruption: str) -> frozenset[Condition]:
    macro = scores(run.results)
    tested = [c for c in conditions_of(macro[macro.value.notna()]) if c.corruption != CLEAN]
    part_of = family_of if over == "family" else str
    return frozenset(condition for condition in tested if part_of(condition.corruption) == corruption)


def names_of(found: dict[tuple[str, str, str], Over]) -> dict[Over, str]:
    """The row of each area, families first: one for all models that were tested alike, more where they were not."""
    distinct = sorted(set(found.values()), key=_place)
    return {one: _title(one) + _apart(one, found) for one in distinct}


def _place(one: Over) -> tuple:
    order = (0, list(IN_WORDS).index(one.corruption)) if one.over == "family" else (1, corruption_order(one.corruption))
    return (*order, -len(one.conditions), sorted(one.conditions))


def _title(one: Over) -> str:
    return f"Mean of {IN_WORDS[one.corruption]}" if one.over == "family" else corruption_title(one.corruption)


def _apart(one: Over, found: dict[tuple[str, str, str], Over]) -> str:
    """What tells a row from others of the same name: how many conditions, or whose."""
    others = {o.conditions for o in found.values() if o[:2] == one[:2]} - {one.conditions}
    if not others:
        return ""
    if len(one.conditions) not in map(len, others):
        return f", {len(one.conditions)} condition{'s' * (len(one.conditions) > 1)}"
    return f", of {', '.join(model for (*_, model), o in found.items() if o == one)}"


def apart(found: dict[tuple[str, str, str], Over]) -> str:
    """A sentence where some areas do not compare; nothing where all do."""
    if len({one[:2] for one in found.values()}) == len(set(found.values())):
        return ""
    return (
        " Rows of one name are over different conditions, since not all apply to every model, and do not compare: "
        "a paired comparison takes those that all have."
    )
