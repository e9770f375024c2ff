"""The results of a stress test that is still running or was stopped, from the images that have their scores."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.files import new_folder, read_json, refuse_filled, write_json
from chexmsn.core.tables import read_table
from chexmsn.evaluation.cohort import Cohort, Resampling, findings_of
from chexmsn.evaluation.conditions import Condition
from chexmsn.evaluation.judgement import judged, write_table, write_tables
from chexmsn.evaluation.result_folder import scores_table
from chexmsn.evaluation.results import without_interval
from chexmsn.evaluation.scoring import Cell, Parts, cells_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PeekConfig:
    """A look at an unfinished stress test.

    Attributes:
        run: its folder, which is only read.
        out: new folder for the scores, labels and results so far.
    """

    run: Path
    out: Path


def peek(config: PeekConfig) -> Path:
    """Write a result folder of the images scored so far; returns it.

    These are the first of the pack, which need not be like the others. The folder's `status` is "so far", and its model
    is called after the number of images.

    Raises UserError for a folder that is finished, or no stress test, or has no scores yet, and for an `out` that is
    there already.
    """
    refuse_filled(config.out)
    record = _unfinished(config.run)
    labels = read_table(config.run / "labels.parquet", "no image is scored yet, so wait, or give its command again")
    cells, not_applicable = _conditions(record)
    rows, scores = Parts(config.run / "parts").all(len(cells))
    if not len(rows):
        raise UserError(f"{config.run}: no image is scored yet, so wait, or give its command again")
    name = f"{record['model']['name']}, {len(rows)} of {len(labels)} images"
    labels = labels.iloc[rows].reset_index(drop=True)
    table = scores_table(scores, cells, labels, findings_of(labels))
    tables = judged(
        table,
        labels,
        Resampling(resamples=record["resamples"], seed=record["seed"]),
        model=name,
        conditions=[*dict.fromkeys([*(cell.condition for cell in cells), *not_applicable])],
        not_applicable=not_applicable,
        seen=record["seen_in_training"],
        thresholds=record.get("thresholds", {}),
    )
    with new_folder(config.out) as place:
        write_table(table, place / "scores.parquet")
        write_table(labels, place / "labels.parquet")
        write_tables(place, tables)
        write_json(place / "run.json", record | _facts(record, name, labels, tables["results"]))
    log.info("%s: %s", config.out, name)
    return config.out


def _unfinished(folder: Path) -> dict[str, Any]:
    record = read_json(folder / "run.json")
    if not isinstance(record, dict) or record.get("kind") != "stress":
        raise UserError(f"{folder} holds no stress test: name the --out of a `chexmsn stress` that is not finished")
    if record["status"] == "finished":
        raise UserError(f"{folder} is finished: its results are there")
    return record


def _conditions(record: dict[str, Any]) -> tuple[list[Cell], dict[Condition, str]]:
    """What is scored, and what does not apply, with the reason."""
    told = {Condition(c["corruption"], c["severity"]): c.get("not_applicable") for c in record["conditions"]}
    applicable = [condition for condition, why in told.items() if why is None]
    return cells_of(applicable, record.get("repeats", 1)), {condition: why for condition, why in told.items() if why}


def _facts(record: dict[str, Any], name: str, labels: pd.DataFrame, results: pd.DataFrame) -> dict[str, Any]:
    """What is otherwise than in the record of the run."""
    cohort = Cohort.of(labels, Resampling(resamples=1))
    size = {"images": len(labels), "patients": int(labels["patient_id"].nunique())}
    return {
        "status": "so far",
        "model": record["model"] | {"name": name},
        "data": record["data"] | size,
        "findings": [finding for finding in cohort.findings if finding not in cohort.left_out],
        "left_out": cohort.left_out,
        "without_interval": without_interval(results),
    }
