"""The tables of the report: cells that know their interval, or the sentence that stands in for a number."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from chexmsn.report.conditions import CLEAN, Condition, at_conditions, corruption_title, in_sentence
from chexmsn.report.results import DROPS, StressRun
from chexmsn.report.words import DASH, TIMES, reason, three_digits

CHANCE = 0.5
MACRO = "macro"
NOT_RECORDED = "not recorded"
NOT_TESTED = "not tested"


class Number(NamedTuple):
    """A value with its interval; NaN where there is none."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        return pd.notna(self.low) and pd.notna(self.high)


def interval(number: Number, told: Callable[[float], str] = three_digits, note: str = "") -> str:
    """The interval of a number; `note` says why there is none, or why it has no width.

    >>> interval(Number(1.0, 1.0, 1.0), note="no width: every resample gives this value (perfect separation)")
    '1.000 to 1.000, no width: every resample gives this value (perfect separation)'
    >>> interval(Number(0.8, float("nan"), float("nan")))
    'no interval'
    """
    if not number.has_interval:
        return reason(note, "no interval")
    ends = f"{told(number.low)} to {told(number.high)}"
    return ends if number.low < number.high else f"{ends}, {reason(note, 'no width')}"


class Cell(NamedTuple):
    """A number of one model under one condition, or the sentence that says why there is none.

    `note` says why a number has no interval, one of no width, or no share above chance.
    """

    number: Number | None
    status: str
    seen: bool
    note: str = ""

    @property
    def skill(self) -> float:
        """How far the value stands from chance to perfect, in [0, 1]."""
        return min(max((self.number.value - CHANCE) / (1 - CHANCE), 0.0), 1.0) if self.number else 0.0


class Row(NamedTuple):
    """A line of a table: what it is about, and one cell per model or finding."""

    label: str
    cells: list[Cell]


class DropRow(NamedTuple):
    """What a condition costs a model, told in all three ways beside the value that is left."""

    condition: str
    model: str
    cell: Cell
    drops: dict[str, Number]


def scores(table: pd.DataFrame, *, metric: str = "auroc", finding: str | None = MACRO) -> pd.DataFrame:
    """The rows of one metric, of one finding or (None) of every finding but the macro."""
    rows = table[table.metric == metric]
    return rows[rows.finding == finding] if finding else rows[rows.finding != MACRO]


def cell_of(record: pd.Series | None) -> Cell:
    """The cell behind a result row; a row that is missing was not tested."""
    if record is None:
        return Cell(None, NOT_TESTED, False)
    number = Number(record.value, record.low, record.high) if has_number(record) else None
    return Cell(number, str(record.status), bool(record.seen_in_training), str(record.note))


def has_number(record: pd.Series) -> bool:
    """Whether a result row holds a value."""
    return record.status == "ok" and pd.notna(record.value)


def by_condition(
    table: pd.DataFrame, wanted: Sequence[Condition], columns: Sequence[str], *, over: str = "model"
) -> list[Row]:
    """One row per condition, one cell per model (or per finding: `over`)."""
    records = {(r[over], r.corruption, r.severity): r for _, r in table.iterrows()}
    return [Row(c.label, [cell_of(records.get((name, *c))) for name in columns]) for c in wanted]


def drop_rows(table: pd.DataFrame, wanted: Sequence[Condition]) -> list[DropRow]:
    """The drops of macro AUROC per condition and model, where there are numbers."""
    rows = []
    for condition in wanted:
        there = at_conditions(table, [condition])
        rows += [_drop_row(condition, record) for _, record in there.iterrows() if has_number(record)]
    return rows


def _drop_row(condition: Condition, record: pd.Series) -> DropRow:
    return DropRow(condition.label, record.model, cell_of(record), {name: drop_of(record, name) for name in DROPS})


def drop_of(record: pd.Series, name: str) -> Number:
    """One kind of drop of a result row."""
    return Number(record[name], record[f"{name}_low"], record[f"{name}_high"])


def facts(runs: Sequence[StressRun]) -> list[tuple[str, list[str]]]:
    """What was run: one line per property with one entry per run, or a single one where all agree."""
    told = {title: [tell(run) for run in runs] for title, tell in _FACTS.items()}
    return [(title, values if len(set(values)) > 1 else values[:1]) for title, values in told.items()]


def _recorded(*path: str) -> Callable[[StressRun], str]:
    return lambda run: str(run.get(*path, default=NOT_RECORDED))


def test_size(run: StressRun) -> str:
    """How many images of how many patients were tested."""
    clean = scores(run.results)[lambda rows: rows.corruption == CLEAN].iloc[0]
    people = "1 patient" if clean.patients == 1 else f"{clean.patients:,.0f} patients"
    return f"{clean.images:,.0f} images of {people}"


def _seen(run: StressRun) -> str:
    return ", ".join(in_sentence(corruption_title(name)) for name in run.get("seen_in_training", default=[])) or "none"


def _encoder(run: StressRun) -> str:
    kind = run.get("model", "kind")
    return _recorded("model", "encoder")(run) + (f" ({kind})" if kind else "")


def _input(run: StressRun) -> str:
    size = run.get("model", "size")
    return f"{size} {TIMES} {size} px" if size else NOT_RECORDED


def _data(run: StressRun) -> str:
    parts = [run.get("data", name) for name in ("name", "source", "split")]
    return ", ".join(str(part) for part in dict.fromkeys(parts) if part) or NOT_RECORDED


def _versions(run: StressRun) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.get("versions", default={}).items()) or NOT_RECORDED


def _started(run: StressRun) -> str:
    return _recorded("started")(run).replace("T", " ")[:16]


def _status(run: StressRun) -> str:
    return "finished" if is_finished(run) else "unfinished: results so far"


def is_finished(run: StressRun) -> bool:
    """Whether the stress test went through all its conditions."""
    return run.get("status", default="finished") == "finished"


def _duration(run: StressRun) -> str:
    seconds = run.get("seconds")
    return f"{seconds / 60:.1f} min on {_recorded('device')(run)}" if seconds is not None else NOT_RECORDED


_FACTS: dict[str, Callable[[StressRun], str]] = {
    "Method": _recorded("model", "method"),
    "Encoder": _encoder,
    "Input": _input,
    "Data": _data,
    "Tested on": test_size,
    "Corruptions seen in training": _seen,
    "Seed": _recorded("seed"),
    "Draws per image": _recorded("repeats"),
    "Patient resamples": _recorded("resamples"),
    "Started": _started,
    "Duration": _duration,
    "State": _status,
    "Model fingerprint": _recorded("model", "fingerprint"),
    "Data fingerprint": _recorded("data", "fingerprint"),
    "Versions": _versions,
}


class Finding(NamedTuple):
    """A finding with its counts in the test, and the reason where it is left out of the macro."""

    name: str
    images: str
    positives: str
    reason: str


def findings_by_run(runs: Sequence[StressRun]) -> dict[str, list[Finding]]:
    """The findings of each run; one entry where all runs have the same."""
    found = {run.label: findings(run) for run in runs}
    first = next(iter(found.values()))
    return {"all models": first} if all(rows == first for rows in found.values()) else found


def findings(run: StressRun) -> list[Finding]:
    """Every finding of a run: those in the macro and those left out."""
    left_out = run.get("left_out", default={})
    clean = scores(run.results, finding=None)[lambda rows: rows.corruption == CLEAN].set_index("finding")
    names = list(dict.fromkeys([*clean.index, *left_out]))
    return [Finding(name, *_finding_counts(clean, name), left_out.get(name, "")) for name in names]


def _finding_counts(clean: pd.DataFrame, name: str) -> tuple[str, str]:
    if name not in clean.index:
        return DASH, DASH
    return f"{clean.images[name]:,.0f}", f"{clean.positives[name]:,.0f}"


def parameters(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested records as dotted names with their values.

    >>> parameters({"seed": 0, "model": {"size": 224, "mean": [0.5]}})
    [('seed', '0'), ('model.size', '224'), ('model.mean', '0.5')]
    """
    if not isinstance(content, dict):
        return [(prefix, _plain(content))]
    return [
        pair for name, value in content.items() for pair in parameters(value, f"{prefix}.{name}" if prefix else name)
    ]


def _plain(value: Any) -> str:
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
