"""A whole ladder of severities in one number: the area under the degradation curve of the AUROC."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from chexmsn.core.lookup import load, names
from chexmsn.evaluation.cohort import Cohort, Estimate
from chexmsn.evaluation.conditions import CLEAN, Condition, drops_patches
from chexmsn.evaluation.measures import rows_of
from chexmsn.metrics.degradation import area_under_degradation, skill_under_degradation

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


MEASURES = {"area": area_under_degradation, "area_above_chance": skill_under_degradation}


def areas_table(auroc: Mapping[Condition, Estimate], cohort: Cohort, model: str) -> pd.DataFrame:
    """`areas.parquet`: areas under the degradation curve of each corruption, and the means over their families."""
    corruptions = dict.fromkeys(condition.corruption for condition in auroc if condition != CLEAN)
    parts = []
    for metric, area in MEASURES.items():
        areas = {corruption: _of_corruption(corruption, auroc, area) for corruption in corruptions}
        for over, estimates in (("corruption", areas), ("family", over_families(areas))):
            about = {"model": model, "over": over, "metric": metric}
            parts += [rows_of(cohort, estimate, corruption=name, **about) for name, estimate in estimates.items()]
    columns = ["model", "over", "corruption", "finding", "metric", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _of_corruption(corruption: str, auroc: Mapping[Condition, Estimate], area: Area) -> Estimate:
    ladder = sorted((c for c in auroc if c.corruption in (corruption, CLEAN.corruption)), key=lambda c: c.severity)
    return area_of(area, [condition.severity for condition in ladder], [auroc[condition] for condition in ladder])
