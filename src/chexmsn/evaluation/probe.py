"""Probe an encoder without training it: features of a pack, read by neighbours or by logistic regression.

Fitted on some splits, chosen on another, tested on a third. The results lie in a folder like that of a stress test,
with the clean condition alone, and are reported and compared with those.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32

from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy
from chexmsn.data.pack import Pack, open_pack
from chexmsn.evaluation.conditions import CLEAN
from chexmsn.evaluation.features import Which, features_of
from chexmsn.evaluation.probes._base import AbstractProbe, Bank, Setting
from chexmsn.evaluation.result_folder import (
    Terms,
    Tested,
    check_policy,
    corruptions_seen,
    fill,
    methods_of,
    name_of,
    record,
    scores_table,
)
from chexmsn.evaluation.scoring import Cell, Parts
from chexmsn.evaluation.unseen import check_unseen
from chexmsn.metrics.ranking import auroc, both_classes, macro
from chexmsn.models.artefact import fingerprint, load_encoder, provenance_of
from chexmsn.models.encoder import Encoder, EncoderConfig, build_encoder
from chexmsn.training.run import seeded, tell_unfinished
from chexmsn.training.run_folder import RunFolder, check_place, open_run

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A probe.

    Attributes:
        data: pack with labels, as `chexmsn prepare` makes it.
        out: folder for scores and results.
        method: name of a file in chexmsn/evaluation/probes: knn or logistic.
        options: the method's own options.
        encoder_from: pretraining run, encoder folder or checkpoint; that of a classifier serves as well.
        encoder: a network of random weights in its place: the baseline that pretraining has to beat.
        name: what tables and figures call it; the encoder's run folder and the method when empty.
        fit_splits: splits whose images are learned from.
        validate_split: split on which options of several values are chosen, by macro AUROC.
        split: split whose images are scored; nothing is chosen on it.
        labels: what uncertain (-1) and blank labels count as.
        features: pooled (class token or global average) or before-norm (class token before the last LayerNorm).
        resamples: how often the patients are resampled for the intervals.
        batch_size: images at once; the features do not depend on it.
        seed: random weights and resamples follow from it.
        device: auto, cpu or gpu.
    """

    data: Path
    out: Path
    method: str = "knn"
    options: Any
    encoder_from: Path | None = None
    encoder: EncoderConfig | None = None
    name: str | None = None
    fit_splits: tuple[str, ...] = ("train",)
    validate_split: str = "validate"
    split: str = "test"
    labels: Policy = dataclasses.field(default_factory=Policy)
    features: Which = "pooled"
    resamples: int = 1000
    batch_size: int = 64
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self, resamples="[1, inf)", batch_size="[1, inf)")
        check_policy(self.labels)
        if (self.encoder_from is None) == (self.encoder is None):
            given = "neither" if self.encoder is None else "both"
            raise UserError(f"a probe takes encoder_from, or encoder for one of random weights, not {given}: give one")
        used = [*self.fit_splits, self.validate_split, self.split]
        if twice := [split for split in used if used.count(split) > 1]:
            raise UserError(f"what is fitted, chosen and tested on must differ, and {twice[0]!r} comes twice")


def probe(config: ProbeConfig) -> Path:
    """Read an encoder's features and judge what they tell; returns the folder of the results.

    The same configuration resumes, or says that it is finished.

    Raises:
        UserError: bad configuration, encoder, data or device; nothing to learn, choose or rank; a folder of another
            configuration.
    """
    check_place(config.out, "probe")
    device = choose_device(config.device)
    plan = Plan.open(config)
    run = open_run(config.out, "probe", plan.asked, plan.facts)
    if run.finished:
        log.info("%s is finished: nothing to do", run.path)
        return run.path
    with run.alone():
        fill(
            run,
            plan.tested,
            plan.terms,
            device,
            curves=plan.curves,
            score=lambda parts: _score(plan, run, parts, device),
        )
    return run.path


class Source(NamedTuple):
    """What gives the features, how it was made, and what it is called."""

    encoder: Encoder
    provenance: dict[str, Any]
    name: str


class Known(NamedTuple):
    """Labelled images to learn from or to choose on: 1, 0 or NaN per tested finding."""

    images: Collection
    labels: Float32[np.ndarray, "N C"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration asks for, opened and checked.

    Attributes:
        config: the configuration.
        source: the encoder.
        fitted: what is learned from.
        chosen: what options are chosen on.
        images: those of the tested split.
        tested: their labels, of the findings that there is something to learn of.
        terms: how scores become results.
    """

    config: ProbeConfig
    source: Source
    fitted: Known
    chosen: Known
    images: Collection
    tested: Tested
    terms: Terms

    @classmethod
    def open(cls, config: ProbeConfig) -> "Plan":
        """Open everything. Raises UserError as `probe` does."""
        source, pack = _source(config), open_pack(config.data)
        if config.features == "before-norm" and source.encoder.kind != "transformer":
            raise UserError(f"{source.encoder.config.name} has no class token to take before its norm: choose pooled")
        images = Collection([pack], [config.split])
        if config.encoder_from is not None:
            for doubt in check_unseen(images, source.provenance, config.encoder_from).get("doubts", ()):
                log.warning("%s", doubt)
        findings = _learnable(pack, config)
        fitted = _known(pack, config.fit_splits, findings, config.labels)
        chosen = _known(pack, (config.validate_split,), findings, config.labels)
        _check_choice(chosen, findings, config)
        terms = Terms(
            model=config.name or f"{source.name}-{config.method}",
            conditions=(CLEAN,),
            not_applicable={},
            seen=corruptions_seen(source.provenance),
            resamples=config.resamples,
            seed=config.seed,
        )
        return cls(config, source, fitted, chosen, images, Tested.on(images, findings, config.labels), terms)

    @property
    def curves(self) -> dict[str, Path]:
        """The curves of the encoder's pretraining, where it is a run's."""
        return {} if self.config.encoder_from is None else {"pretraining.csv": self.config.encoder_from / "history.csv"}

    @property
    def asked(self) -> dict[str, Any]:
        """The part of the configuration that decides the results, with encoder and data by what they hold."""
        named = (
            "method",
            "options",
            "fit_splits",
            "validate_split",
            "split",
            "labels",
            "features",
            "resamples",
            "seed",
        )
        return {
            "model": self.terms.model,
            "weights": fingerprint(self.source.encoder),
            "data": self.images.packs[0].fingerprint,
            **{name: getattr(self.config, name) for name in named},
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of the run says beyond the configuration."""
        encoder, provenance, _ = self.source
        methods = [*methods_of(provenance), self.config.method]
        about = {
            "fingerprint": fingerprint(encoder),
            "kind": encoder.kind,
            "encoder": encoder.config.name,
            "size": encoder.config.size,
            "patch": encoder.config.patch,
        }
        return record(self.terms, self.tested, about, methods, provenance)


def _source(config: ProbeConfig) -> Source:
    if config.encoder_from is None:
        with seeded(config.seed):
            return Source(build_encoder(config.encoder), {}, "random")
    tell_unfinished(config.encoder_from)
    path = config.encoder_from
    return Source(load_encoder(path), provenance_of(path), name_of(path))


def _known(pack: Pack, splits: tuple[str, ...], findings: tuple[str, ...], policy: Policy) -> Known:
    images = Collection([pack], splits)
    return Known(images, images.labels(findings, policy))


def _learnable(pack: Pack, config: ProbeConfig) -> tuple[str, ...]:
    """The findings with positives and negatives to learn from."""
    there = both_classes(_known(pack, config.fit_splits, pack.findings, config.labels).labels)
    findings = tuple(finding for finding, has in zip(pack.findings, there, strict=True) if has)
    told = f"no positive or no negative label in the splits {', '.join(config.fit_splits)} of {pack.folder}"
    if not findings:
        raise UserError(f"{told} for any finding: there is nothing to learn, choose other fit_splits or another policy")
    if dropped := [finding for finding in pack.findings if finding not in findings]:
        log.info("left out, %s: %s", told, ", ".join(dropped))
    return findings


def _check_choice(chosen: Known, findings: tuple[str, ...], config: ProbeConfig) -> None:
    if not both_classes(chosen.labels).any():
        raise UserError(
            f"the split {config.validate_split!r} has positive and negative labels of none of {', '.join(findings)}: "
            "choose another validate_split"
        )


def _score(plan: Plan, run: RunFolder, parts: Parts, device: torch.device) -> pd.DataFrame:
    fitted, queries, tested = (
        _features(plan, images, name, parts, device)
        for name, images in (
            ("fit", plan.fitted.images),
            ("validate", plan.chosen.images),
            ("test", plan.images),
        )
    )
    bank = Bank(fitted, torch.from_numpy(plan.fitted.labels).to(device))
    reader = load("chexmsn.evaluation.probes", plan.config.method).Probe(plan.config.options, bank)
    setting = _choose(reader, queries, plan.chosen.labels, run)
    (scores,) = reader.scores(tested, [setting])
    return scores_table(np.float32(scores)[None], [Cell(CLEAN, 0)], plan.tested.labels, plan.tested.findings)


def _features(plan: Plan, images: Collection, name: str, parts: Parts, device: torch.device) -> torch.Tensor:
    how = {"batch_size": plan.config.batch_size, "title": f"features ({name})"}
    encoder = plan.source.encoder.to(device)
    return torch.from_numpy(features_of(images, encoder, plan.config.features, Parts(parts.folder / name), **how)).to(
        device
    )


def _choose(
    reader: AbstractProbe, queries: torch.Tensor, labels: Float32[np.ndarray, "N C"], run: RunFolder
) -> Setting:
    """The setting of the best macro AUROC on the validation split, the first of equals; all are recorded."""
    judged = both_classes(labels)
    merits = [float(macro(auroc(scores, labels), judged)) for scores in reader.scores(queries, reader.settings)]
    best = reader.settings[int(np.argmax(merits))]
    tried = [setting | {"macro_auroc": merit} for setting, merit in zip(reader.settings, merits, strict=True)]
    run.update(chosen=best, tried_on_validation=tried)
    log.info("chosen on the validation split: %s (macro AUROC %.3f)", best, max(merits))
    return best
