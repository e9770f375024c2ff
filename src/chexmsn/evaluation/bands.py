"""The table of curves: each corruption's degradation curve with a band that holds all of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from chexmsn.evaluation.areas import curves
from chexmsn.evaluation.cohort import LEVEL, Cohort, Estimate
from chexmsn.evaluation.conditions import Condition
from chexmsn.evaluation.measures import named
from chexmsn.metrics.multiple import simultaneous_band


def bands_table(auroc: Mapping[Condition, Estimate], cohort: Cohort, model: str) -> pd.DataFrame:
    """`bands.parquet`: simultaneous bands of the AUROC over each corruption's severities, the clean one (0) included.

    A band holds the whole curve with a probability of 95 %, where intervals of single points hold each by itself.
    """
    parts = [
        _points(list(curve), list(curve.values()), cohort).assign(corruption=corruption)
        for corruption, curve in curves(auroc).items()
    ]
    columns = ["model", "corruption", "severity", "finding", "metric", "value", "low", "high"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True).assign(model=model, metric="auroc")[columns]


def _points(ladder: Sequence[Condition], curve: Sequence[Estimate], cohort: Cohort) -> pd.DataFrame:
    """The points of one curve, macro first."""
    values, samples = np.stack([e.value for e in curve]), np.stack([e.samples for e in curve], axis=1)
    bands = [
        simultaneous_band(values[:, f], samples[:, :, f], LEVEL, undefined_at_most=float(bearable))
        for f, bearable in enumerate(cohort.undefined_at_most)
    ]
    low, high = (np.stack(ends, axis=1).clip(0, 1) for ends in zip(*bands, strict=True))  # no AUROC lies beyond
    told = [named(cohort, value=v, low=a, high=b) for v, a, b in zip(values, low, high, strict=True)]
    return pd.concat([rows.assign(severity=c.severity) for c, rows in zip(ladder, told, strict=True)])
