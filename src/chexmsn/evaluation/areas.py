"""A whole ladder of severities in one number: the area under the degradation curve of the AUROC."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from chexmsn.core.lookup import load, names
from chexmsn.evaluation.cohort import Cohort, Estimate
from chexmsn.evaluation.conditions import CLEAN, Condition, drops_patches
from chexmsn.evaluation.measures import rows_of, where_skilled
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


def families(corruptions: Iterable[str]) -> dict[str, list[str]]:
    """The corruptions of each family."""
    found: dict[str, list[str]] = {}
    for corruption in corruptions:
        found.setdefault(family_of(corruption), []).append(corruption)
    return found


def curves(auroc: Mapping[Condition, Estimate]) -> dict[str, dict[Condition, Estimate]]:
    """The degradation curve of each corruption: its estimates by severity, the clean one at severity 0 first."""
    ascending = sorted(auroc, key=lambda condition: condition.severity)
    corruptions = dict.fromkeys(condition.corruption for condition in auroc if condition != CLEAN)
    return {name: {c: auroc[c] for c in ascending if c.corruption in (name, CLEAN.corruption)} for name in corruptions}


def area_of(area: Area, severities: Sequence[float], curve: Sequence[Parts]) -> Parts:
    """An area (of `metrics.degradation`) under a curve of estimates, the clean one at severity 0 first."""
    return type(curve[0])(*(area(severities, np.stack(points, axis=-1)) for points in zip(*curve, strict=True)))


def mean_of(members: Sequence[Parts]) -> Parts:
    """The mean over estimates, such as the areas of a family's corruptions."""
    return type(members[0])(*(np.mean(parts, axis=0) for parts in zip(*members, strict=True)))


MEASURES = {"area": area_under_degradation, "area_above_chance": skill_under_degradation}


def areas_table(auroc: Mapping[Condition, Estimate], cohort: Cohort, model: str) -> pd.DataFrame:
    """`areas.parquet`: areas under the degradation curve of each corruption, and the means over their families.

    They are over the conditions that apply to this model, `conditions` of them: areas over other conditions do not
    compare.
    """
    of = curves(auroc)
    parts = []
    for metric, area in MEASURES.items():
        areas = {name: area_of(area, [c.severity for c in curve], list(curve.values())) for name, curve in of.items()}
        if area is skill_under_degradation:
            areas = {name: where_skilled(found, auroc[CLEAN], 0.5) for name, found in areas.items()}
        for over, members in _overs(list(of)):
            size = {"conditions": sum(len(of[name]) - 1 for name in members)}
            about = {"model": model, "over": over[0], "corruption": over[1], "metric": metric}
            parts.append(rows_of(cohort, mean_of([areas[name] for name in members]), **about, **size))
    columns = ["model", "over", "corruption", "finding", "metric", "value", "low", "high", "conditions"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _overs(corruptions: Sequence[str]) -> list[tuple[tuple[str, str], list[str]]]:
    """What areas are told of, each with its corruptions: single ones, then families."""
    single = [(("corruption", name), [name]) for name in corruptions]
    return [*single, *((("family", name), members) for name, members in families(corruptions).items())]
