"""What a user may decide about a training run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.data.labels import Policy
from chexmsn.models.encoder import VIT_SIZES, EncoderConfig

# Where and how fast a run computes is not part of what it computes: a run may resume with other values.
# The number of devices is such a thing: the steps are those of one, up to the order of summation and, with stochastic
# depth, to which of the generator's numbers an image gets.
EXECUTION = frozenset(
    {
        *("out", "device", "devices", "nodes", "compile", "workers", "pin_memory", "resident"),
        *("checkpoint_minutes", "health", "probe"),
    }
)


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """How a run watches over itself; no weight depends on it.

    Attributes:
        on_collapse: a run that collapses or diverges says so and goes on ("warn"), or ends ("stop").
        every: optimiser steps between two looks.
        images: features of so many last images are looked at.
    """

    on_collapse: Literal["warn", "stop"] = "warn"
    every: int = 50
    images: int = 512

    def __post_init__(self) -> None:
        check_limits(self, "health", every="[1, inf)", images="[2, inf)")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A look at what labels say of the features now and then while pretraining: macro AUROC by nearest neighbours.

    Labelled training images are divided by patient; the neighbours come from three quarters of the patients, the
    images to score from the rest. Images of the test split are never used.

    Attributes:
        images: about how many labelled images.
        every: epochs between two looks; when empty, as often as costs at most a few per cent of the time.
        findings: findings to score; all with both classes on both sides when empty.
    """

    images: int = 512
    every: int | None = None
    findings: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_limits(self, "the probe", images="[8, inf)", every="[1, inf)")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training run shares.

    Attributes:
        data: packs to train on, as `chexmsn prepare` makes them; several are joined.
        out: run folder; the same command on the same folder resumes.
        method: name of a file in chexmsn/methods.
        options: the method's own options.
        train_splits: splits whose images are trained on.
        validate_split: split on which training is judged; none when empty.
        epochs: passes over the training images.
        batch_size: images per optimiser step, over all devices.
        patience: epochs without improvement before training stops early; never when empty.
        min_delta: smallest change that counts as an improvement.
        precision: auto, 32, bf16 or 16; auto takes bf16 on a GPU that has it and 32 elsewhere.
        device: auto, cpu or gpu.
        devices: how many of them, on each node; each gets its share of the batch.
        nodes: machines, where torchrun or Slurm starts the run on several.
        compile: make one piece of code of a step, on one device: a GPU is much faster with it. It takes a minute or
            two at each start.
        workers: processes that read images; with 0 a thread reads ahead, enough for a pack on a fast disk.
        pin_memory: copy through pinned memory, beside what the GPU computes; without effect on a CPU.
        resident: whether all pixels move to the device's memory once, from which batches are cut: where they take at
            most 40 % of what a GPU has free (auto), always, or never. Batches are the same.
        seed: every random decision follows from it.
        strategy: ddp, every device has the whole network; or fsdp, each holds a part of it, for pretraining encoders
            that are too large for one.
        checkpoint_minutes: how much work a kill may cost; a checkpoint is also written at the end of every epoch, and
            0 writes one after every step.
        health: how the run watches over itself; not at all when null.
    """

    data: tuple[Path, ...]
    out: Path
    method: str
    options: Any
    train_splits: tuple[str, ...] = ("train",)
    validate_split: str | None = "validate"
    epochs: int = 100
    batch_size: int = 128
    patience: int | None = None
    min_delta: float = 0.0
    precision: str = "auto"
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    compile: bool = False
    workers: int = 0
    pin_memory: bool = True
    resident: Literal["auto", "always", "never"] = "auto"
    seed: int = 0
    checkpoint_minutes: float = 10.0
    health: HealthConfig | None = field(default_factory=HealthConfig)

    def __post_init__(self) -> None:
        check_limits(self, epochs="[1, inf)", batch_size="[1, inf)", devices="[1, inf)", nodes="[1, inf)")
        check_limits(self, patience="[1, inf)", min_delta="[0, inf)", workers="[0, inf)", checkpoint_minutes="[0, inf)")
        if self.batch_size % (self.devices * self.nodes):
            raise UserError(
                f"batch_size ({self.batch_size}) must be a multiple of devices x nodes "
                f"({self.devices} x {self.nodes}): each takes its share"
            )
        if self.compile and self.devices * self.nodes > 1:
            raise UserError("a compiled step is one of one device so far: leave compile out, or take --devices 1")
        if self.validate_split in self.train_splits:
            raise UserError(
                f"validate_split {self.validate_split!r} is among the train_splits, and training cannot be judged on "
                "what it learns from: choose another, or null for none"
            )
        if self.patience is not None and self.validate_split is None:
            raise UserError(
                "early stopping (patience) needs a validation split: give validate_split or leave patience out"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """A pretraining run: images in, an encoder out. Early stopping watches the validation loss.

    Attributes:
        encoder: the network to pretrain.
        probe: what labels say of the features meanwhile; nothing when null.
    """

    method: str = "msn"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    probe: ProbeConfig | None = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy == "fsdp":
            _check_divisible(self)


def _check_divisible(config: PretrainConfig) -> None:
    if config.encoder.name not in VIT_SIZES:
        raise UserError(f"strategy fsdp divides transformers, not {config.encoder.name}: take strategy ddp")
    if config.devices * config.nodes == 1:
        raise UserError("strategy fsdp divides the encoder over 2 devices or more, not 1: take strategy ddp")
    if config.precision == "16":
        raise UserError("strategy fsdp computes in precision 32 or bf16, not 16: take one of them, or strategy ddp")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """A downstream run: labelled images in, a classifier out. Early stopping watches the validation AUROC.

    Attributes:
        encoder_from: pretraining run, encoder folder or checkpoint to start from; from scratch when empty.
        encoder: the network when training from scratch; with encoder_from it must agree when given.
        findings: findings to learn; all of the pack that have positives in the training split when empty.
        labels: what uncertain (-1) and blank labels count as.
        share: share of the training patients that is used; smaller shares are contained in larger ones.
    """

    method: str = "fine-tune"
    encoder_from: Path | None = None
    encoder: EncoderConfig | None = None
    findings: tuple[str, ...] | None = None
    labels: Policy = field(default_factory=Policy)
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy == "fsdp":
            raise UserError("strategy fsdp is for pretraining, and a classifier is trained with ddp: leave it out")
        check_limits(self, "the training patients", share="(0, 1]")
