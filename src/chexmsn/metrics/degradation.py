"""What a degraded image costs, as a drop from the clean value.

Numbers or arrays of them, point by point: with resampled values of clean and corrupted from the
same counts, the drops are paired resamples. Of macro values they are ratios of means; the mean of the findings' own
ratios is another number, in which a finding that starts low weighs more. The relative drop hides collapse: from 0.745
to 0.50 it is 33 %, though all skill is lost, which the drop above chance says (100 %).
"""

import numpy as np
from numpy.typing import ArrayLike

Numbers = ArrayLike | float | int
"""One number or many."""


def absolute_drop(clean: Numbers, corrupted: Numbers) -> np.ndarray:
    """clean - corrupted."""
    return np.asarray(np.subtract(clean, corrupted))


def relative_drop(clean: Numbers, corrupted: Numbers) -> np.ndarray:
    """(clean - corrupted) / clean; NaN where clean is 0.

    >>> float(relative_drop(0.8, 0.6).round(3))
    0.25
    """
    return above_chance_drop(clean, corrupted, chance=0.0)


def above_chance_drop(clean: Numbers, corrupted: Numbers, chance: Numbers = 0.5) -> np.ndarray:
    """(clean - corrupted) / (clean - chance): the share of the skill that is lost.

    Chance is 0.5 for AUROC and the prevalence for average precision. NaN where the clean value does
    not exceed chance: there was no skill to lose.

    >>> float(above_chance_drop(0.8, 0.6).round(3))
    0.667
    """
    skill = np.subtract(clean, chance)
    return np.asarray(absolute_drop(clean, corrupted) / np.where(skill > 0, skill, np.nan))


def area_under_degradation(severities: Numbers, values: Numbers) -> np.ndarray:
    """The mean height of the degradation curve: trapezoids over severity, divided by its range.

    `severities` (K, ascending, the clean 0 first) and `values` (... x K). Steps of severity are not
    equal in effect, so curves compare between models under one corruption, not between corruptions.
    One severity besides the clean one makes no curve, and the area is the value there: a flip is all or nothing, and
    half of what it costs is no mean of anything.

    >>> float(area_under_degradation([0, 1, 2], [0.9, 0.8, 0.5]).round(3))
    0.75
    >>> float(area_under_degradation([0, 5], [0.9, 0.6]))
    0.6
    """
    values, steps = np.asarray(values, dtype=np.float64), np.diff(severities)
    heights = values[..., 1:] if len(steps) == 1 else (values[..., 1:] + values[..., :-1]) / 2
    return np.asarray(heights @ (steps / steps.sum()))


def skill_under_degradation(severities: Numbers, values: Numbers, chance: float = 0.5) -> np.ndarray:
    """The share of the clean skill that is kept on average: the same area of (value - chance) / (clean - chance).

    `values[..., 0]` is the clean value; NaN where it does not exceed chance.

    >>> float(skill_under_degradation([0, 1, 2], [0.9, 0.8, 0.5]).round(3))
    0.625
    """
    values = np.asarray(values, dtype=np.float64)
    return area_under_degradation(severities, 1 - above_chance_drop(values[..., :1], values, chance))


def corruption_error(values: Numbers, reference: Numbers) -> np.ndarray:
    """How far a model stays below 1 under corruption, summed over severities, as a multiple of a reference model's.

    sum (1 - value) / sum (1 - reference), both (... x K) without the clean severity: ImageNet-C's error (Hendrycks
    and Dietterich 2019, arXiv 1903.12261) with AUROC or average precision for accuracy. Below 1 the model is
    better. NaN where the reference makes no error.

    >>> float(corruption_error([0.9, 0.7], [0.8, 0.6]).round(3))
    0.667
    """
    return _ratio_of_sums(np.subtract(1, values), np.subtract(1, reference))


def relative_corruption_error(values: Numbers, reference: Numbers) -> np.ndarray:
    """What corruption adds to the error, as a multiple of what it adds to a reference model's.

    Sums of drops from the clean value; both (... x K), the clean one first. Unstable where the reference hardly
    drops, and NaN where it does not drop at all or gains.

    >>> float(relative_corruption_error([0.95, 0.9, 0.7], [0.85, 0.8, 0.6]).round(3))
    1.0
    """
    drop, of_reference = (absolute_drop(a[..., :1], a[..., 1:]) for a in (np.asarray(values), np.asarray(reference)))
    return _ratio_of_sums(drop, of_reference)


def _ratio_of_sums(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    divisor = whole.sum(axis=-1)
    return np.asarray(part.sum(axis=-1) / np.where(divisor > 0, divisor, np.nan))
