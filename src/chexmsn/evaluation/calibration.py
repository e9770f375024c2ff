"""The tables of calibration: whether scores are still probabilities when the image is not what it was."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from chexmsn.evaluation.cohort import Cohort
from chexmsn.evaluation.measures import Cells, Measure, Ranking, rows_of
from chexmsn.metrics.calibration import (
    BINS,
    brier,
    equal_count,
    expected_calibration_error,
    maximum_calibration_error,
    reliability,
    resampled_brier,
    resampled_reliability,
)
from chexmsn.metrics.recalibration import calibration_line


def _expected(scores: Ranking, labels: Ranking) -> np.ndarray:
    return expected_calibration_error(reliability(scores, labels))


def _resampled_expected(scores: Ranking, labels: Ranking, counts: np.ndarray) -> np.ndarray:
    return expected_calibration_error(resampled_reliability(scores, labels, counts))


MEASURES = {"brier": Measure.of(brier, resampled_brier), "ece": Measure.of(_expected, _resampled_expected)}


def _values(scores: Ranking, labels: Ranking) -> dict[str, np.ndarray]:
    """Without an interval: the largest error of 15 bins is noise, and bins or a line would have to be made anew."""
    line = calibration_line(scores, labels)
    errors = {
        "mce": maximum_calibration_error(reliability(scores, labels)),
        "ece-equal-count": expected_calibration_error(reliability(scores, labels, equal_count)),
    }
    return errors | {"slope": line.slope, "intercept": line.intercept, "in-the-large": line.in_the_large}


def calibration_table(cells: Cells, cohort: Cohort, model: str) -> pd.DataFrame:
    """`calibration.parquet`: Brier score and calibration error with intervals and macro; the rest by finding."""
    parts = []
    for condition, repeats in cells.items():
        about = {"model": model, **vars(condition)}
        parts += [rows_of(cohort, m.estimate(repeats, cohort), **about, metric=name) for name, m in MEASURES.items()]
        parts += [rows.assign(**about) for rows in _without_interval(repeats, cohort)]
    columns = ["model", "corruption", "severity", "finding", "metric", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns]


def _without_interval(repeats: list[Ranking], cohort: Cohort) -> Iterator[pd.DataFrame]:
    each = [_values(scores, cohort.labels) for scores in repeats]
    for metric in each[0]:
        values = np.mean([of_repeat[metric] for of_repeat in each], axis=0)
        nothing = {"low": np.nan, "high": np.nan}
        yield pd.DataFrame({"finding": cohort.findings, "value": values}).assign(metric=metric, **nothing)


def reliability_table(cells: Cells, cohort: Cohort, model: str) -> pd.DataFrame:
    """`reliability.parquet`: what is behind each bin of a reliability diagram, repeats taken together."""
    parts = []
    for condition, repeats in cells.items():
        table = reliability(np.concatenate(repeats), np.concatenate([cohort.labels] * len(repeats)))
        rows = pd.DataFrame({name: part.ravel() for name, part in table._asdict().items()})
        bins = {"bin": np.tile(np.arange(BINS), len(cohort.findings))}
        parts.append(rows.assign(model=model, **vars(condition), finding=np.repeat(cohort.findings, BINS), **bins))
    columns = ["model", "corruption", "severity", "finding", "bin", "weight", "score", "positive"]
    return pd.concat(parts, ignore_index=True)[columns]


def are_probabilities(cells: Cells) -> bool:
    """Whether all scores lie in [0, 1]; scores made elsewhere may not."""
    return all(((scores >= 0) & (scores <= 1)).all() for repeats in cells.values() for scores in repeats)
