"""The rules by which a run is called ill: a small table, and the little that has to be remembered for it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Symptom(NamedTuple):
    """What is wrong, and the sentence that says so."""

    name: str
    sentence: str


@dataclass(frozen=True)
class Course:
    """How a run has gone so far, in the few numbers that the rules compare.

    Attributes:
        step: optimiser steps until the last reading.
        of: steps of the whole run.
        reading: the last reading: means over the steps since the one before, by their names in the log.
        readings: how many there were.
        highest_rank: largest effective rank until now.
        usual_gradient: geometric mean of the gradient norms of all readings before the last.
        first_loss: loss of the first reading.
        held: for how many readings in a row each rule has held.
    """

    step: int = 0
    of: int = 0
    reading: Mapping[str, float] = field(default_factory=dict)
    readings: int = 0
    highest_rank: float = 0.0
    usual_gradient: float = math.nan
    first_loss: float = math.nan
    held: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        """A number of the last reading; NaN, with which every comparison fails, where the method has none."""
        return self.reading.get(name, math.nan)

    def after(self, reading: Mapping[str, float], *, step: int, of: int) -> "Course":
        """The course with one more reading."""
        now = dataclasses.replace(
            self,
            step=step,
            of=of,
            reading=dict(reading),
            readings=self.readings + 1,
            highest_rank=max(self.highest_rank, reading.get("health/effective_rank", 0.0)),
            usual_gradient=self._usual_gradient(),
            first_loss=reading["train/loss"] if self.readings == 0 else self.first_loss,
        )
        return dataclasses.replace(now, held={r.name: self.held.get(r.name, 0) + 1 for r in RULES if r.holds(now)})

    def _usual_gradient(self) -> float:
        last = self["train/gradient_norm"]
        if self.readings <= 1 or not (math.isfinite(last) and last > 0):
            return last if self.readings == 1 else self.usual_gradient
        return math.exp(
            math.log(self.usual_gradient) + (math.log(last) - math.log(self.usual_gradient)) / self.readings
        )

    def symptoms(self) -> list[Symptom]:
        """What the rules say now."""
        return [Symptom(r.name, r.says(self)) for r in RULES if self.held.get(r.name, 0) >= r.readings]

    def state(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


class Rule(NamedTuple):
    """A rule: when it holds, how many readings in a row before it is believed, and what it says then."""

    name: str
    holds: Callable[[Course], bool]
    readings: int
    says: Callable[[Course], str]


RULES = ()


def not_finite(step: int) -> Symptom:
    """The symptom that needs no reading."""
    return Symptom(
        "not-finite",
        f"training diverges: the loss of step {step} is not a number, so lower the learning rate (or lengthen the "
        "warm-up), and in half precision take bf16 or 32",
    )
