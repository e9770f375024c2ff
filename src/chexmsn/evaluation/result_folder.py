"""The folder of results that a stress test and a probe write: the same tables, the same record."""

import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32

from chexmsn.core.errors import UserError
from chexmsn.core.tables import read_table
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy
from chexmsn.evaluation.cohort import LEVEL, Cohort, Resampling, findings_of
from chexmsn.evaluation.conditions import Condition, mechanism
from chexmsn.evaluation.judgement import judged, write_table, write_tables
from chexmsn.evaluation.results import without_interval
from chexmsn.evaluation.scoring import Cell, Parts
from chexmsn.evaluation.thresholds import Thresholds
from chexmsn.evaluation.unseen import STAGES
from chexmsn.training.run_folder import RunFolder

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
RAW = "raw:"
"""Columns of `labels.parquet` called `raw:<Finding>` hold the labels as they were before the policy."""


@dataclass(frozen=True)
class Tested:
    """The images that something is tested on, and what they say of the findings.

    Attributes:
        data: what a record says of where they come from: name, source, fingerprint, split.
        policy: what uncertain and blank labels count as.
        findings: those that are tested, by their canonical names.
        labels: the table of `labels.parquet`, one row per image.
        cohort: the same labels, for what they say of the findings.
    """

    data: Mapping[str, Any]
    policy: Policy
    findings: tuple[str, ...]
    labels: pd.DataFrame
    cohort: Cohort

    @classmethod
    def on(cls, images: Collection, findings: tuple[str, ...], policy: Policy) -> "Tested":
        """Those of one split of one pack. Raises UserError where no finding has both positives and negatives."""
        return cls.of(cls.told_of(images), labels_table(images, findings, policy), policy)

    @staticmethod
    def told_of(images: Collection) -> dict[str, Any]:
        """What a record says of where images of one split of one pack come from."""
        pack = images.packs[0]
        return {
            "name": pack.name,
            "source": pack.info["source"],
            "fingerprint": pack.fingerprint,
            "split": images.splits[0],
        }

    @classmethod
    def of(cls, data: Mapping[str, Any], labels: pd.DataFrame, policy: Policy) -> "Tested":
        """Those of a table of labels. Raises UserError where no finding has both positives and negatives."""
        return cls(data, policy, findings_of(labels), labels, Cohort.of(labels, Resampling(resamples=1)))

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of them."""
        size = {"images": len(self.labels), "patients": self.labels["patient_id"].nunique()}
        return {
            "data": {**self.data, **size},
            "findings": [finding for finding in self.findings if finding not in self.cohort.left_out],
            "left_out": self.cohort.left_out,
            "policy": self.policy,
        }


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How scores become results.

    Attributes:
        model: what tables and figures call the model.
        conditions: those of the table, the clean one among them.
        not_applicable: conditions that do not apply to this network, each with the reason.
        seen: the corruptions that the model was trained on.
        resamples: how often the patients are resampled for the intervals.
        seed: every mask, noise and resample follows from it.
        thresholds: from which score on each finding counts as present, and where that comes from.
    """

    model: str
    conditions: tuple[Condition, ...]
    not_applicable: Mapping[Condition, str]
    seen: Sequence[str]
    resamples: int
    seed: int
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of them."""
        return {
            "conditions": [self._told(condition) for condition in self.conditions],
            "seed": self.seed,
            "resamples": self.resamples,
            "level": LEVEL,
            "interval": "percentile",
            **self.thresholds.facts,
            "seen_in_training": self.seen,
        }

    def _told(self, condition: Condition) -> dict[str, Any]:
        told = {**vars(condition), "mechanism": mechanism(condition)}
        why = self.not_applicable.get(condition)
        return told | {"not_applicable": why} if why else told


def record(
    terms: Terms,
    tested: Tested,
    model: Mapping[str, Any],
    methods: Sequence[str],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """What `run.json` says beyond the configuration; `model` is what is told of the model besides name and methods."""
    about = {"name": terms.model, "method": " + ".join(methods) or None, **model}
    made = {"schema_version": SCHEMA_VERSION, "command": shlex.join(["chexmsn", *sys.argv[1:]]), "model": about}
    return made | tested.facts | terms.facts | {"provenance": provenance}


def fill(
    run: RunFolder,
    tested: Tested,
    terms: Terms,
    device: torch.device,
    *,
    curves: Mapping[str, Path],
    score: Callable[[Parts], pd.DataFrame],
) -> None:
    """Write labels, scores, results and curves; scores that are there are not made again.

    Args:
        run: where to.
        tested: the images and their labels.
        terms: how scores become results.
        device: what is computed on.
        curves: files to copy, where they are there, by their names in the folder.
        score: makes the table of `scores.parquet`; what it keeps in the parts survives a stop.
    """
    started, parts = time.monotonic(), run.path / "parts"
    earlier = Parts(parts).seconds
    run.update(status="running", device=device.type)
    for finding, reason in tested.cohort.left_out.items():
        log.warning("%s is left out of the macro value: %s", finding, reason)
    write_table(tested.labels, run.path / "labels.parquet")
    if not (run.path / "scores.parquet").is_file():
        write_table(score(Parts(parts)), run.path / "scores.parquet")
    unsure = _judge(run, terms)
    shutil.rmtree(parts, ignore_errors=True)
    for name, file in curves.items():
        if file.is_file():
            shutil.copyfile(file, run.path / name)
    seconds = earlier + time.monotonic() - started  # of all starts, but for what a kill lost
    run.update(status="finished", seconds=round(seconds, 1), without_interval=unsure)


def _judge(run: RunFolder, terms: Terms) -> list[str]:
    """Write every table, from the files of scores and labels alone; returns what has no interval."""
    remedy = "remove it and give the same command again, which makes it from the parts that are kept"
    scores, labels = (read_table(run.path / f"{name}.parquet", remedy) for name in ("scores", "labels"))
    tables = judged(
        scores,
        labels,
        Resampling(resamples=terms.resamples, seed=terms.seed),
        model=terms.model,
        conditions=terms.conditions,
        not_applicable=terms.not_applicable,
        seen=terms.seen,
        thresholds=terms.thresholds.values,
    )
    write_tables(run.path, tables)
    unsure = without_interval(tables["results"])
    if unsure:
        log.warning("too few patients with or without the finding for an interval: %s", ", ".join(unsure))
    return unsure


def labels_table(images: Collection, findings: Sequence[str], policy: Policy) -> pd.DataFrame:
    """The table of `labels.parquet`: who the images are of, and 1, 0 or NaN (left out) per finding, and what the
    collection says of it (1, 0, -1, NaN for blank), so that another policy can be tried on the same scores."""
    labels = images.labels(findings, policy)
    about = images.index[["image_key", "patient_id", "sex", "age", "view"]]
    raw = images.index[[f"label:{finding}" for finding in findings]].set_axis([RAW + name for name in findings], axis=1)
    return about.join(pd.DataFrame(labels, columns=[f"label:{finding}" for finding in findings])).join(raw)


def scores_table(
    scores: Float32[np.ndarray, "K N C"], cells: Sequence[Cell], labels: pd.DataFrame, findings: Sequence[str]
) -> pd.DataFrame:
    """The table of `scores.parquet`: one row per cell and image."""
    count, images, _ = scores.shape
    table = pd.DataFrame(
        {
            "image_key": np.tile(labels["image_key"], count),
            "patient_id": np.tile(labels["patient_id"], count),
            "corruption": np.repeat([cell.condition.corruption for cell in cells], images),
            "severity": np.repeat([cell.condition.severity for cell in cells], images),
            "repeat": np.repeat([cell.repeat for cell in cells], images),
        }
    )
    return table.join(pd.DataFrame(scores.reshape(count * images, -1), columns=[f"score:{name}" for name in findings]))


def check_policy(policy: Policy) -> None:
    """Raises UserError for labels that rank nothing."""
    if "smooth" in (policy.uncertain, *policy.per_finding.values()):
        raise UserError("a test needs labels of 0 and 1, not smooth ones: choose zeros, ones or ignore")


def methods_of(provenance: Mapping[str, Any]) -> list[str]:
    """The methods that made a model, one after the other; of a checkpoint the last one is known."""
    stages = [provenance[stage]["config"]["method"] for stage in STAGES if stage in provenance]
    return stages or [provenance[name] for name in ("method",) if name in provenance]


def corruptions_seen(provenance: Mapping[str, Any]) -> list[str]:
    """The names of the corruptions that a model was trained on."""
    seen = provenance.get("corruptions_seen") or provenance.get("pretraining", {}).get("corruptions_seen", [])
    return list(dict.fromkeys(corruption["corruption"] for corruption in seen))


def name_of(path: Path) -> str:
    """What a model is called after the place it was loaded from: its run folder's name, or its own."""
    place = path.resolve()
    return place.parent.name if place.name in ("encoder", "classifier") else place.stem
