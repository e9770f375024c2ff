"""The stress test: one classifier, one pack, every condition; scores and results in one folder."""

import dataclasses
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32

from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.core.files import write_atomic
from chexmsn.core.limits import check_limits
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy, canonical, shared_findings
from chexmsn.data.pack import open_pack
from chexmsn.evaluation.cohort import LEVEL, Cohort
from chexmsn.evaluation.conditions import Condition, chosen, mechanism, with_pixels
from chexmsn.evaluation.results import results_table, without_interval
from chexmsn.evaluation.scoring import Cell, Parts, Scorer, cells_of, score, why_not
from chexmsn.models.artefact import ClassifierArtefact, fingerprint, load_classifier
from chexmsn.training.run_folder import RunFolder, open_run

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1

PARTS = "parts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StressConfig:
    """A stress test.

    Attributes:
        model: training run, classifier folder or checkpoint.
        data: pack to test on, as `chexmsn prepare` makes it; another one than the model's own tests how it generalises.
        out: folder for scores and results.
        name: what tables and figures call the model; the name of its run folder when empty.
        split: split of the pack whose images are scored.
        labels: what uncertain (-1) and blank labels count as.
        conditions: grids (standard, fills), corruptions, or single conditions such as gaussian-blur:3.
        repeats: how often each random condition is drawn anew.
        resamples: how often the patients are resampled for the intervals.
        batch_size: images at once; the scores do not depend on it.
        seed: every mask, noise and resample follows from it.
        device: auto, cpu or gpu.
    """

    model: Path
    data: Path
    out: Path
    name: str | None = None
    split: str = "test"
    labels: Policy = dataclasses.field(default_factory=Policy)
    conditions: tuple[str, ...] = ("standard", "fills")
    repeats: int = 1
    resamples: int = 1000
    batch_size: int = 64
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self, repeats="[1, inf)", resamples="[1, inf)", batch_size="[1, inf)")
        if "smooth" in (self.labels.uncertain, *self.labels.per_finding.values()):
            raise UserError("a test needs labels of 0 and 1, not smooth ones: choose zeros, ones or ignore")


def stress(config: StressConfig) -> Path:
    """Score and judge a classifier under every condition; returns the folder of the results.

    The same configuration resumes, or says that it is finished.

    Raises:
        UserError: bad configuration, model, data or device; nothing to rank; a folder of another configuration.
    """
    device = choose_device(config.device)
    plan = Plan.open(config)
    run = open_run(config.out, "stress", plan.asked, plan.facts)
    if run.finished:
        log.info("%s is finished: nothing to do", run.path)
        return run.path
    with run.alone():
        _work(plan, run, device)
    return run.path


def _work(plan: "Plan", run: RunFolder, device: torch.device) -> None:
    started = time.monotonic()
    run.update(status="running", device=device.type)
    for finding, reason in plan.cohort.left_out.items():
        log.warning("%s is left out of the macro value: %s", finding, reason)
    _write(plan.labels, run.path / "labels.parquet")
    if not (run.path / "scores.parquet").is_file():
        _score(plan, run, device)
    unsure = _judge(plan, run)
    shutil.rmtree(run.path / PARTS, ignore_errors=True)
    _copy_curves(plan.artefact.path, run.path)
    run.update(status="finished", seconds=round(time.monotonic() - started, 1), without_interval=unsure)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration asks for, opened and checked.

    Attributes:
        config: the configuration.
        artefact: the classifier.
        images: the tested images, those of one split of the pack.
        findings: those that classifier and pack share, by their canonical names.
        labels: the table of `labels.parquet`, one row per tested image.
        cohort: the same labels, for what they say of the findings.
        conditions: all that were asked for; for a CNN, black pixels wherever tokens are removed as well.
        not_applicable: conditions that do not apply to this network, each with the reason.
    """

    config: StressConfig
    artefact: ClassifierArtefact
    images: Collection
    findings: tuple[str, ...]
    labels: pd.DataFrame
    cohort: Cohort
    conditions: tuple[Condition, ...]
    not_applicable: dict[Condition, str]

    @classmethod
    def open(cls, config: StressConfig) -> "Plan":
        """Open everything. Raises UserError as `stress` does."""
        artefact = load_classifier(config.model)
        images = Collection([open_pack(config.data)], [config.split])
        _check_unseen(artefact, images, config.split)
        encoder = artefact.classifier.encoder
        asked_for = chosen(config.conditions)
        conditions = with_pixels(asked_for) if encoder.kind == "cnn" else asked_for
        not_applicable = {condition: why for condition in conditions if (why := why_not(condition, encoder))}
        findings = _shared(artefact, images)
        labels = labels_table(images, findings, config.labels)
        cohort = Cohort.of(labels, resamples=1, seed=config.seed)
        return cls(config, artefact, images, findings, labels, cohort, conditions, not_applicable)

    @property
    def name(self) -> str:
        """What the model is called: as asked for, or as its run folder."""
        place = self.artefact.path.resolve()
        folder = place.parent.name if place.name == "classifier" else place.stem
        return self.config.name or folder

    @property
    def cells(self) -> list[Cell]:
        """What is to be scored."""
        return cells_of([c for c in self.conditions if c not in self.not_applicable], self.config.repeats)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Which of the classifier's outputs the findings are."""
        known = [canonical(finding) for finding in self.artefact.findings]
        return tuple(known.index(finding) for finding in self.findings)

    @property
    def seen_in_training(self) -> list[str]:
        """The corruptions that the model was trained on."""
        return list(dict.fromkeys(seen["corruption"] for seen in self.artefact.provenance.get("corruptions_seen", [])))

    @property
    def asked(self) -> dict[str, Any]:
        """The part of the configuration that decides the results, with models and data by what they hold."""
        named = ("split", "labels", "conditions", "repeats", "resamples", "seed")
        return {
            "model": self.name,
            "weights": fingerprint(self.artefact.classifier),
            "data": self.images.fingerprint,
            **{name: getattr(self.config, name) for name in named},
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of the run says beyond the configuration."""
        config, encoder, pack = self.config, self.artefact.classifier.encoder, self.images.packs[0]
        return {
            "schema_version": SCHEMA_VERSION,
            "command": shlex.join(sys.argv),
            "model": {
                "name": self.name,
                "method": _method(self.artefact.provenance),
                "fingerprint": fingerprint(self.artefact.classifier),
                "kind": encoder.kind,
                "encoder": encoder.config.name,
                "size": encoder.config.size,
                "patch": encoder.config.patch,
            },
            "data": {
                "name": pack.name,
                "source": pack.info["source"],
                "fingerprint": pack.fingerprint,
                "split": config.split,
                "images": len(self.images),
                "patients": self.labels["patient_id"].nunique(),
            },
            "findings": [finding for finding in self.findings if finding not in self.cohort.left_out],
            "left_out": self.cohort.left_out,
            "policy": config.labels,
            "conditions": [
                {**dataclasses.asdict(condition), "mechanism": mechanism(condition)} for condition in self.conditions
            ],
            "seed": config.seed,
            "repeats": config.repeats,
            "resamples": config.resamples,
            "level": LEVEL,
            "seen_in_training": self.seen_in_training,
            "provenance": self.artefact.provenance,
        }


def _shared(artefact: ClassifierArtefact, images: Collection) -> tuple[str, ...]:
    findings = shared_findings(artefact.findings, images.findings)
    if not findings:
        raise UserError(
            f"the model and the pack share no finding: {artefact.path} tells {', '.join(artefact.findings)}, "
            f"{images.packs[0].folder} has labels of {', '.join(images.findings) or 'nothing'}; choose another pack"
        )
    return findings


def _check_unseen(artefact: ClassifierArtefact, images: Collection, split: str) -> None:
    """Images that a model was trained on cannot test it."""
    for stage in ("pretraining", "training"):
        used = artefact.provenance.get(stage, {}).get("data", {}).get("packs", {})
        if split in used.get(images.packs[0].fingerprint, []):
            raise UserError(
                f"the split {split!r} of {images.packs[0].folder} was used in the {stage} of {artefact.path}, and a "
                "model cannot be tested on what it was trained on: choose another split"
            )


def _method(provenance: Mapping[str, Any]) -> str | None:
    stages = [provenance[stage]["config"]["method"] for stage in ("pretraining", "training") if stage in provenance]
    return " + ".join(stages) or provenance.get("method")


def labels_table(images: Collection, findings: Sequence[str], policy: Policy) -> pd.DataFrame:
    """The table of `labels.parquet`: who the images are of, and 1, 0 or NaN (left out) per finding."""
    labels = images.labels(findings, policy)
    about = images.index[["image_key", "patient_id", "sex", "age", "view"]]
    return about.join(pd.DataFrame(labels, columns=[f"label:{finding}" for finding in findings]))


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


def _score(plan: Plan, run: RunFolder, device: torch.device) -> None:
    config, parts = plan.config, Parts(run.path / PARTS)
    classifier = plan.artefact.classifier.to(device)
    scorer = Scorer(classifier, plan.outputs, plan.cells, config.seed, plan.images.packs[0].mean)
    scores = score(scorer, plan.images, parts, config.batch_size)
    _write(scores_table(scores, plan.cells, plan.labels, plan.findings), run.path / "scores.parquet")


def _judge(plan: Plan, run: RunFolder) -> list[str]:
    """Write the results, from the files of scores and labels alone; returns what has no interval."""
    table = results_table(
        pd.read_parquet(run.path / "scores.parquet"),
        pd.read_parquet(run.path / "labels.parquet"),
        plan.conditions,
        model=plan.name,
        not_applicable=plan.not_applicable,
        seen=plan.seen_in_training,
        resamples=plan.config.resamples,
        seed=plan.config.seed,
    )
    write_atomic(run.path / "results.csv", lambda path: table.to_csv(path, index=False))
    _write(table, run.path / "results.parquet")
    unsure = without_interval(table)
    if unsure:
        log.warning("too few patients with or without the finding for an interval: %s", ", ".join(unsure))
    return unsure


def _copy_curves(artefact: Path, out: Path) -> None:
    for name in ("pretraining.csv", "training.csv"):
        if (artefact / name).is_file():
            shutil.copyfile(artefact / name, out / name)


def _write(table: pd.DataFrame, path: Path) -> None:
    write_atomic(path, lambda temporary: table.to_parquet(temporary, index=False))
