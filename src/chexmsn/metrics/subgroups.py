"""Groups of images, by sex, age and view or whatever else is known of them.

A group is a list of positions, so that any metric of a group is that metric of the rows taken, over the
same resamples (`counts[:, positions]`): differences between groups, and of their drops, are then
paired. Prevalence differs between groups: contrast them by AUROC, not by average precision.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

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
