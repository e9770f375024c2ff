"""A whole ladder of severities in one number: the area under the degradation curve of the AUROC."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from chexmsn.core.lookup import load, names
from chexmsn.evaluation.conditions import drops_patches

Area = Callable[[Sequence[float], np.ndarray], np.ndarray]
Parts = TypeVar("Parts", bound=tuple)


def family_of(corruption: str) -> str:
    """What a corruption is counted among: missing, imagenet-c, radiographic ...; other, if it is none of ours.

    >>> [family_of(name) for name in ("tokens-removed", "gaussian-blur", "a scanner of 1997")]
    ['missing', 'imagenet-c', 'other']
    """
    if drops_patches(corruption):
        return "missing"
    return load("chexmsn.corruptions", corruption).FAMILY if corruption in names("chexmsn.corruptions") else "other"


def area_of(area: Area, severities: Sequence[float], curve: Sequence[Parts]) -> Parts:
    """An area (of `metrics.degradation`) under a curve of estimates, the clean one at severity 0 first."""
    return type(curve[0])(*(area(severities, np.stack(points, axis=-1)) for points in zip(*curve, strict=True)))


def over_families(areas: Mapping[str, Parts]) -> dict[str, Parts]:
    """The mean over the corruptions of each family."""
    families: dict[str, list[Parts]] = {}
    for corruption, estimate in areas.items():
        families.setdefault(family_of(corruption), []).append(estimate)
    return {
        family: type(members[0])(*(np.mean(parts, axis=0) for parts in zip(*members, strict=True)))
        for family, members in families.items()
    }
