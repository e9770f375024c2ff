"""When a checkpoint is written, and how a run stops that was asked to."""

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from chexmsn.core.distributed import gathered
from chexmsn.core.errors import UserError
from chexmsn.training.checkpoints import Checkpoints
from chexmsn.training.loop import Loop
from chexmsn.training.meter import LAG, sent
from chexmsn.training.signals import LISTENED_TO, PREEMPTION, Signals, requeue

log = logging.getLogger(__name__)

_DUE = 1  # a checkpoint, by the clock
_REQUESTS = (0, _DUE, *LISTENED_TO)  # in ascending order: of several the last counts


class KeepLast(Checkpoint):
    """Writes the checkpoint to resume from: after a step, once `minutes` have passed, and at the end of every epoch.

    A signal asks for one after the current step, and the run then ends before the next step (it finishes if there is
    none). The last step of an epoch is kept together with what validation says of it, so a signal that comes then waits
    for validation. All processes save and stop at the same step, whichever of them has got the signal: of several
    processes each learns of it `LAG` steps later, or at the end of the epoch, so that no step waits for the device.

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
        self._answers: deque[Callable[[], list[float]]] = deque()

    def on_train_start(self, trainer: L.Trainer, loop: Loop) -> None:
        self.signals.listen()  # Lightning's handler of SIGTERM talks to other processes in the middle of a step
        self.saved = time.monotonic()
        if trainer.is_global_zero:
            self.checkpoints.tidy()

    def on_train_batch_start(self, trainer: L.Trainer, loop: Loop, batch: Any, batch_index: int) -> None:
        if self.stopped_by:
            self._stop(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._wanted(trainer, late=LAG) and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        self._wanted(trainer, late=0)
        self._save(trainer)

    def _wanted(self, trainer: L.Trainer, late: int) -> bool:
        """Whether any process wants a checkpoint, or did `late` steps ago; the clock is that of the first."""
        due = trainer.is_global_zero and time.monotonic() - self.saved >= 60 * self.minutes
        wanted = max(self.signals.received, _DUE if due else 0, key=_REQUESTS.index)
        if trainer.world_size > 1:
            wanted = self._of_all(wanted, trainer.strategy.root_device, late)
        self.stopped_by = wanted if wanted in LISTENED_TO else 0
        return wanted != 0

    def _of_all(self, wanted: int, device: torch.device, late: int) -> int:
        """What counts of the requests of all processes; the newest `late` are left on their way to the host."""
        ours = torch.full((1,), float(_REQUESTS.index(wanted)), device=device)
        self._answers.append(sent(gathered(ours).amax(0)))
        arrived = [self._answers.popleft()()[0] for _ in range(len(self._answers) - late)]
        return _REQUESTS[int(max(arrived, default=0))]

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
        self._answers.clear()  # they asked for this one

    def _stop(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            name = signal.Signals(self.stopped_by).name
            log.warning("stopped by %s: step %d is kept, and the same command continues", name, trainer.global_step)
            if self.stopped_by in PREEMPTION and "SLURM_JOB_ID" in os.environ:
                requeue()
        trainer.strategy.barrier()  # Slurm ends all processes when one has ended
        raise KeyboardInterrupt if self.stopped_by == signal.SIGINT else SystemExit(128 + self.stopped_by)
