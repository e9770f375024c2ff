"""Schedules as values: a method says what it wants, the training loop asks what holds at a step.

Step numbers start at 0 and count optimiser steps. `total` is the number of steps of the whole run,
`per_epoch` that of one epoch.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """A number that depends on how far training has come."""

    def at(self, step: int, total: int, per_epoch: int) -> float:
        """The value that applies to optimiser step `step`."""
        ...


@dataclass(frozen=True)
class Constant:
    """Always the same value."""

    value: float

    def at(self, step: int, total: int, per_epoch: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` towards `end`, reached at `stretch` times the run's length."""

    start: float
    end: float
    stretch: float = 1.0

    def at(self, step: int, total: int, per_epoch: int) -> float:
        return self.start + (self.end - self.start) * step / (self.stretch * total)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` to `end`, reached at `stretch` times the run's length.

    `offset` is added to the step number: facebookresearch/msn steps its schedules before it uses
    them, so iteration 0 already gets position 1. The stretched length is cut to whole steps there.
    """

    start: float
    end: float
    stretch: float = 1.0
    offset: int = 0

    def at(self, step: int, total: int, per_epoch: int) -> float:
        return _half_cosine(self.start, self.end, (step + self.offset) / max(1, int(self.stretch * total)))


@dataclass(frozen=True)
class WarmupCosine:
    """Linear from `start` to `peak` over `warmup_epochs`, then half a cosine to `end`.

    `warmup_share` is the largest share of the run that may be spent on the warm-up, for short runs;
    the last `hold` steps of the warm-up are already at the peak (facebookresearch/dino: 1);
    `stretch` and `offset` as in `Cosine`.

    >>> schedule = WarmupCosine(peak=1.0, warmup_epochs=2.0)
    >>> [round(schedule.at(step, total=8, per_epoch=2), 3) for step in range(0, 9, 2)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    peak: float
    start: float = 0.0
    end: float = 0.0
    warmup_epochs: float = 0.0
    warmup_share: float = 1.0
    stretch: float = 1.0
    offset: int = 0
    hold: int = 0

    def at(self, step: int, total: int, per_epoch: int) -> float:
        warmup = int(min(self.warmup_epochs * per_epoch, self.warmup_share * total))
        position = step + self.offset
        if position < warmup:
            return self.start + (self.peak - self.start) * min(position / max(1, warmup - self.hold), 1.0)
        return _half_cosine(self.peak, self.end, (position - warmup) / max(1, int(self.stretch * total) - warmup))


@dataclass(frozen=True)
class LinearByEpoch:
    """From `start` to `end` in equal steps between epochs, reached in the last of the first `epochs` epochs.

    >>> [round(LinearByEpoch(0.04, 0.07, epochs=3).at(10 * epoch, 100, per_epoch=10), 3) for epoch in range(4)]
    [0.04, 0.055, 0.07, 0.07]
    """

    start: float
    end: float
    epochs: int

    def at(self, step: int, total: int, per_epoch: int) -> float:
        epoch = step // per_epoch
        if epoch >= self.epochs:
            return self.end
        return self.start + (self.end - self.start) * epoch / max(1, self.epochs - 1)


@dataclass(frozen=True)
class OnAfter:
    """0 in the first `epochs` epochs, 1 from then on."""

    epochs: float

    def at(self, step: int, total: int, per_epoch: int) -> float:
        return float(step >= self.epochs * per_epoch)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
