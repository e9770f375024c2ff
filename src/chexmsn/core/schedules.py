"""Schedules as values: a method says what it wants, the training loop asks what holds at a step.

Step numbers start at 0 and count optimiser steps. `total` is the number of steps of the whole run,
`per_epoch` that of one epoch.
"""

import math
from dataclasses import dataclass
from typing import Protocol


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
    them, so iteration 0 already gets position 1.
    """

    start: float
    end: float
    stretch: float = 1.0
    offset: int = 0

    def at(self, step: int, total: int, per_epoch: int) -> float:
        position = min((step + self.offset) / (self.stretch * total), 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * position)) / 2


@dataclass(frozen=True)
class WarmupCosine:
    """Linear from `start` to `peak` over `warmup_epochs`, then half a cosine to `end`."""

    peak: float
    start: float = 0.0
    end: float = 0.0
    warmup_epochs: float = 0.0
    stretch: float = 1.0
    offset: int = 0

    def at(self, step: int, total: int, per_epoch: int) -> float:
        warmup = int(self.warmup_epochs * per_epoch)
        position = step + self.offset
        if position < warmup:
            return self.start + (self.peak - self.start) * position / warmup
        progress = min((position - warmup) / max(1.0, self.stretch * total - warmup), 1.0)
        return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * progress)) / 2
