"""Lightning, and only here: device, precision, loggers, checkpoints and the end of a run."""

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from jaxtyping import Float32, Int64
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from chexmsn.core.batch import Batch
from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.core.record import differences
from chexmsn.data.collection import Collection
from chexmsn.data.loader import Feeding, hold, loader
from chexmsn.training.callbacks import History, ProgressLine, StayFinite
from chexmsn.training.checkpoints import Checkpoints, StraightToFile
from chexmsn.training.config import RunConfig
from chexmsn.training.health import Health
from chexmsn.training.keep_last import KeepLast
from chexmsn.training.loop import Loop
from chexmsn.training.meter import Meter
from chexmsn.training.precision import choose_precision
from chexmsn.training.processes import launcher
from chexmsn.training.residence import resides
from chexmsn.training.run_folder import RunFolder
from chexmsn.training.signals import Signals

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunsOn:
    """What a run computes on."""

    device: torch.device
    precision: str
    devices: int
    nodes: int = 1
    strategy: str = "ddp"

    @property
    def processes(self) -> int:
        """How many processes share a batch, one per device."""
        return self.devices * self.nodes

    @property
    def recorded(self) -> dict[str, Any]:
        """As `run.json` has it."""
        return {"type": self.device.type, "precision": self.precision, "devices": self.devices, "nodes": self.nodes}

    @classmethod
    def choose(cls, config: RunConfig) -> "RunsOn":
        """What was asked for, if this machine can serve it. Raises UserError, with the remedy, if not."""
        device = choose_device(config.device)
        if device.type == "cuda" and config.devices > torch.cuda.device_count():
            raise UserError(
                f"{config.devices} GPUs were asked for and torch sees {torch.cuda.device_count()}: take fewer"
            )
        return cls(device, choose_precision(config.precision, device), config.devices, config.nodes, config.strategy)


class Part(NamedTuple):
    """Images of a collection by row, and targets for all of its images; pretraining has none."""

    images: Collection
    rows: Int64[np.ndarray, "n"]
    targets: Float32[np.ndarray, "N C"] | None = None

    @classmethod
    def whole(cls, images: Collection, targets: Float32[np.ndarray, "N C"] | None = None) -> "Part":
        """All images of a collection."""
        return cls(images, np.arange(len(images)), targets)


class Feed(L.LightningDataModule):
    """Batches of the training and the validation images, in an order that depends on seed, epoch and keys alone.

    Where the device's memory has room for the pixels they move there once (`residence`); the batches are the same.
    """

    def __init__(self, config: RunConfig, training: Part, validation: Part | None):
        super().__init__()
        self.config = config
        self.training = training
        self.validation = validation

    def train_dataloader(self) -> Feeding:
        how = {"batch_size": self.config.batch_size, "process": self.trainer.global_rank}
        first = self.trainer.global_step % (len(self.training.rows) // self.config.batch_size)  # within its epoch
        order = {"epoch": self.trainer.current_epoch, "shuffle": True, "drop_last": True, "first": first}
        return self._loader(self.training, **order, **how, processes=self.trainer.world_size)

    def val_dataloader(self) -> Feeding:
        """Every process sees the whole validation split: it is small, and nothing has to be gathered.

        A loss of pretraining is one of a batch, so batches are the global ones of training (without gradients they fit
        where a process's share with them does). A classifier answers image by image: a share is enough at a time.
        """
        shares = 1 if self.validation.targets is None else self.trainer.world_size
        batch_size = self.config.batch_size // shares
        return self._loader(self.validation, epoch=0, shuffle=False, drop_last=False, batch_size=batch_size)

    def _loader(self, part: Part, **how: Any) -> Feeding:
        c = self.config
        pin_memory = c.pin_memory and self._device.type == "cuda"  # there is nothing to copy to
        held = self._held.get(id(part))
        return loader(*part, seed=c.seed, workers=c.workers, pin_memory=pin_memory, held=held, **how)

    @cached_property
    def _held(self) -> dict[int, Batch]:
        """The images that lie on the device, by their part; asked for when training begins and the network is there."""
        parts = [part for part in (self.training, self.validation) if part is not None]
        if not resides(self.config.resident, [part.images for part in parts], self._device):
            return {}
        return {id(part): hold(part.images, part.targets, self._device) for part in parts}

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device


def fit(run: RunFolder, config: RunConfig, loop: Loop, feed: Feed, callbacks: Sequence[Callback], on: RunsOn) -> None:
    """Train to the end, from the last checkpoint where there is one.

    Raises:
        KeyboardInterrupt: stopped by Ctrl-C; the step it was at is kept.
        SystemExit: stopped by another signal; likewise.
        UserError: training diverged, a checkpoint cannot be written, or none of those that are there can be used.
    """
    with lightning_told_once(), Signals() as signals, interruptible():
        checkpoints = _checkpoints(run, loop)
        keep = KeepLast(checkpoints, config.checkpoint_minutes, signals)
        trainer = _trainer(run, config, [*callbacks, keep], on, limit_val_batches=0 if feed.validation is None else 1.0)
        with run.alone() if trainer.is_global_zero else nullcontext():
            _tell_precision(run, on)
            run.begin(on.recorded)
            trainer.fit(loop, datamodule=feed, ckpt_path=checkpoints.good, weights_only=True)
    if trainer.is_global_zero:
        if trainer.current_epoch < config.epochs:
            log.info(
                "%s: no improvement, stopped after %d of %d epochs", run.path, trainer.current_epoch, config.epochs
            )
        run.update(status="finished", epochs_done=trainer.current_epoch)


def _tell_precision(run: RunFolder, on: RunsOn) -> None:
    """Warn where a run goes on in another precision, which `auto` takes from the device: its course changes with it."""
    record = run.record
    before = [record["device"], *(start["device"] for start in record.get("starts", []))][-1]["precision"]
    if before != on.precision:
        log.warning(
            "%s was computed in precision %s until now and goes on in %s, as this device has it: for the same "
            "arithmetic go on on a device such as the first",
            run.path,
            before,
            on.precision,
        )


def _checkpoints(run: RunFolder, loop: Loop) -> Checkpoints:
    checkpoints = Checkpoints(run.checkpoint)
    anew = f"delete {run.path} to start anew"
    try:
        there = checkpoints.find()
    except UserError as error:
        raise UserError(f"cannot go on: {error}; {anew}") from None
    told = ("encoder", "method")
    if there and (changes := differences(*({name: of.get(name) for name in told} for of in (there, loop.identity)))):
        raise UserError(f"{checkpoints.good} is not of this run ({'; '.join(changes)}): {anew}")
    return checkpoints


def _trainer(
    run: RunFolder, config: RunConfig, callbacks: Sequence[Callback], on: RunsOn, **settings: Any
) -> L.Trainer:
    meter = Meter()
    watch = [] if config.health is None else [Health(config.health, meter, lambda told: run.update(symptoms=told))]
    curves = [History(run.path / "history.csv"), ProgressLine(f"{run.path.name} ({config.method})", meter)]
    logs = run.path / "logs"
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(on.device.type, on.device.type),
        devices=on.devices,
        num_nodes=on.nodes,
        strategy=_strategy(on),
        # a batch has the same statistics on however many devices; on GPUs torch has faster kernels for it than we
        sync_batchnorm=on.processes > 1 and on.device.type == "cuda",
        precision=on.precision,
        max_epochs=config.epochs,
        callbacks=[meter, *watch, StayFinite(), *callbacks, *curves],
        logger=[CSVLogger(logs, name="csv"), TensorBoardLogger(logs, name="tensorboard", version="")],
        **settings,
        log_every_n_steps=10,
        default_root_dir=run.path,
        reload_dataloaders_every_n_epochs=1,  # every epoch has its own order
        use_distributed_sampler=False,  # the loader gives each process its own part of every batch
        num_sanity_val_steps=0,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[StraightToFile(), launcher() or LightningEnvironment()],
    )


def _strategy(on: RunsOn) -> str | ModelParallelStrategy:
    if on.processes == 1:
        return "auto"
    if on.strategy == "ddp":
        return "ddp"
    # a checkpoint is one file, whole, so that whatever reads one reads it
    return ModelParallelStrategy(
        data_parallel_size=on.processes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


@contextmanager
def lightning_told_once() -> Iterator[None]:
    """Keep Lightning's notices about its own defaults out of the user's sight."""
    with ExitStack() as stack, warnings.catch_warnings():
        for logger in map(logging.getLogger, ("lightning.pytorch", "lightning.fabric")):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING)
        # Lightning 2.6 uses names that torch 2.15 calls old
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*", category=FutureWarning)
        # reading a pack is copying memory: worker processes do not make it faster
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
        # a probe keeps its encoder in evaluation mode on purpose
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # a divided encoder returns views of its tokens, which nobody changes in place
        warnings.filterwarnings("ignore", message=".*FSDP2-wrapped module .* returned a view tensor.*")
        # short epochs are logged once, at their end
        warnings.filterwarnings("ignore", message=".*The number of training batches .* is smaller than the logging.*")
        # the meter's numbers are means over all processes already
        warnings.filterwarnings("ignore", message=".*It is recommended to use `self.log.*sync_dist=True.*")
        # ours knows its step
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Undo what Lightning makes of a stop: an exit of Ctrl-C, and a success of a SIGTERM that comes before training."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        if isinstance(error, SIGTERMException):
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
