"""Is the training well? Features are looked at now and then, and a run that collapses or diverges says so."""

import logging
import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from chexmsn.core.batch import Batch
from chexmsn.core.distributed import gathered
from chexmsn.core.errors import UserError
from chexmsn.metrics.representation import effective_rank, mean_resemblance
from chexmsn.training.config import HealthConfig
from chexmsn.training.loop import Loop
from chexmsn.training.meter import Means, Meter, Row
from chexmsn.training.symptoms import Course, Symptom, not_finite

log = logging.getLogger(__name__)


class FeatureBank:
    """The features of the last images, in a ring on the device; adding never waits for it.

    Of several processes each has a bank of its own images. A checkpoint holds that of the first, and all go on with
    it: after a resume on several devices the measures agree with those of an unbroken run once the banks are full anew.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: Float[Tensor, "M D"] | None = None
        self.seen = 0

    def add(self, features: Float[Tensor, "B D"]) -> None:
        """Put these in the place of the oldest."""
        features = features.detach()[-self.size :].float()
        if self.rows is None:
            self.rows = features.new_zeros(self.size, features.shape[1])
        self.rows = self.rows.to(features.device)  # a checkpoint is read on the host
        start = self.seen % self.size
        room = self.size - start
        self.rows[start : start + len(features)] = features[:room]
        self.rows[: max(0, len(features) - room)] = features[room:]
        self.seen += len(features)

    @property
    def full(self) -> bool:
        return self.seen >= self.size

    def measured(self) -> dict[str, float]:
        """Effective rank and mean resemblance, means over the banks of all processes; nothing before it is full.

        A rank depends on how many images it was taken of: that of a bank half full compares with no other.
        """
        if not self.full:
            return {}
        values = torch.stack([effective_rank(self.rows), mean_resemblance(self.rows)])
        rank, resemblance = gathered(values).mean(0).tolist()
        return {"health/effective_rank": rank, "health/resemblance": resemblance}

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"rows": self.rows if self.rows is None else self.rows.cpu(), "seen": self.seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; a bank of another size starts anew."""
        if state["rows"] is None or len(state["rows"]) == self.size:
            self.rows, self.seen = state["rows"], state["seen"]


class Health(Callback):
    """Watches a run: the loss of every step, and everything else at a look every so many steps.

    A symptom is told once per run, in one sentence, and recorded in `run.json`; with `on_collapse` "stop" it ends the
    run, and the checkpoint stays that was written last. What is known is part of the checkpoint; no weight depends
    on it.

    Raises:
        UserError: a symptom, where the run was told to stop.
    """

    def __init__(self, config: HealthConfig, meter: Meter, record: Callable[[list[dict[str, Any]]], None]) -> None:
        self.config = config
        self.meter = meter
        self.record = record
        self.bank = FeatureBank(config.images)
        self.course = Course()
        self.told: list[dict[str, Any]] = []
        self._window = Means()
        self._broken: Row | None = None
        meter.listeners.append(self._take_in)

    def _take_in(self, row: Row) -> None:
        self._window.add(row.numbers)
        if self._broken is None and not math.isfinite(row.numbers["train/loss"]):
            self._broken = row

    def on_train_batch_end(
        self, trainer: L.Trainer, loop: Loop, outputs: dict[str, Any], batch: Batch, batch_index: int
    ) -> None:
        if outputs["features"] is not None:
            self.bank.add(outputs["features"])
        if trainer.global_step % self.config.every == 0:
            self._look(trainer, loop)
        self._tell_if_broken(trainer)

    def on_validation_start(self, trainer: L.Trainer, loop: Loop) -> None:
        self.meter.flush()
        self._tell_if_broken(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, loop: Loop, checkpoint: dict[str, Any]) -> None:
        self.meter.flush()
        self._tell_if_broken(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        loop.log_dict(self.bank.measured())

    def _look(self, trainer: L.Trainer, loop: Loop) -> None:
        self.meter.flush()
        measured = self.bank.measured()
        self.meter.note(trainer, Row(trainer.global_step, measured))
        reading = self._window.take() | measured
        self.course = self.course.after(reading, step=trainer.global_step, of=loop.total_steps)
        for symptom in self.course.symptoms():
            self._tell(trainer, symptom)

    def _tell_if_broken(self, trainer: L.Trainer) -> None:
        if self._broken is not None:
            self._tell(trainer, not_finite(self._broken.step))

    def _tell(self, trainer: L.Trainer, symptom: Symptom) -> None:
        if symptom.name not in {told["symptom"] for told in self.told}:
            self.told.append({"symptom": symptom.name, "step": trainer.global_step, "told": symptom.sentence})
            if trainer.is_global_zero:
                self.record(self.told)
                if self.config.on_collapse != "stop":
                    log.warning("%s", symptom.sentence)
        if self.config.on_collapse == "stop":
            raise UserError(f"{symptom.sentence} (stopped, see on_collapse; a checkpoint written before is kept)")

    def state_dict(self) -> dict[str, Any]:
        return {
            "bank": self.bank.state(),
            "course": self.course.state(),
            "told": self.told,
            "window": self._window.totals,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.bank.restore(state["bank"])
        self.course = Course(**state["course"])
        self.told = state["told"]
        self._window = Means(state["window"])
