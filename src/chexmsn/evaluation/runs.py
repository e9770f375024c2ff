"""Result folders as they are read: the scores of one model on one test set, and the record of how they were made."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.core.tables import read_table
from chexmsn.evaluation.cohort import Cohort, findings_of
from chexmsn.evaluation.conditions import Condition
from chexmsn.evaluation.measures import Ranking, read_cells

SCHEMA_VERSION = 1
KINDS = ("stress", "probe")
ANEW = "give its command again, in a new folder"
_MADE_BY = "name a folder that `chexmsn stress` or `chexmsn probe` wrote"


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """One result folder.

    Attributes:
        folder: where it lies.
        record: its `run.json`.
        labels: its `labels.parquet`, in the order of the image keys.
    """

    folder: Path
    record: dict[str, Any]
    labels: pd.DataFrame

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.record["model"]["name"]

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Those the model was tested under, also where one does not apply to it."""
        return tuple(Condition(told["corruption"], told["severity"]) for told in self.record["conditions"])

    @cached_property
    def scored(self) -> frozenset[Condition]:
        """The conditions that there are scores under: those that apply to the model."""
        cells = read_table(self.folder / "scores.parquet", ANEW, columns=["corruption", "severity"]).drop_duplicates()
        return frozenset(Condition(str(c), s) for c, s in cells.itertuples(index=False))

    def only(self, findings: Sequence[str] | None, conditions: Sequence[Condition] | None) -> "ScoredRun":
        """The same run as if it told no other findings and had been tested under no other conditions."""
        labels, record = self.labels, self.record
        if findings is not None:
            others = {f"label:{finding}" for finding in findings_of(labels)} - {f"label:{name}" for name in findings}
            labels = labels.drop(columns=list(others))
        if conditions is not None:
            kept = [vars(condition) for condition in self.conditions if condition in conditions]
            record = record | {"conditions": kept}
        return replace(self, labels=labels, record=record)

    def in_order(self, findings: Sequence[str]) -> "ScoredRun":
        """The same run, telling the same findings in another order."""
        named = [f"label:{finding}" for finding in findings]
        return replace(self, labels=self.labels.drop(columns=named).join(self.labels[named]))

    @property
    def content(self) -> str:
        """What tells the scores and labels of two folders apart."""
        digests = (_digest(self.folder / f"{name}.parquet") for name in ("scores", "labels"))
        return "-".join(digest[:16] for digest in digests)

    def cells(self, corruption: str, cohort: Cohort) -> dict[Condition, list[Ranking]]:
        """The scores under one corruption, per condition one N x C array per repeat, rows as in the cohort.

        Empty where the corruption does not apply to the model.
        """
        scores = read_table(self.folder / "scores.parquet", ANEW, filters=[("corruption", "==", corruption)])
        return read_cells(scores, cohort)


def find_runs(places: Sequence[Path]) -> list[ScoredRun]:
    """The runs in result folders and in folders of result folders, in this order, none twice.

    Raises UserError for a place without any, and for a folder that is unfinished or not to be read.
    """
    folders = [folder for place in places for folder in _folders(place)]
    return [read_scored(folder) for folder in dict.fromkeys(folder.resolve() for folder in folders)]


def read_scored(folder: Path) -> ScoredRun:
    """The run in one result folder. Raises UserError."""
    record = read_json(folder / "run.json")
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        raise UserError(f"{folder} holds no scores of a model: {_MADE_BY}")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{folder} has result schema {record.get('schema_version')} and this version reads {SCHEMA_VERSION}: "
            "update chexmsn or test again"
        )
    if record.get("status") != "finished":
        raise UserError(f"{folder} is not finished: give its command again, it resumes")
    labels = read_table(folder / "labels.parquet", ANEW)
    return ScoredRun(folder, record, labels.sort_values("image_key", ignore_index=True))


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        raise UserError(f"no result folder {place}: check the path, or run `chexmsn stress` first")
    if (place / "run.json").is_file():
        return [place]
    inside = [file.parent for file in sorted(place.glob("*/run.json")) if read_json(file).get("kind") in KINDS]
    if not inside:
        raise UserError(f"there is no result folder in {place}: {_MADE_BY}, or one that holds such folders")
    return inside


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
