"""The rules by which a run is called ill: a small table, and the little that has to be remembered for it.

A false alarm costs more trust than a late one: every limit lies outside what runs that were well have shown, and a
rule must hold for several readings in a row. The values behind the limits are those of runs of 270 to 370 steps on
nih14 and kermany (ViT-micro, 64 px, batch 64, readings every 20 steps, two seeds; LOG.md, 2026-11-23):

* effective rank of 512 features falls in runs that are well, too: from about 20 to 3.3 (MSN), 3.9 (SimSiam), 3.1
  (SimSiam with AdamW), 3.3 (MAE, before it rises to 10), 14 (LeJEPA). What it was at first therefore says little; below
  2, or a twentieth of its highest value for wide encoders, there is hardly more than one vector;
* MSN that is well has 8 to 39 of 64 prototypes in use, and its mean assignment has the entropy of 62 to 64; made to
  collapse (no me-max, no Sinkhorn, frozen prototypes) it has 1 to 2 and the entropy of 1.1 after 90 steps. The rank of
  its features stays that of the run that is well: the head collapses first;
* agreement is 0.2 to 0.57 (MSN) and 0.1 to 0.8 (SimSiam), 0.99 in the collapsed MSN; 1 means one vector for everything;
* the gradient norm rises at most fivefold between two readings (MAE) and to at most tenfold its usual value (SimSiam
  with AdamW, after a start of small ones);
* the loss of SimSiam with AdamW is at its lowest after 60 steps of 364: the first value is nothing to compare with, and
  a run has learnt nothing only if its loss has hardly fallen below the highest.
"""

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
        usual_gradient: geometric mean of the gradient norms of all readings before the last, as far as they are
            finite and above 0; NaN before there is one.
        highest_loss: largest loss until now.
        held: for how many readings in a row each rule has held.
    """

    step: int = 0
    of: int = 0
    reading: Mapping[str, float] = field(default_factory=dict)
    readings: int = 0
    highest_rank: float = 0.0
    usual_gradient: float = math.nan
    highest_loss: float = -math.inf
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
            highest_loss=max(self.highest_loss, reading["train/loss"]),
        )
        return dataclasses.replace(now, held={r.name: self.held.get(r.name, 0) + 1 for r in RULES if r.holds(now)})

    def _usual_gradient(self) -> float:
        last = self["train/gradient_norm"]
        if not (math.isfinite(last) and last > 0):
            return self.usual_gradient
        if math.isnan(self.usual_gradient):
            return last
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


LOWEST_RANK = 2.0
LOWEST_SHARE_OF_RANK = 0.05
FEWEST_USED = 1.5
FEWEST_IN_EFFECT = 2.5  # exp of the entropy; so a method with two prototypes cannot be judged
HIGHEST_AGREEMENT = 0.999
LARGEST_GRADIENT = 100.0  # times the usual
LONG = 2000  # steps, and a quarter of the run
SMALLEST_FALL = 0.01  # of the highest loss


def _at_one_prototype(course: Course) -> bool:
    in_effect = math.exp(course["train/prototype_entropy"])
    return course["train/prototypes_used"] < FEWEST_USED or in_effect < FEWEST_IN_EFFECT


def _of_low_rank(course: Course) -> bool:
    return course["health/effective_rank"] < max(LOWEST_RANK, LOWEST_SHARE_OF_RANK * course.highest_rank)


def _learns_nothing(course: Course) -> bool:
    fallen = course.highest_loss - course["train/loss"]
    return course.step >= max(LONG, course.of / 4) and fallen < SMALLEST_FALL * abs(course.highest_loss)


RULES = (
    Rule(
        "one-prototype",
        _at_one_prototype,
        3,
        lambda c: (
            f"training collapses: all images are at one prototype ({c['train/prototypes_used']:.1f} in use, entropy "
            f"{c['train/prototype_entropy']:.2f}); likely causes: me-max too weak or off, no Sinkhorn or centring, "
            "frozen prototypes, targets sharpened too much, or too high a learning rate"
        ),
    ),
    Rule(
        "low-rank",
        _of_low_rank,
        4,
        lambda c: (
            f"training collapses: the features fill {c['health/effective_rank']:.1f} dimensions, at most "
            f"{c.highest_rank:.1f} before; likely causes: too high a learning rate or weight decay, a target that "
            "follows too fast, or nothing that keeps images apart (batch too small, me-max, Sinkhorn or predictor off)"
        ),
    ),
    Rule(
        "all-alike",
        lambda c: c["train/agreement"] > HIGHEST_AGREEMENT,
        3,
        lambda c: (
            f"training collapses: student and teacher agree on everything (cosine {c['train/agreement']:.4f}, loss "
            f"{c['train/loss']:.3g}); likely causes: the gradient is not stopped at the target, the predictor is "
            "missing or too fast, or the views do not differ"
        ),
    ),
    Rule(
        "gradient",
        lambda c: c["train/gradient_norm"] > LARGEST_GRADIENT * c.usual_gradient,
        2,
        lambda c: (
            f"training diverges: the gradient norm is {c['train/gradient_norm']:.3g}, usually {c.usual_gradient:.3g}; "
            "likely causes: too high a learning rate, too short a warm-up, no clipping, or half precision"
        ),
    ),
    Rule(
        "no-progress",
        _learns_nothing,
        4,
        lambda c: (
            f"training learns nothing: the loss is {c['train/loss']:.4g} after {c.step} steps and was never "
            f"above {c.highest_loss:.4g}; likely causes: too low or far too high a learning rate, a target that hardly "
            "moves, or views that have nothing in common"
        ),
    ),
)


def not_finite(step: int) -> Symptom:
    """The symptom that needs no reading."""
    return Symptom(
        "not-finite",
        f"training diverges: the loss is not finite at step {step}; likely causes: too high a learning rate, too short "
        "a warm-up, no clipping, or half precision (take bf16 or 32)",
    )
