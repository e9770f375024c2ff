"""Read stress folders: results, the record of the run, and the curves copied beside them.

Only what a report may show is read: no score of an image and no identifier of one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.report.words import without_places

SCHEMA = 1
SAME = 1e-6  # two ways to the same number
KINDS = ("stress", "probe")
CURVES = ("pretraining", "training")
FURTHER = (  # folders of an earlier version lack them
    *("calibration", "reliability", "operating", "subgroups", "group_differences", "areas", "bands"),
)
DROPS = ("absolute_drop", "relative_drop", "above_chance_drop")
COLUMNS = [
    *("model", "corruption", "severity", "finding", "metric", "value", "low", "high"),
    *(f"{drop}{end}" for drop in DROPS for end in ("", "_low", "_high")),
    *("images", "patients", "positives", "status", "seen_in_training"),
]


@dataclass(frozen=True)
class StressRun:
    """One model's stress test as its folder tells it."""

    label: str
    folder: Path
    info: dict[str, Any]
    results: pd.DataFrame
    curves: dict[str, pd.DataFrame]
    further: dict[str, pd.DataFrame] = field(default_factory=dict)

    def get(self, *path: str, default: Any = None) -> Any:
        """A value of `run.json`, by its nested names; `default` where it is not recorded."""
        value: Any = self.info
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return default if value is None else value


def read_runs(folders: Sequence[Path]) -> list[StressRun]:
    """The runs behind stress folders, in this order, each under a label of its own.

    Raises UserError for no folders, a folder that is not a finished or readable stress run, a newer
    schema, or two runs of the same model on the same data.
    """
    if not folders:
        raise UserError(
            "a report needs at least one stress folder and none was given: name the folders of `chexmsn stress`"
        )
    return _distinct([read_run(Path(folder)) for folder in folders])


def read_run(folder: Path) -> StressRun:
    """The run in one stress folder. Raises UserError."""
    info = _record(folder)
    label = info["model"]["name"]
    results = _results(folder).assign(model=label)
    curves = {stage: pd.read_csv(path) for stage in CURVES if _has_content(path := folder / f"{stage}.csv")}
    paths = {name: folder / f"{name}.parquet" for name in FURTHER}
    further = {name: read_table(path).assign(model=label) for name, path in paths.items() if path.is_file()}
    if "areas" in further:
        check_areas(_areas(further["areas"]), results, f"{folder}: give `chexmsn judge {folder}`")
    return StressRun(label, folder, without_places(info), results, curves, further)


def _areas(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table.over == "corruption") & (table.metric == "area")]


def check_areas(areas: pd.DataFrame, values: pd.DataFrame, remedy: str) -> None:
    """Raise UserError for areas of one severity as they were before 2026-11-27: (clean + value) / 2, not the value.

    Nothing else in such a folder tells that they do not compare with others.

    Args:
        areas: rows of areas of single corruptions.
        values: rows of AUROCs.
        remedy: the folder, and what mends it.
    """
    of = ["model", "corruption", "finding"]
    degraded = values[(values.metric == "auroc") & (values.corruption != "clean") & values.value.notna()]
    single = degraded[~degraded.duplicated(of, keep=False)]
    both = areas.merge(single, on=of, suffixes=("", "_at"))
    if ((both.value - both.value_at).abs() > SAME).any():
        raise UserError(f"areas over one severity are those of an earlier version and do not compare in {remedy}")


def stack(runs: Iterable[StressRun]) -> pd.DataFrame:
    """All results in one long table whose `model` column holds the labels of the runs."""
    return pd.concat([run.results for run in runs], ignore_index=True)


def stack_further(runs: Iterable[StressRun], name: str) -> pd.DataFrame:
    """One of the further tables of all runs that have it; empty and without columns where none has."""
    tables = [run.further[name] for run in runs if name in run.further]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _record(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"no stress folder {folder}: check the path, or run `chexmsn stress` first")
    info = read_json(folder / "run.json")
    if not isinstance(info, dict) or info.get("kind") not in KINDS:
        raise UserError(f"{folder} holds no stress test: name a folder that `chexmsn stress` or `chexmsn probe` wrote")
    schema = info.get("schema_version")
    if schema != SCHEMA:
        raise UserError(
            f"{folder} has result schema {schema} and this version reads {SCHEMA}: update chexmsn or stress again"
        )
    if not isinstance(info.get("model"), dict) or not info["model"].get("name"):
        raise UserError(f"{folder / 'run.json'} names no model: stress again into a new folder")
    return info


def _results(folder: Path) -> pd.DataFrame:
    path = folder / "results.parquet"
    if not path.is_file():
        raise UserError(f"{folder} has no results yet (interrupted run): give its stress command again, it resumes")
    results = read_table(path)
    missing = [column for column in COLUMNS if column not in results]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: give its stress command again with this version")
    if not ((results.corruption == "clean") & (results.status == "ok")).any():
        raise UserError(
            f"{folder} has no result on clean images, so nothing to compare with: give its stress command again"
        )
    note = results["note"].fillna("") if "note" in results else ""  # folders of an earlier version lack it
    return results[COLUMNS].assign(note=note)


def read_table(path: Path) -> pd.DataFrame:
    """A table of a result folder, its severities as they were meant. Raises UserError for one that is torn."""
    try:
        table = pd.read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): give the command that wrote it again") from None
    if "severity" not in table:
        return table
    return table.assign(severity=table.severity.astype(float).round(6))  # 0.7 stays 0.7


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _distinct(runs: list[StressRun]) -> list[StressRun]:
    """A model tested on several collections is told apart by the collection."""
    models = Counter(run.label for run in runs)
    named = [
        _relabel(run, f"{run.label} on {run.get('data', 'name')}") if models[run.label] > 1 else run for run in runs
    ]
    for label, count in Counter(run.label for run in named).items():
        if count > 1:
            same = " and ".join(str(run.folder) for run in named if run.label == label)
            raise UserError(f"{same} are both called {label!r}: give each folder once, or rename the model of one")
    return named


def _relabel(run: StressRun, label: str) -> StressRun:
    further = {name: table.assign(model=label) for name, table in run.further.items()}
    return replace(run, label=label, results=run.results.assign(model=label), further=further)
