"""The table of operating points: what happens at thresholds that were chosen on clean images."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from chexmsn.evaluation.cohort import Cohort
from chexmsn.evaluation.measures import Cells, Measure, Ranking, rows_of
from chexmsn.metrics.operating import OperatingPoint, operating_point, resampled_operating_point


def operating_table(cells: Cells, cohort: Cohort, model: str, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """`operating.parquet`: sensitivity, specificity and predictive values; NaN for a finding without a threshold.

    Macro is over the findings of the macro that have one.
    """
    limits = np.array([thresholds.get(finding, np.nan) for finding in cohort.findings])
    everything = np.arange(len(cohort.table))
    judged = cohort.part(everything, cohort.has_value, cohort.in_macro & ~np.isnan(limits))
    parts = []
    for condition, repeats in cells.items():
        for metric in OperatingPoint._fields:
            about = {"model": model, **vars(condition), "metric": metric, "threshold": np.append(np.nan, limits)}
            parts.append(rows_of(judged, _rate(metric, limits).estimate(repeats, judged), **about))
    columns = ["model", "corruption", "severity", "finding", "metric", "threshold", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns]


def _rate(metric: str, limits: np.ndarray) -> Measure:
    def value(scores: Ranking, labels: Ranking) -> np.ndarray:
        return getattr(operating_point(scores, labels, limits), metric)

    def resampled(scores: Ranking, labels: Ranking, counts: np.ndarray) -> np.ndarray:
        return getattr(resampled_operating_point(scores, labels, limits, counts), metric)

    return Measure.of(value, resampled)
