"""The numbers of every step, brought to the host a few steps late, so that it never waits for the device."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from chexmsn.core.batch import Batch
from chexmsn.core.distributed import gathered
from chexmsn.training.loop import Loop

LAG = 4  # steps; the queue of a GPU holds about a thousand kernels, not even one step of a transformer


class Row(NamedTuple):
    """The numbers of one optimiser step, means over all processes; steps count from 1."""

    step: int
    numbers: dict[str, float]


class Means:
    """Running means by name; a number that a row does not have leaves its mean alone."""

    def __init__(self, totals: Mapping[str, tuple[float, int]] | None = None) -> None:
        self.totals = {name: tuple(total) for name, total in (totals or {}).items()}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Count these numbers in."""
        for name, value in numbers.items():
            total, count = self.totals.get(name, (0.0, 0))
            self.totals[name] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        """The means so far; counting starts anew.

        >>> means = Means()
        >>> means.add({"loss": 1.0})
        >>> means.add({"loss": 2.0, "rank": 5.0})
        >>> means.take(), means.take()
        ({'loss': 1.5, 'rank': 5.0}, {})
        """
        means = {name: total / count for name, (total, count) in self.totals.items()}
        self.totals = {}
        return means


class Meter(Callback):
    """Collects loss, loss terms, gradient norm and schedules of every step, for the curves and whoever watches.

    Each row goes to the `listeners` when it arrives, usually `LAG` steps after its own. `latest` holds the newest value
    of every number, for the progress line. Epoch means are logged as `train/...` and `schedule/...`; now and then a
    single step goes to the loggers, as `..._step`. The sums of an unfinished epoch are part of the checkpoint.
    """

    def __init__(self) -> None:
        self.listeners: list[Callable[[Row], None]] = []
        self.latest: dict[str, float] = {}
        self._waiting: deque[tuple[int, dict[str, float], list[str], Callable[[], list[float]]]] = deque()
        self._newest = Row(0, {})
        self._epoch = Means()
        self._images, self._seconds = 0, 0.0
        self._clock = time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, loop: Loop) -> None:
        self._clock = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, loop: Loop) -> None:
        self._clock = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, loop: Loop) -> None:
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, loop: Loop, outputs: dict[str, Any], batch: Batch, batch_index: int
    ) -> None:
        on_device = {"loss": outputs["loss"], **outputs["log"], "gradient_norm": loop.gradient_norm}
        ours = torch.stack([value.detach().float() for value in on_device.values()])
        send = sent(gathered(ours).mean(0))
        names = [f"train/{name}" for name in on_device]
        schedule = {f"schedule/{name}": value for name, value in loop.applied.items()}
        self._waiting.append((trainer.global_step, schedule, names, send))
        self._tick(len(batch.keys) * trainer.world_size)
        self._read(LAG)
        if trainer.global_step % trainer.log_every_n_steps == 0 and self._newest.step:
            speed = {"train/images_per_second": self.images_per_second()}
            self.note(trainer, Row(self._newest.step, self._newest.numbers | speed))

    def note(self, trainer: L.Trainer, row: Row) -> None:
        """Tell the loggers of numbers of one step, and keep them among the `latest`."""
        self.latest |= row.numbers
        for logger in trainer.loggers:
            logger.log_metrics({f"{name}_step": value for name, value in row.numbers.items()}, step=row.step)

    def flush(self) -> None:
        """Wait for the device, so that the listeners know every step until now."""
        self._read(0)

    def _read(self, waiting: int) -> None:
        while len(self._waiting) > waiting:
            step, numbers, names, send = self._waiting.popleft()
            row = Row(step, dict(zip(names, send(), strict=True)) | numbers)
            self._epoch.add(row.numbers)
            self._newest = row
            for listener in self.listeners:
                listener(row)

    def _tick(self, images: int) -> None:
        now = time.perf_counter()
        self._seconds += now - self._clock
        self._images += images
        self._clock = now

    def images_per_second(self) -> float:
        """Images of all processes per second of training in this epoch; validation does not count."""
        return self._images / max(self._seconds, 1e-9)

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        self.flush()
        means = self._epoch.take() | {"train/images_per_second": self.images_per_second()}
        self._images, self._seconds = 0, 0.0
        loop.log_dict(means)

    def state_dict(self) -> dict[str, Any]:
        self.flush()
        return {"epoch": self._epoch.totals, "images": self._images, "seconds": self._seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epoch = Means(state["epoch"])
        self._images, self._seconds = state["images"], state["seconds"]


def sent(numbers: Float[Tensor, "n"]) -> Callable[[], list[float]]:
    """Start to bring numbers to the host; the answer waits for them only if they are not yet there."""
    host = numbers.to("cpu", non_blocking=True)  # from a GPU: into pinned memory
    if not numbers.is_cuda:
        return host.tolist
    arrived = torch.cuda.Event()
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return host.tolist()

    return read
