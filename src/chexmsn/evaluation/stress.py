"""The stress test: one classifier, one pack, every condition; scores and results in one folder."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy, canonical, shared_findings
from chexmsn.data.pack import open_pack
from chexmsn.evaluation.conditions import chosen, with_pixels
from chexmsn.evaluation.result_folder import (
    Terms,
    Tested,
    check_policy,
    check_unseen,
    corruptions_seen,
    fill,
    methods_of,
    name_of,
    record,
    scores_table,
)
from chexmsn.evaluation.scoring import Cell, Parts, Scorer, cells_of, score, why_not
from chexmsn.models.artefact import ClassifierArtefact, fingerprint, load_classifier
from chexmsn.training.run_folder import open_run

log = logging.getLogger(__name__)


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
        check_policy(self.labels)


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
        fill(run, plan.tested, plan.terms, device, curves=plan.curves, score=lambda parts: _score(plan, parts, device))
    return run.path


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration asks for, opened and checked.

    Attributes:
        config: the configuration.
        artefact: the classifier.
        tested: the images of the split, and the findings that classifier and pack share.
        terms: the conditions, for a CNN with black pixels wherever tokens are removed as well.
    """

    config: StressConfig
    artefact: ClassifierArtefact
    tested: Tested
    terms: Terms

    @classmethod
    def open(cls, config: StressConfig) -> "Plan":
        """Open everything. Raises UserError as `stress` does."""
        artefact = load_classifier(config.model)
        images = Collection([open_pack(config.data)], [config.split])
        check_unseen(images, artefact.provenance, str(artefact.path))
        encoder = artefact.classifier.encoder
        asked_for = chosen(config.conditions)
        conditions = with_pixels(asked_for) if encoder.kind == "cnn" else asked_for
        terms = Terms(
            model=config.name or name_of(artefact.path),
            conditions=conditions,
            not_applicable={condition: why for condition in conditions if (why := why_not(condition, encoder))},
            seen=corruptions_seen(artefact.provenance),
            resamples=config.resamples,
            seed=config.seed,
        )
        return cls(config, artefact, Tested.on(images, _shared(artefact, images), config.labels), terms)

    @property
    def cells(self) -> list[Cell]:
        """What is to be scored."""
        applicable = [c for c in self.terms.conditions if c not in self.terms.not_applicable]
        return cells_of(applicable, self.config.repeats)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Which of the classifier's outputs the findings are."""
        known = [canonical(finding) for finding in self.artefact.findings]
        return tuple(known.index(finding) for finding in self.tested.findings)

    @property
    def curves(self) -> dict[str, Path]:
        """The curves of the model's training, which lie beside it."""
        return {name: self.artefact.path / name for name in ("pretraining.csv", "training.csv")}

    @property
    def asked(self) -> dict[str, Any]:
        """The part of the configuration that decides the results, with models and data by what they hold."""
        named = ("split", "labels", "conditions", "repeats", "resamples", "seed")
        return {
            "model": self.terms.model,
            "weights": fingerprint(self.artefact.classifier),
            "data": self.tested.images.fingerprint,
            **{name: getattr(self.config, name) for name in named},
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of the run says beyond the configuration."""
        classifier, provenance = self.artefact.classifier, self.artefact.provenance
        told = record(self.terms, self.tested, classifier, classifier.encoder, methods_of(provenance), provenance)
        return told | {"repeats": self.config.repeats}


def _shared(artefact: ClassifierArtefact, images: Collection) -> tuple[str, ...]:
    findings = shared_findings(artefact.findings, images.findings)
    if not findings:
        raise UserError(
            f"the model and the pack share no finding: {artefact.path} tells {', '.join(artefact.findings)}, "
            f"{images.packs[0].folder} has labels of {', '.join(images.findings) or 'nothing'}; choose another pack"
        )
    return findings


def _score(plan: Plan, parts: Parts, device: torch.device) -> pd.DataFrame:
    tested = plan.tested
    classifier = plan.artefact.classifier.to(device)
    scorer = Scorer(classifier, plan.outputs, plan.cells, plan.config.seed, tested.images.packs[0].mean)
    how = {"batch_size": plan.config.batch_size, "title": "stress"}
    scores = score(scorer.passes, len(plan.cells), tested.images, parts, **how)
    return scores_table(scores, plan.cells, tested.labels, tested.findings)
