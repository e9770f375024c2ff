"""The stress test: one classifier, one pack, every condition; scores and results in one folder."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from chexmsn.core.device import choose_device
from chexmsn.core.files import read_json
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load
from chexmsn.core.progress import progress
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy
from chexmsn.data.pack import open_pack
from chexmsn.evaluation.adapters._model import Model
from chexmsn.evaluation.conditions import chosen, with_pixels
from chexmsn.evaluation.facts import Facts
from chexmsn.evaluation.findings import match
from chexmsn.evaluation.model_check import Sample, check_taken, doubts, few_patients, input_doubts
from chexmsn.evaluation.result_folder import (
    Terms,
    Tested,
    check_policy,
    corruptions_seen,
    fill,
    labels_table,
    methods_of,
    record,
    scores_table,
)
from chexmsn.evaluation.scoring import Cell, Parts, Scorer, cells_of, clean_scores, score, why_not
from chexmsn.evaluation.thresholds import Thresholds, asked_thresholds, find_thresholds
from chexmsn.evaluation.unseen import check_unseen, stage_that_saw
from chexmsn.training.run_folder import check_place, open_run

log = logging.getLogger(__name__)

ADAPTERS = "chexmsn.evaluation.adapters"
OURS = "chexmsn"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StressConfig:
    """A stress test.

    Attributes:
        model: training run, classifier folder or checkpoint; of an adapter, what it opens (docs/any-model.md).
        data: pack to test on, as `chexmsn prepare` makes it; another one than the model's own tests how it generalises.
        out: folder for scores and results.
        adapter: where the model comes from (a file in chexmsn/evaluation/adapters).
        options: the adapter's own options.
        name: what tables and figures call the model; the name of its run folder or file when empty.
        split: split of the pack whose images are scored.
        labels: what uncertain (-1) and blank labels count as.
        thresholds: from which probability on a finding counts as present: a split of the pack (not the tested one) on
            whose clean images that is chosen, or a CSV file with the columns finding and threshold. When empty, the
            model's own; a model without gets them from the split validate, where the pack has one.
        conditions: grids (standard, fills, missing, imagenet-c, radiographic, extended), corruptions, or single
            conditions such as gaussian-blur:3 or tokens-removed/block:0.7 (docs/stress.md).
        anatomy: masks for the patterns inside and outside: a folder of <image key>.npy or .png, or one .npy.
        saliency: maps for the patterns salient and non-salient; the model itself is asked when empty.
        repeats: how often each random condition is drawn anew.
        resamples: how often the patients are resampled for the intervals.
        batch_size: images at once; the scores do not depend on it.
        seed: every mask, noise and resample follows from it.
        device: auto, cpu or gpu.
    """

    model: Path
    data: Path
    out: Path
    adapter: str = OURS
    options: Any = None
    name: str | None = None
    split: str = "test"
    labels: Policy = dataclasses.field(default_factory=Policy)
    thresholds: str | None = None
    conditions: tuple[str, ...] = ("standard", "fills")
    anatomy: Path | None = None
    saliency: Path | None = None
    repeats: int = 1
    resamples: int = 1000
    batch_size: int = 64
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self, repeats="[1, inf)", resamples="[1, inf)", batch_size="[1, inf)")
        check_policy(self.labels)
        adapter = load(ADAPTERS, self.adapter)
        if self.options is None:
            object.__setattr__(self, "options", adapter.Config())


def stress(config: StressConfig) -> Path:
    """Score and judge a classifier under every condition; returns the folder of the results.

    The same configuration resumes, or says that it is finished.

    Raises:
        UserError: bad configuration, model, data or device; nothing to rank; a folder of another configuration; a
            model whose answers to clean images show that something is wrong.
    """
    check_place(config.out, "stress")
    device = choose_device(config.device)
    plan = Plan.open(config, device)
    begun = config.out / "run.json"
    doubted = {} if begun.is_file() else {"doubts": plan.doubts()}
    plan = plan.judged_at(Thresholds.recorded(read_json(begun)) if begun.is_file() else plan.thresholds())
    run = open_run(config.out, "stress", plan.asked, plan.facts | doubted)
    if run.finished:
        log.info("%s is finished: nothing to do", run.path)
        return run.path
    with run.alone():
        fill(run, plan.tested, plan.terms, device, curves=plan.model.curves, score=lambda parts: _score(plan, parts))
    return run.path


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration asks for, opened and checked.

    Attributes:
        config: the configuration.
        model: the classifier, on its device.
        images: those of the split.
        tested: their labels, of the findings that classifier and pack share.
        outputs: which of the classifier's outputs these are.
        terms: the conditions, with black pixels wherever tokens are to be removed and cannot be.
        beside: what is known of the images beside their pixels.
        unseen: what is known of the model's training on the same patients.
    """

    config: StressConfig
    model: Model
    images: Collection
    tested: Tested
    outputs: tuple[int, ...]
    terms: Terms
    beside: Facts
    unseen: Mapping[str, Any]

    @classmethod
    def open(cls, config: StressConfig, device: torch.device) -> "Plan":
        """Open everything. Raises UserError as `stress` does."""
        asked_for = chosen(config.conditions)
        model = load(ADAPTERS, config.adapter).open(config.model, config.options).to(device)
        pack = open_pack(config.data)
        images = Collection([pack], [config.split])
        unseen = check_unseen(images, model.provenance, config.model)
        matched = match(model.findings, pack.findings, str(config.model), str(pack.folder))
        conditions = asked_for if model.supports_token_removal else with_pixels(asked_for)
        beside = Facts.of(images, model, config.anatomy, config.saliency)
        check_taken(model, torch.from_numpy(images.pixels(np.array([0]))))  # before saliency is asked for
        unknown = beside.unknown(conditions, model)
        terms = Terms(
            model=config.name or model.name,
            conditions=conditions,
            not_applicable={condition: why for condition in conditions if (why := why_not(condition, model, unknown))},
            seen=corruptions_seen(model.provenance),
            resamples=config.resamples,
            seed=config.seed,
        )
        tested = Tested.on(images, tuple(matched), config.labels)
        return cls(config, model, images, tested, tuple(matched.values()), terms, beside, unseen)

    def doubts(self) -> list[str]:
        """What answers to a few clean images leave in doubt. Raises UserError for what cannot be right."""
        sample = Sample.of(self.images, self.tested.labels, self.outputs, self.config.batch_size)
        found = [*self.unseen.get("doubts", []), *few_patients(self.tested.labels), *doubts(self.model, sample)]
        if self.config.adapter != OURS:
            found += input_doubts(self.model, sample)
        for doubt in found:
            log.warning("%s", doubt)
        return found

    def thresholds(self) -> Thresholds:
        """Where each finding counts as present. Raises UserError as `find_thresholds` does."""
        pack, findings = self.images.packs[0], self.tested.findings
        told = zip(findings, (self.model.findings[output] for output in self.outputs), strict=True)
        own = {ours: self.model.thresholds[theirs] for ours, theirs in told if theirs in self.model.thresholds}
        splits = [split for split in pack.info["splits"] if not stage_that_saw(pack, split, self.model.provenance)]
        found = find_thresholds(self.config.thresholds, own, findings, splits, self.config.split, self._chosen_on)
        log.info("thresholds: %s", found.origin)
        return found

    def _chosen_on(self, split: str) -> Thresholds:
        images = Collection(self.images.packs, [split])
        labels = labels_table(images, self.tested.findings, self.config.labels)
        starts = range(0, len(images), self.config.batch_size)
        batches = (np.arange(start, min(start + self.config.batch_size, len(images))) for start in starts)
        shown = progress(batches, total=len(starts), title=f"thresholds on {split}", unit="pass")
        scores = [clean_scores(self.model, torch.from_numpy(images.pixels(rows))) for rows in shown]
        return Thresholds.chosen(
            np.concatenate(scores)[:, list(self.outputs)], labels, f"the split {split} of {images.packs[0].name}"
        )

    def judged_at(self, thresholds: Thresholds) -> "Plan":
        """The same plan, with thresholds."""
        return dataclasses.replace(self, terms=dataclasses.replace(self.terms, thresholds=thresholds))

    @property
    def cells(self) -> list[Cell]:
        """What is to be scored."""
        applicable = [c for c in self.terms.conditions if c not in self.terms.not_applicable]
        return cells_of(applicable, self.config.repeats)

    @property
    def asked(self) -> dict[str, Any]:
        """The part of the configuration that decides the results, with models and data by what they hold."""
        named = ["split", "labels", "conditions", "repeats", "resamples", "seed"]
        if self.config.adapter != OURS:  # results of before there were adapters stay what they are
            named += ["adapter", "options"]
        return {
            "model": self.terms.model,
            "weights": self.model.fingerprint,
            "data": self.images.fingerprint,
            **{name: getattr(self.config, name) for name in named},
            **asked_thresholds(self.config.thresholds),
            **self.beside.asked,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of the run says beyond the configuration."""
        provenance = self.model.provenance
        told = record(self.terms, self.tested, self.model.about, methods_of(provenance), provenance)
        told["patients_of_training"] = self.unseen["patients_of_training"]
        return told | {"repeats": self.config.repeats, **self.beside.told(self.terms.conditions)}


def _score(plan: Plan, parts: Parts) -> pd.DataFrame:
    scorer = Scorer(plan.model, plan.outputs, plan.cells, plan.config.seed, plan.images.packs[0].mean, plan.beside)
    how = {"batch_size": plan.config.batch_size, "title": "stress"}
    scores = score(scorer.passes, len(plan.cells), plan.images, parts, check=scorer.check, **how)
    return scores_table(scores, plan.cells, plan.tested.labels, plan.tested.findings)
