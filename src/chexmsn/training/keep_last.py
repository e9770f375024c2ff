"""When a checkpoint is written, and how a run stops that was asked to."""

import logging
import os
import signal
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from chexmsn.core.errors import UserError
from chexmsn.training.checkpoints import Checkpoints
from chexmsn.training.loop import Loop
from chexmsn.training.signals import PREEMPTION, Signals, requeue

log = logging.getLogger(__name__)

_DUE = 1  # below the number of every signal listened to


class KeepLast(Checkpoint):
    """Writes the checkpoint to resume from: after a step, once `minutes` have passed, and at the end of every epoch.

    A signal asks for one after the current step, and the run then ends before the next step (it finishes if there is
    none). The last step of an epoch is kept together with what validation says of it, so a signal that comes then waits
    for validation. All processes save and stop at the same step, whichever of them has got the signal.

    Training waits while a checkpoint is written. For MSN with ViT-S (435 MB: encoder, target, AdamW) that was 2 to 3
    seconds on two busy CPU cores: an interval of ten minutes costs less than half a per cent (LOG.md).

    Raises:
        SystemExit: stopped by a signal, with its number plus 128; Slurm is asked for another turn if it was preemption.
        KeyboardInterrupt: stopped by Ctrl-C.
        UserError: the checkpoint cannot be written.
    """

    def __init__(self, checkpoints: Checkpoints, minutes: float, signals: Signals):
        self.checkpoints = checkpoints
        self.minutes = minutes
        self.signals = signals
        self.stopped_by = 0

    def on_train_start(self, trainer: L.Trainer, loop: Loop) -> None:
        self.signals.listen()  # Lightning's handler of SIGTERM talks to other processes in the middle of a step
        self.saved = time.monotonic()
        if trainer.is_global_zero:
            self.checkpoints.tidy()

    def on_train_batch_start(self, trainer: L.Trainer, loop: Loop, batch: Any, batch_index: int) -> None:
        if self.stopped_by:
            self._stop(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._wanted(trainer) and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        self._wanted(trainer)
        self._save(trainer)

    def _wanted(self, trainer: L.Trainer) -> bool:
        """Whether any process wants a checkpoint now; the clock is that of the first."""
        due = trainer.is_global_zero and time.monotonic() - self.saved >= 60 * self.minutes
        wanted = max(self.signals.received, _DUE if due else 0)
        if trainer.world_size > 1:
            everybody = torch.tensor(wanted, device=trainer.strategy.root_device)
            wanted = int(trainer.strategy.reduce(everybody, reduce_op="max"))
        self.stopped_by = wanted if wanted > _DUE else 0
        return wanted > 0

    def _save(self, trainer: L.Trainer) -> None:
        try:
            trainer.save_checkpoint(self.checkpoints.partial)
            if trainer.is_global_zero:
                self.checkpoints.accept()
        except OSError as error:
            self.checkpoints.tidy()
            raise UserError(
                f"cannot write a checkpoint in {self.checkpoints.last.parent}: {error.strerror or error}; the earlier "
                "one is whole, so make room, and the same command continues"
            ) from None
        trainer.strategy.barrier()
        self.saved = time.monotonic()

    def _stop(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            name = signal.Signals(self.stopped_by).name
            log.warning("stopped by %s: step %d is kept, and the same command continues", name, trainer.global_step)
            if self.stopped_by in PREEMPTION and "SLURM_JOB_ID" in os.environ:
                requeue()
        trainer.strategy.barrier()  # Slurm ends all processes when one has ended
        raise KeyboardInterrupt if self.stopped_by == signal.SIGINT else SystemExit(128 + self.stopped_by)
