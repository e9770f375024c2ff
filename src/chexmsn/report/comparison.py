"""Read the folder of a comparison: paired differences between models, and what was decided on beforehand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.report.conditions import CLEAN, IN_WORDS, Condition, corruption_title
from chexmsn.report.results import SCHEMA, check_areas, read_table
from chexmsn.report.words import without_places

KIND = "comparison"
SURE = 0.05  # a corrected p value below it counts as a difference
METRICS = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "absolute_drop": "absolute drop of the AUROC",
    "relative_drop": "relative drop of the AUROC",
    "above_chance_drop": "drop of the AUROC above chance",
    "area": "area under the degradation curve",
}
ERRORS = {"corruption_error": "Corruption error", "relative_corruption_error": "Relative corruption error"}


@dataclass(frozen=True)
class Comparison:
    """A comparison as its folder tells it; the tables are those of docs/architecture.md."""

    folder: Path
    info: dict[str, Any]
    models: pd.DataFrame
    differences: pd.DataFrame

    @property
    def primary(self) -> pd.DataFrame:
        """The differences decided on beforehand that have a value."""
        return self.differences[self.differences.primary & self.differences.difference.notna()]


def is_comparison(folder: Path) -> bool:
    """Whether the folder says of itself that it holds a comparison."""
    record = folder / "run.json"
    info = read_json(record) if record.is_file() else None
    return isinstance(info, dict) and info.get("kind") == KIND


def read_comparison(folder: Path) -> Comparison:
    """Raises UserError for another schema and for a comparison that was not finished."""
    info = read_json(folder / "run.json")
    if info.get("schema_version") != SCHEMA:
        raise UserError(
            f"{folder} has comparison schema {info.get('schema_version')} and this version reads {SCHEMA}: update "
            "chexmsn or compare again"
        )
    paths = {name: folder / f"{name}.parquet" for name in ("models", "comparison")}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise UserError(f"{folder} has no {missing[0]} yet (interrupted): give its compare command again")
    models, differences = (_with({"note": ""}, read_table(path)) for path in paths.values())
    check_areas(models[models.metric == "area"], models, f"{folder}: remove it and compare again")
    return Comparison(folder, without_places(info), models, _with({"q": float("nan")}, differences))


def _with(later: dict[str, object], table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns that folders of an earlier version lack."""
    return table.assign(**{name: value for name, value in later.items() if name not in table})


class Question(NamedTuple):
    """What is compared, among the models of one group."""

    group: str
    corruption: str
    severity: float
    metric: str

    @property
    def title(self) -> str:
        """As a heading.

        >>> Question("", "missing", float("nan"), "area").title, Question("probe", "rotation", 3.0, "auroc").title
        ('Area under the degradation curve, missing regions', 'AUROC, Rotation, severity 3 (probe)')
        """
        return question(self.corruption, self.severity, self.metric) + (f" ({self.group})" if self.group else "")

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Its rows."""
        same = rows.severity.isna() if pd.isna(self.severity) else rows.severity == self.severity
        alike = (rows.corruption == self.corruption) & (rows.metric == self.metric)
        return rows[same & alike & (rows.group == self.group)]


def questions(rows: pd.DataFrame) -> list[Question]:
    """What rows of differences ask, each once."""
    asked = rows[list(Question._fields)].drop_duplicates()
    return [Question(*one) for one in asked.itertuples(index=False, name=None)]


def question(corruption: str, severity: float, metric: str) -> str:
    """What is compared, without the group.

    >>> question("missing", float("nan"), "area"), question("rotation", 3.0, "auroc")
    ('Area under the degradation curve, missing regions', 'AUROC, Rotation, severity 3')
    """
    name = METRICS[metric]
    name = name[:1].upper() + name[1:]
    if pd.notna(severity):
        return f"{name}, {Condition(corruption, severity).label if corruption != CLEAN else 'clean images'}"
    return f"{name}, {IN_WORDS.get(corruption) or corruption_title(corruption)}"
