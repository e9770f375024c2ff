"""Pretraining and downstream training: from a configuration to a finished run folder."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from lightning.pytorch.callbacks import Callback

from chexmsn.core.distributed import first_then_others, is_first
from chexmsn.core.draws import key_of
from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.core.lookup import load, names, unknown
from chexmsn.core.record import differences
from chexmsn.data.collection import Collection
from chexmsn.data.labels import canonical
from chexmsn.data.pack import Pack, open_pack
from chexmsn.data.splits import share_of_patients
from chexmsn.methods._base import AbstractMethod, Setting
from chexmsn.metrics.ranking import both_classes
from chexmsn.models.artefact import fingerprint, load_classifier, load_encoder, provenance_of
from chexmsn.models.encoder import Encoder, EncoderConfig, build_encoder
from chexmsn.training.callbacks import KeepBest, KeepClassifier, KeepEncoder, StopEarly
from chexmsn.training.compiling import check_compiler
from chexmsn.training.config import EXECUTION, PretrainConfig, RunConfig, TrainConfig
from chexmsn.training.devices import on_all_devices
from chexmsn.training.engine import Feed, Part, RunsOn, fit
from chexmsn.training.loop import ClassifierLoop, PretrainingLoop
from chexmsn.training.probe import OnlineProbe, epochs_between, labelled
from chexmsn.training.run_folder import RunFolder, open_run, plain
from chexmsn.training.trained_on import keep_trained_on

log = logging.getLogger(__name__)


def method_file(name: str, kind: Literal["pretraining", "classifier"]) -> ModuleType:
    """The file of a method of this kind. Raises UserError for an unknown name or the other kind."""
    if name.replace("_", "-") not in names("chexmsn.methods"):
        raise unknown("method", name, methods_of(kind))
    module = load("chexmsn.methods", name)
    if module.Method.kind != kind:
        command = {"pretraining": "train", "classifier": "pretrain"}[kind]
        raise UserError(f"{name} is a method of chexmsn {command}: choose one of {', '.join(methods_of(kind))} here")
    return module


def methods_of(kind: Literal["pretraining", "classifier"]) -> list[str]:
    """The names of all methods of this kind."""
    return [name for name in names("chexmsn.methods") if load("chexmsn.methods", name).Method.kind == kind]


def check_run(config: RunConfig, encoder: EncoderConfig | None) -> None:
    """What can be known to fail before any data are opened.

    Args:
        config: the run.
        encoder: its network; None where only a checkpoint will tell.

    Raises:
        UserError: a method that cannot work with this network or batch, a warm-up without end, a device or a precision
            that this machine does not have.
    """
    options = config.options
    if min(options.warmup_epochs, options.warmup_share * config.epochs) >= config.epochs:
        raise UserError(
            f"a warm-up of {options.warmup_epochs} epochs does not end in a run of {config.epochs}: "
            "choose a shorter one, or a smaller warmup_share"
        )
    if encoder is not None:
        method = load("chexmsn.methods", config.method).Method
        method.check(options, encoder, encoder.size, config.batch_size)
    on = RunsOn.choose(config)
    if config.compile:
        check_compiler(on.device)


def pretrain(config: PretrainConfig) -> Path:
    """Pretrain an encoder; returns the run folder. The same configuration resumes, or says that it is finished.

    Raises:
        UserError: bad configuration, data or device, or a run folder of another configuration.
    """
    method_file(config.method, "pretraining")
    check_run(config, config.encoder)
    return on_all_devices(_pretrain, config)


def _pretrain(config: PretrainConfig) -> Path:
    module = method_file(config.method, "pretraining")
    on = RunsOn.choose(config)
    packs = [open_pack(path) for path in config.data]
    images = Collection(packs, config.train_splits)
    check_sides(images, config.encoder)
    probe = _probe(config, images)
    held_out = _validation(packs, config)
    feed = Feed(config, Part.whole(images), None if held_out is None else Part.whole(held_out))
    setting = Setting(size=config.encoder.size, batch_size=config.batch_size)
    with seeded(config.seed):
        method = module.Method(config.options, build_encoder(config.encoder), setting)
    loop = PretrainingLoop(method, **_course(config, len(images)), identity=_identity(config, config.encoder))
    about = facts(method, images, np.arange(len(images)), on)
    run = first_then_others(lambda: open_run(config.out, "pretraining", asked(config), about))
    if run.finished:
        return _already(run, load_encoder)
    keep_trained_on(run.path, "pretraining", images, np.arange(len(images)))
    keep = KeepEncoder(run.path / "encoder", {"pretraining": _summary(run)})
    fit(run, config, loop, feed, [keep, *_patience(config, "validation/loss", "min"), *probe], on)
    return run.path


def train(config: TrainConfig) -> Path:
    """Train a classifier; returns the run folder. The same configuration resumes, or says that it is finished.

    Raises:
        UserError: bad configuration, data or device, or a run folder of another configuration.
    """
    method_file(config.method, "classifier")
    check_run(config, None)
    return on_all_devices(_train, config)


def _train(config: TrainConfig) -> Path:
    module = method_file(config.method, "classifier")
    with seeded(config.seed):
        encoder = starting_encoder(config)
    starting_weights = fingerprint(encoder)
    check_run(config, encoder.config)
    on = RunsOn.choose(config)
    packs = [open_pack(path) for path in config.data]
    images = Collection(packs, config.train_splits)
    check_sides(images, encoder.config)
    rows = share_of_patients(images.patients.tolist(), config.share, config.seed)
    findings = findings_to_learn(config, images, rows)
    targets = images.labels(findings, config.labels)
    held_out = _validation(packs, config)
    validation = None if held_out is None else _judged_on(held_out, findings, config)
    setting = Setting(
        size=encoder.config.size,
        batch_size=config.batch_size,
        findings=findings,
        positives=tuple(np.nanmean(targets[rows], axis=0).tolist()),
    )
    with seeded(config.seed):
        method = module.Method(config.options, encoder, setting)
    identity = _identity(config, encoder.config, findings, readout=method.classifier.reads)
    loop = ClassifierLoop(method, **_course(config, len(rows)), identity=identity)
    about = facts(method, images, rows, on) | {"findings": findings, "starting_weights": starting_weights}
    run = first_then_others(lambda: open_run(config.out, "training", asked(config), about))
    if run.finished:
        copy_curves(config.encoder_from, run)
        return _already(run, load_classifier)
    keep_trained_on(run.path, "training", images, rows, config.encoder_from)
    keep = (KeepClassifier if validation is None else KeepBest)(run.path / "classifier", _lineage(run, config))
    stop = _patience(config, "validation/macro_auroc", "max")
    fit(run, config, loop, Feed(config, Part(images, rows, targets), validation), [keep, *stop], on)
    copy_curves(config.encoder_from, run)
    return run.path


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights follow from the seed, and the generator outside is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of("weights", seed))
        yield


def starting_encoder(config: TrainConfig) -> Encoder:
    """The pretrained encoder, or a new one. Raises UserError where it is not the one that was asked for."""
    needs_pretraining = load("chexmsn.methods", config.method).Method.needs_pretraining
    if needs_pretraining and config.encoder_from is None and config.encoder is None:
        raise UserError(
            f"{config.method} needs a pretrained encoder: give encoder_from, or encoder for one of random weights"
        )
    if not needs_pretraining and config.encoder_from is not None:
        raise UserError(f"{config.method} starts from scratch: leave encoder_from out, or take method fine-tune")
    if config.encoder_from is None:
        return build_encoder(config.encoder or EncoderConfig())
    encoder = load_encoder(config.encoder_from)
    tell_unfinished(config.encoder_from)
    if config.encoder is not None and (changes := differences(asdict(encoder.config), asdict(config.encoder))):
        told = "; ".join(changes).replace("before", "there").replace("now", "asked for")
        raise UserError(
            f"{config.encoder_from} holds another encoder ({told}): leave encoder out to take what is there"
        )
    return encoder


def tell_unfinished(run: Path) -> None:
    """Warn where an encoder is taken from a run that goes on."""
    record = run / "run.json"
    if record.is_file() and read_json(record).get("status") != "finished":
        log.warning("%s is not finished: its encoder after the last whole epoch is taken", run)


def findings_to_learn(config: TrainConfig, images: Collection, rows: Int64[np.ndarray, "n"]) -> tuple[str, ...]:
    """The findings that were asked for, by their canonical names, or all that training can learn from.

    Raises:
        UserError: a finding without a positive and a negative label among the training images.
    """
    asked_for = tuple(dict.fromkeys(map(canonical, config.findings or images.findings)))
    targets = images.labels(asked_for, config.labels)[rows]
    both = (np.nanmax(targets, axis=0, initial=0) > 0) & (np.nanmin(targets, axis=0, initial=1) < 1)
    learnable = tuple(finding for finding, has in zip(asked_for, both, strict=True) if has)
    dropped = [finding for finding in asked_for if finding not in learnable]
    if not learnable or (config.findings and dropped):
        raise UserError(
            f"the training split has no positive and negative labels for {', '.join(dropped) or 'any finding'}: "
            "choose other findings or more patients"
        )
    if dropped:
        log.info("left out, no positive or no negative label in the training split: %s", ", ".join(dropped))
    return learnable


def asked(config: RunConfig) -> dict[str, Any]:
    """The part of a configuration that decides what a run computes."""
    return {name: value for name, value in plain(config).items() if name not in EXECUTION}


def facts(method: AbstractMethod, images: Collection, rows: Int64[np.ndarray, "n"], on: RunsOn) -> dict[str, Any]:
    """What a run's record says beyond its configuration."""
    return {
        "data": {
            "fingerprint": images.fingerprint,
            "images": len(rows),
            "patients": len(set(images.patients[rows])),
            "packs": {pack.fingerprint: images.splits for pack in images.packs},
            "fit": images.packs[0].info["fit"],
        },
        "device": on.recorded,
        "corruptions_seen": method.corruptions_seen(),
    }


def copy_curves(encoder_from: Path | None, run: RunFolder) -> None:
    """Put the curves of training, and of the pretraining before it, beside the classifier; the first process does."""
    if not is_first():
        return
    pairs = [(run.path / "history.csv", "training.csv")]
    if encoder_from is not None:
        pairs.append((encoder_from / "history.csv", "pretraining.csv"))
    for history, name in pairs:
        if history.is_file():
            shutil.copyfile(history, run.path / "classifier" / name)


def check_sides(images: Collection, encoder: EncoderConfig) -> None:
    """Raise UserError for a pack whose images are smaller than the network takes."""
    if encoder.size > images.size:
        raise UserError(
            f"the network takes images of {encoder.size} px and the pack holds {images.size} px: "
            f"prepare it with a size of {encoder.size} or more, or take a smaller encoder.size"
        )


def _already(run: RunFolder, read: Callable[[Path], object]) -> Path:
    """A finished run needs nothing, as long as what it made can be read."""
    try:
        read(run.path)
    except UserError as error:
        raise UserError(
            f"{run.path} is finished and what it made is damaged ({error}): its last weights are in {run.checkpoint}; "
            "name that file instead, or remove the folder to train anew"
        ) from None
    log.info("%s is finished: nothing to do", run.path)
    return run.path


def _summary(run: RunFolder) -> dict[str, Any]:
    told = ("config", "data", "device", "corruptions_seen", "versions")
    return {name: run.record[name] for name in told}


def _lineage(run: RunFolder, config: TrainConfig) -> dict[str, Any]:
    before = {} if config.encoder_from is None else provenance_of(config.encoder_from)
    seen = [*before.get("pretraining", {}).get("corruptions_seen", []), *run.record["corruptions_seen"]]
    return before | {"training": _summary(run), "corruptions_seen": seen}


def _validation(packs: Sequence[Pack], config: RunConfig) -> Collection | None:
    return None if config.validate_split is None else Collection(packs, (config.validate_split,))


def _judged_on(held_out: Collection, findings: tuple[str, ...], config: TrainConfig) -> Part:
    targets = held_out.labels(findings, config.labels)
    targets[(targets != 0) & (targets != 1)] = np.nan  # a smooth label ranks nothing
    if not both_classes(targets).any():
        raise UserError(
            f"the split {config.validate_split!r} has positive and negative labels of none of {', '.join(findings)}: "
            "choose another validate_split, or null for none"
        )
    return Part.whole(held_out, targets)


def _probe(config: PretrainConfig, images: Collection) -> list[Callback]:
    """The online probe, where there are labels for it and the run is long enough for it to be cheap."""
    chosen = None if config.probe is None else labelled(images, config.probe, config.seed)
    if chosen is None:
        return []
    sides = (len(chosen.queries), len(chosen.bank))
    every = epochs_between(config.probe, sum(sides), len(images) // (config.devices * config.nodes))
    if every > config.epochs:
        return []
    log.info("online probe: %d images by their neighbours among %d others, every %d epochs", *sides, every)
    return [OnlineProbe(chosen, every)]


def _course(config: RunConfig, images: int) -> dict[str, Any]:
    if images < config.batch_size:
        raise UserError(
            f"a batch of {config.batch_size} images cannot be drawn from {images}: choose a smaller batch_size"
        )
    steps = {"steps_per_epoch": images // config.batch_size, "epochs": config.epochs}
    return {"seed": config.seed, "compile": config.compile} | steps


def _identity(config: RunConfig, encoder: EncoderConfig, findings: Sequence[str] = (), **more: str) -> dict[str, Any]:
    return {"encoder": asdict(encoder), "method": config.method, "findings": list(findings)} | more


def _patience(config: RunConfig, monitor: str, mode: str) -> list[Callback]:
    if config.patience is None:
        return []
    how = {"patience": config.patience, "min_delta": config.min_delta, "mode": mode}
    return [StopEarly(monitor, check_finite=False, **how)]
