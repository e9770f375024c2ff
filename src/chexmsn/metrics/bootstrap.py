"""Bootstrap by patient: the same resamples for every finding, model and condition.

One patient has many images; intervals from resampled images are about half as wide as they should
be on a test set such as MIMIC-CXR's. A resample is a vector of counts, one per image, so a finding
is sorted once and each resample costs one pass over it, without sorting anew. Shared counts make
every difference a paired one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int16, Int32, Int64, Integer, Shaped

from chexmsn.core.draws import key_of
from chexmsn.core.errors import UserError
from chexmsn.metrics.ranking import Ranking, per_finding

UNDEFINED_AT_MOST = 0.05
"""The share of resamples without a value that an interval bears: about three positive patients.

The rule for all intervals. A resample without a finding's positives (or negatives) says nothing of it;
what remains understates the uncertainty: nominal 95 % intervals hold for 75 % of test sets with three
positive patients, for 57 % with two, for 15 % with one. A macro over C findings inherits this, so it has an
interval where every finding of its set has one (`enough_patients`), and then bears the 1 - 0.95^C that
they may lack together: one finding of a single patient among 14 makes its 95 % into 81 %
(`benchmarks/coverage.py`).
"""

FEWEST_PATIENTS = 10
"""Patients that an interval needs at least.

Resampled means of n patients spread by sqrt((n - 1) / n) too little, and percentiles take no account of how badly n
patients tell that spread: at 10, a nominal 95 % interval of a mean of normal values holds about 90 % of the time
(|t| with 9 degrees below 1.86), at 4 about 81 %, at 2 about 60 %, and at 1 there is no spread at all.
"""

AtMost = float | Float[np.ndarray, "C"]
"""Such a share for all columns, or one for each."""

_BLOCK = 1024  # resamples at once: bounds the memory


def patient_counts(patients: Shaped[np.ndarray, "N"], resamples: int, seed: int) -> Int16[np.ndarray, "R N"]:
    """How often each image occurs in each resample: patients drawn with replacement, with all their images.

    Depends on the seed and the set of patients, not on the order of the images. Distinct patients
    for every image give the bootstrap by image. Raises UserError for no image or no resample.

    >>> counts = patient_counts(np.array(["b", "a", "b"]), resamples=2, seed=0)
    >>> bool((counts[:, 0] == counts[:, 2]).all()), counts.shape
    (True, (2, 3))
    """
    if not len(patients) or resamples < 1:
        raise UserError(f"cannot draw {resamples} resamples of {len(patients)} images: at least one of each is needed")
    names, patient_of = np.unique(patients, return_inverse=True)
    generator = np.random.default_rng(key_of("patient resamples", seed) % 2**64)
    drawn = generator.integers(len(names), size=(resamples, len(names)))
    cells = drawn + len(names) * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape).astype(np.int16)
    return counts.T[patient_of].T  # an image's counts lie side by side: sorting images then moves whole rows


def resampled_auroc(
    scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"], counts: Integer[np.ndarray, "R N"]
) -> Float64[np.ndarray, "R C"]:
    """AUROC per finding in every resample; NaN where a resample has one class only. Errors as `auroc`."""
    return _over_resamples(_auroc, scores, labels, counts)


def resampled_average_precision(
    scores: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"], counts: Integer[np.ndarray, "R N"]
) -> Float64[np.ndarray, "R C"]:
    """Average precision per finding in every resample; NaN where a resample has one class only. Errors as `auroc`."""
    return _over_resamples(_average_precision, scores, labels, counts)


def _over_resamples(
    metric: Callable[[Ranking, Integer[np.ndarray, "N R"]], Float64[np.ndarray, "R"]],
    scores: Float[np.ndarray, "N C"],
    labels: Float[np.ndarray, "N C"],
    counts: Integer[np.ndarray, "R N"],
) -> Float64[np.ndarray, "R C"]:
    blocks = [np.ascontiguousarray(counts[start : start + _BLOCK].T) for start in range(0, max(len(counts), 1), _BLOCK)]
    return per_finding(lambda ranking: np.concatenate([metric(ranking, block) for block in blocks]), scores, labels)


def _auroc(ranking: Ranking, counts: Integer[np.ndarray, "N R"]) -> Float64[np.ndarray, "R"]:
    positives, negatives = counts[ranking.positives], _running_total(counts[ranking.negatives])
    twice_beaten = negatives[ranking.below] + negatives[ranking.up_to]
    pairs = positives.sum(axis=0, dtype=np.float64) * negatives[-1]
    return _ratio(np.einsum("pr,pr->r", positives, twice_beaten, dtype=np.float64), 2 * pairs)


def _average_precision(ranking: Ranking, counts: Integer[np.ndarray, "N R"]) -> Float64[np.ndarray, "R"]:
    weights = counts[ranking.positives]
    positives, negatives = _running_total(weights), _running_total(counts[ranking.negatives])
    hits = positives[-1] - positives[ranking.peers_below]
    false_alarms = negatives[-1] - negatives[ranking.below]
    precision = hits / np.maximum(hits + false_alarms, 1)  # nothing at or above a score: its weight is 0 as well
    both = (positives[-1] > 0) & (negatives[-1] > 0)
    return _ratio(np.einsum("pr,pr->r", weights, precision), np.where(both, positives[-1], 0))


def _running_total(counts: Integer[np.ndarray, "M R"]) -> Int32[np.ndarray, "M+1 R"]:
    """Sums over the first 0, 1 ... M rows. Row by row: numpy's cumsum down the columns takes nine times as long."""
    total = np.zeros((len(counts) + 1, counts.shape[1]), np.int32)
    for before, row, after in zip(total, counts, total[1:], strict=False):
        np.add(before, row, out=after)
    return total


def _ratio(part: Float64[np.ndarray, "R"], whole: Shaped[np.ndarray, "R"]) -> Float64[np.ndarray, "R"]:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


class Interval(NamedTuple):
    """The ends of an interval, one pair per column; NaN where there is none."""

    low: Float64[np.ndarray, "*C"]
    high: Float64[np.ndarray, "*C"]


def undefined_share(values: Float[np.ndarray, "R *C"]) -> Float64[np.ndarray, "*C"]:
    """The share of resamples without a value."""
    return np.asarray(np.isnan(values).mean(axis=0))


def enough_patients(labels: Float[np.ndarray, "N C"], patients: Shaped[np.ndarray, "N"]) -> Bool[np.ndarray, "C"]:
    """Which findings bear an interval: at most `UNDEFINED_AT_MOST` of all resamples lack one of their classes.

    A resample of U patients lacks all of K with a chance of (1 - K / U)^U, so in all but the smallest test sets three
    patients with positives and three with negatives are enough. A matter of the labels alone, not of the resamples
    drawn: choose the set of a macro among them.

    >>> labels = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]] * 5)
    >>> labels[1:, 1] = 0.0
    >>> enough_patients(labels, np.arange(20))
    array([ True, False])
    """
    positive, negative = (patients_with(labels == label, patients) for label in (1, 0))
    everyone = len(np.unique(patients))
    lacking = (1 - positive / everyone) ** everyone + (1 - negative / everyone) ** everyone
    return lacking <= UNDEFINED_AT_MOST


def patients_with(marks: Bool[np.ndarray, "N C"], patients: Shaped[np.ndarray, "N"]) -> Int64[np.ndarray, "C"]:
    """How many patients have at least one marked image, per column."""
    return np.array([len(np.unique(patients[marked])) for marked in marks.T], dtype=np.int64)


def macro_undefined_at_most(findings: int) -> float:
    """The share of resamples without a value that the interval of a macro over so many findings bears.

    >>> round(macro_undefined_at_most(1), 3), round(macro_undefined_at_most(14), 3)
    (0.05, 0.512)
    """
    return 1 - (1 - UNDEFINED_AT_MOST) ** findings


def percentile_interval(
    values: Float[np.ndarray, "R *C"], level: float = 0.95, *, undefined_at_most: AtMost = UNDEFINED_AT_MOST
) -> Interval:
    """The percentile interval of resampled values, over the resamples that have one.

    No interval (NaN) where more than a share of `undefined_at_most` (one, or one per column) has none: what is left
    would understate the uncertainty. `undefined_share` is that share, to be reported.

    >>> low, high = percentile_interval(np.linspace(0.0, 1.0, 1001))
    >>> round(float(low), 3), round(float(high), 3)
    (0.025, 0.975)
    """
    columns = values.reshape(len(values), -1)
    ends = np.full((2, columns.shape[1]), np.nan)
    for column in np.flatnonzero(undefined_share(columns) <= undefined_at_most):
        defined = columns[~np.isnan(columns[:, column]), column]
        ends[:, column] = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(*ends.reshape(2, *values.shape[1:]))
