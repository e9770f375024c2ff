"""Lightning, and only here: device, precision, loggers, checkpoints and the end of a run."""

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from jaxtyping import Float32, Int64
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from chexmsn.core.batch import Batch
from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.core.record import differences
from chexmsn.data.collection import Collection
from chexmsn.data.loader import loader
from chexmsn.models.artefact import read_checkpoint
from chexmsn.training.callbacks import History, KeepLast, ProgressLine, StayFinite
from chexmsn.training.config import RunConfig
from chexmsn.training.health import Health
from chexmsn.training.loop import Loop
from chexmsn.training.meter import Meter
from chexmsn.training.precision import choose_precision
from chexmsn.training.run_folder import RunFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunsOn:
    """What a run computes on."""

    device: torch.device
    precision: str
    devices: int

    @classmethod
    def choose(cls, config: RunConfig) -> "RunsOn":
        """What was asked for, if this machine can serve it. Raises UserError, with the remedy, if not."""
        device = choose_device(config.device)
        if device.type == "cuda" and config.devices > torch.cuda.device_count():
            raise UserError(
                f"{config.devices} GPUs were asked for and torch sees {torch.cuda.device_count()}: take fewer"
            )
        return cls(device, choose_precision(config.precision, device), config.devices)


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
    """Batches of the training and the validation images, in an order that depends on seed, epoch and keys alone."""

    def __init__(self, config: RunConfig, training: Part, validation: Part | None):
        super().__init__()
        self.config = config
        self.training = training
        self.validation = validation

    def train_dataloader(self) -> DataLoader[Batch]:
        process = {"process": self.trainer.global_rank, "processes": self.trainer.world_size}
        return self._loader(self.training, epoch=self.trainer.current_epoch, shuffle=True, drop_last=True, **process)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every process sees the whole validation split: it is small, and nothing has to be gathered."""
        return self._loader(self.validation, epoch=0, shuffle=False, drop_last=False)

    def _loader(self, part: Part, **how: Any) -> DataLoader[Batch]:
        c = self.config
        pin_memory = c.pin_memory and self.trainer.strategy.root_device.type == "cuda"  # there is nothing to copy to
        return loader(*part, batch_size=c.batch_size, seed=c.seed, workers=c.workers, pin_memory=pin_memory, **how)


def fit(run: RunFolder, config: RunConfig, loop: Loop, feed: Feed, callbacks: Sequence[Callback], on: RunsOn) -> None:
    """Train to the end, from the last checkpoint where there is one.

    Raises:
        KeyboardInterrupt: stopped by Ctrl-C; the last finished epoch is kept.
        SystemExit: stopped by SIGTERM; likewise.
        UserError: training diverged, or the last checkpoint is damaged or of another network.
    """
    last = _last_checkpoint(run, loop)
    with lightning_told_once(), interruptible():
        trainer = _trainer(run, config, callbacks, on, limit_val_batches=0 if feed.validation is None else 1.0)
        with run.alone() if trainer.is_global_zero else nullcontext():
            run.update(status="running")
            trainer.fit(loop, datamodule=feed, ckpt_path=last)
    if trainer.is_global_zero:
        if trainer.current_epoch < config.epochs:
            log.info(
                "%s: no improvement, stopped after %d of %d epochs", run.path, trainer.current_epoch, config.epochs
            )
        run.update(status="finished", epochs_done=trainer.current_epoch)


def _last_checkpoint(run: RunFolder, loop: Loop) -> Path | None:
    if not run.checkpoint.exists():
        return None
    anew = f"delete {run.path} to start anew"
    try:
        there = read_checkpoint(run.checkpoint)["hyper_parameters"]
    except UserError as error:
        raise UserError(f"cannot go on: {error}; {anew}") from None
    told = ("encoder", "method")
    if changes := differences({name: there[name] for name in told}, {name: loop.identity[name] for name in told}):
        raise UserError(f"{run.checkpoint} is not of this run ({'; '.join(changes)}): {anew}")
    return run.checkpoint


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
        strategy="ddp" if on.devices > 1 else "auto",
        # a batch has the same statistics on however many GPUs (torch has this for GPUs alone)
        sync_batchnorm=on.devices > 1 and on.device.type == "cuda",
        precision=on.precision,
        max_epochs=config.epochs,
        callbacks=[meter, *watch, StayFinite(), *callbacks, *curves, KeepLast(run.checkpoint)],
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
        # Lightning's own requeue saves in the middle of an epoch and resumes on other batches than the uninterrupted
        # run; ours resumes at the last whole epoch, and the job script requeues
        plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
    )


@contextmanager
def lightning_told_once() -> Iterator[None]:
    """Keep Lightning's notices about its own defaults out of the user's sight."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning 2.6 uses names that torch 2.15 calls old
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*", category=FutureWarning)
        # reading a pack is copying memory: worker processes do not make it faster
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
        # a probe keeps its encoder in evaluation mode on purpose
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # short epochs are logged once, at their end
        warnings.filterwarnings("ignore", message=".*The number of training batches .* is smaller than the logging.*")
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Tell what stopped a run: Lightning makes an exit of Ctrl-C and leaves it ignored, and a success of SIGTERM."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        if isinstance(error, SIGTERMException):
            log.warning("stopped by SIGTERM: the last finished epoch is kept, and the same command continues")
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
