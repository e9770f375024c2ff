"""Groups of images, by sex, age and view or whatever else is known of them.

A group is a list of positions, so that any metric of a group is that metric of the rows taken, over the
same resamples (`counts[:, positions]`): differences between groups, and of their drops, are then
paired. Prevalence differs between groups: contrast them by AUROC, not by average precision.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer, Shaped

from chexmsn.metrics.bootstrap import resampled_auroc
from chexmsn.metrics.ranking import auroc

AGE_BANDS = {"under 18": 0, "18-39": 18, "40-59": 40, "60-79": 60, "80+": 80}
"""The bands by their youngest age in years; a band ends where the next begins."""

FEWEST = 10
"""Of positives and of negatives, the fewest for which a group's finding is reported."""


def age_bands(age: Float[np.ndarray, "N"]) -> Shaped[np.ndarray, "N"]:
    """The band of each age in years; None where the age is not known (NaN) or negative.

    >>> age_bands(np.array([4.0, 39.9, 40.0, 91.0, np.nan])).tolist()
    ['under 18', '18-39', '40-59', '80+', None]
    """
    names = np.array([None, *AGE_BANDS], dtype=object)
    return names[np.where(np.isnan(age), 0, np.searchsorted(list(AGE_BANDS.values()), age, "right"))]


def groups(attributes: Mapping[str, Shaped[np.ndarray, "N"]]) -> dict[str, Int64[np.ndarray, "_"]]:
    """The positions of the images of each group, by the name `attribute=value`; the order of the images is kept.

    An image whose value is no text or empty is in no group of that attribute. One of a patient's images may be in
    another group than the next (views): resamples of patients cover that.

    >>> groups({"sex": np.array(["F", None, "M", "F"], dtype=object)})
    {'sex=F': array([0, 3]), 'sex=M': array([2])}
    """
    return {
        f"{name}={value}": np.flatnonzero([other == value for other in values])
        for name, values in attributes.items()
        for value in sorted({value for value in values if isinstance(value, str) and value})
    }


def large_enough(labels: Float[np.ndarray, "N C"]) -> Bool[np.ndarray, "C"]:
    """Which findings have at least `FEWEST` positives and negatives; of the others a group reports nothing."""
    return ((labels == 1).sum(axis=0) >= FEWEST) & ((labels == 0).sum(axis=0) >= FEWEST)


class GroupAuroc(NamedTuple):
    """AUROC per finding within a group, on the test set and on each resample; NaN where suppressed."""

    value: Float64[np.ndarray, "C"]
    samples: Float64[np.ndarray, "R C"]


def auroc_within(
    positions: Int64[np.ndarray, "G"],
    scores: Float[np.ndarray, "N C"],
    labels: Float[np.ndarray, "N C"],
    counts: Integer[np.ndarray, "R N"],
) -> GroupAuroc:
    """AUROC of a group, suppressed (NaN) where a finding is not `large_enough` in it. Raises UserError as `auroc`.

    Drops are functions of clean and corrupted, point by point, and their difference between groups is paired:

    >>> rng = np.random.default_rng(0)
    >>> labels, counts = (rng.random((300, 1)) < 0.4).astype(float), rng.poisson(1.0, (500, 300))
    >>> clean, corrupted = (labels + rng.normal(scale=noise, size=labels.shape) for noise in (1, 3))
    >>> def drop(group):
    ...     return map(np.subtract, *(auroc_within(group, scores, labels, counts) for scores in (clean, corrupted)))
    >>> value, samples = map(np.subtract, drop(np.arange(150)), drop(np.arange(150, 300)))
    >>> value.shape, samples.shape
    ((1,), (500, 1))
    """
    scores, labels = scores[positions], labels[positions]
    shown = large_enough(labels)
    values = auroc(scores, labels), resampled_auroc(scores, labels, counts[:, positions])
    return GroupAuroc(*(np.where(shown, value, np.nan) for value in values))
