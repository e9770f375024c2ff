"""Models that were trained several times, judged on the same patients: seeds, and folds of a rotation.

Runs of one name are repetitions of one model, on the same test images (seeds) or on disjoint ones (folds). A model's
value is the mean over its runs: over those of a test set first, then over the test sets. The patients of all test
sets are resampled together, once for all models, so that every difference is a paired one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64

from chexmsn.core.errors import UserError
from chexmsn.evaluation.cohort import Cohort, findings_of
from chexmsn.evaluation.conditions import Condition
from chexmsn.evaluation.measures import Measure, Ranking
from chexmsn.evaluation.runs import ScoredRun
from chexmsn.metrics.bootstrap import FEWEST_PATIENTS, UNDEFINED_AT_MOST, macro_undefined_at_most, patient_counts


@dataclass(frozen=True)
class TestSets:
    """The test sets that all models share, with the same resamples of their patients for all.

    Attributes:
        cohorts: one per test set; their images are disjoint, their findings the same.
    """

    cohorts: tuple[Cohort, ...]
    __test__ = False  # no test of pytest's

    @classmethod
    def of(cls, tables: Sequence[pd.DataFrame], *, resamples: int, seed: int) -> "TestSets":
        """Those of tables of labels. Raises UserError where one has nothing to rank."""
        patients = np.concatenate([table["patient_id"].to_numpy() for table in tables])
        ends = np.cumsum([len(table) for table in tables])[:-1]
        counts = np.split(patient_counts(patients, resamples, seed), ends, axis=1)
        return cls(tuple(Cohort.resampled(t, c, "percentile") for t, c in zip(tables, counts, strict=True)))

    @property
    def findings(self) -> tuple[str, ...]:
        """The C findings."""
        return self.cohorts[0].findings

    @property
    def images(self) -> int:
        """Of all test sets."""
        return sum(len(cohort.table) for cohort in self.cohorts)

    @property
    def patients(self) -> int:
        """Of all test sets."""
        return len(np.unique(np.concatenate([cohort.patients for cohort in self.cohorts])))

    @cached_property
    def weights(self) -> Float64[np.ndarray, "S F"]:
        """How much each test set counts, macro first: alike, but for those in which a finding has no value."""
        has_value = np.array([[True, *cohort.has_value] for cohort in self.cohorts], dtype=np.float64)
        return has_value / np.where(has_value.any(axis=0), has_value.sum(axis=0), np.nan)

    @property
    def undefined_at_most(self) -> Float64[np.ndarray, "F"]:
        """The share of resamples without a value that an interval bears: a mean needs each part; -1 of too few."""
        of_macro = macro_undefined_at_most(sum(int(cohort.in_macro.sum()) for cohort in self.cohorts))
        parts = (self.weights[:, 1:] > 0).sum(axis=0)
        bearable = np.array([of_macro, *(1 - (1 - UNDEFINED_AT_MOST) ** parts)])
        return np.where(self.patients_of < FEWEST_PATIENTS, -1.0, bearable)

    @property
    def patients_of(self) -> Int64[np.ndarray, "F"]:
        """The patients with labels of each finding, macro first, over all test sets."""
        return np.sum([cohort.sizes["patients"] for cohort in self.cohorts], axis=0)

    @property
    def has_value(self) -> Bool[np.ndarray, "F"]:
        """Which findings have both classes in some test set, macro first."""
        return np.nan_to_num(self.weights).any(axis=0)

    def mean(self, of_sets: Sequence[np.ndarray]) -> np.ndarray:
        """The mean over the test sets, of values or of samples."""
        weighted = zip(self.weights, of_sets, strict=True)
        return sum(np.where(weight == 0, 0.0, part) * weight for weight, part in weighted)


class Pooled(NamedTuple):
    """A number for macro and for each finding; what is done to the values is done to all three arrays.

    Attributes:
        value: the mean over the runs.
        samples: the same on each resample of the patients.
        runs: of each of the T runs.
    """

    value: Float[np.ndarray, "F"]
    samples: Float[np.ndarray, "R F"]
    runs: Float[np.ndarray, "T F"]


@dataclass(frozen=True)
class Model:
    """A model and its repetitions.

    Attributes:
        name: what it is called.
        group: models are compared with those of the same group only; empty where all are.
        runs: for each test set, the runs on it.
    """

    name: str
    group: str
    runs: tuple[tuple[ScoredRun, ...], ...]

    @property
    def repetitions(self) -> int:
        """How many runs there are."""
        return sum(len(of_set) for of_set in self.runs)

    def applies(self, condition: Condition) -> bool:
        """Whether a condition applies to it: to each of its runs."""
        return all(condition in run.scored for of_set in self.runs for run in of_set)

    def scores(self, corruption: str, sets: TestSets) -> "Scores":
        """What all its runs gave under a corruption."""
        return Scores(
            sets,
            tuple(
                tuple(run.cells(corruption, cohort) for run in of_set)
                for of_set, cohort in zip(self.runs, sets.cohorts, strict=True)
            ),
        )


@dataclass(frozen=True)
class Scores:
    """The scores of a model under one corruption: for each test set and run, per condition one array per repeat."""

    sets: TestSets
    runs: tuple[tuple[Mapping[Condition, list[Ranking]], ...], ...]

    def has(self, condition: Condition) -> bool:
        """Whether it applies to the model."""
        return all(condition in run for of_set in self.runs for run in of_set)

    def pooled(self, condition: Condition, measure: Measure) -> Pooled:
        """The mean over runs and test sets; NaN throughout for a condition that does not apply."""
        if not self.has(condition):
            rows = (), (len(self.sets.cohorts[0].counts),), (sum(map(len, self.runs)),)
            return Pooled(*(np.full((*count, 1 + len(self.sets.findings)), np.nan) for count in rows))
        each = [
            [measure.estimate(run[condition], cohort) for run in of_set]
            for of_set, cohort in zip(self.runs, self.sets.cohorts, strict=True)
        ]
        value, samples = (
            self.sets.mean([np.mean([part(run) for run in of_set], axis=0) for of_set in each])
            for part in (attrgetter("value"), attrgetter("samples"))
        )
        return Pooled(value, samples, np.array([run.value for of_set in each for run in of_set]))

    def alone(self, condition: Condition) -> Ranking | None:
        """The scores, where there is one run on one test set, and one draw of the condition."""
        arrays = [array for of_set in self.runs for run in of_set for array in run.get(condition, [])]
        return arrays[0] if len(arrays) == len(self.runs) == 1 else None


def models_of(runs: Sequence[ScoredRun], within: str | None) -> tuple[list[Model], list[pd.DataFrame]]:
    """The models behind runs, and the labels of the test sets that they share.

    Raises UserError where the runs are not of the same images, labels, findings and conditions.
    """
    _check_findings(runs)
    _check_conditions(runs)
    runs = [run.in_order(findings_of(runs[0].labels)) for run in runs]  # values are pooled by their places
    tables = _test_sets(runs)
    by_name: dict[str, list[ScoredRun]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    return [Model(name, _group(name, within), _on_sets(own, tables)) for name, own in by_name.items()], tables


def _test_sets(runs: Sequence[ScoredRun]) -> list[pd.DataFrame]:
    """The labels of the distinct test sets."""
    first: dict[tuple[str, ...], ScoredRun] = {}
    for run in runs:
        _check_labels(first.setdefault(_keys(run), run), run)
    owner: dict[str, ScoredRun] = {}
    for keys, run in first.items():
        if shared := [key for key in keys if key in owner]:
            other = owner[shared[0]]
            raise UserError(
                f"{run.folder} and {other.folder} share {len(shared)} of their {len(keys)} and {len(other.labels)} "
                "test images: runs are compared on the same images or pooled over disjoint ones, so test on one split"
            )
        owner |= dict.fromkeys(keys, run)
    return [run.labels for run in first.values()]


def _on_sets(runs: Sequence[ScoredRun], tables: Sequence[pd.DataFrame]) -> tuple[tuple[ScoredRun, ...], ...]:
    """One model's runs by test set."""
    of_sets = tuple(tuple(run for run in runs if _keys(run) == tuple(table["image_key"])) for table in tables)
    for table, of_set in zip(tables, of_sets, strict=True):
        if not of_set:
            raise UserError(
                f"{runs[0].name} was not tested on the {len(table)} images ({table['image_key'][0]} ...) that another "
                f"model was tested on ({runs[0].folder} has {len(runs[0].labels)} images): compare models on the same"
            )
        _check_distinct(of_set)
    return of_sets


def _keys(run: ScoredRun) -> tuple[str, ...]:
    return tuple(run.labels["image_key"])


def _check_distinct(runs: Sequence[ScoredRun]) -> None:
    seen: dict[str, ScoredRun] = {}
    for run in runs:
        if (other := seen.setdefault(run.content, run)) is not run:
            raise UserError(
                f"{other.folder} and {run.folder} hold the same scores of {run.name}: a repetition is another "
                "training; name one of the two"
            )


def _check_labels(one: ScoredRun, other: ScoredRun) -> None:
    named = [f"label:{finding}" for finding in findings_of(one.labels)]
    a, b = (run.labels[named].to_numpy(np.float64) for run in (one, other))
    if (differ := ~((a == b) | (np.isnan(a) & np.isnan(b)))).any():
        counts = zip(named, differ.sum(axis=0), strict=True)
        told = [f"{column.removeprefix('label:')} in {count}" for column, count in counts if count]
        raise UserError(
            f"{one.folder} and {other.folder} have other labels for the same images ({', '.join(told)} of {len(a)}): "
            "test both with one label policy on one pack"
        )
    if (one.labels["patient_id"] != other.labels["patient_id"]).any():
        raise UserError(f"{one.folder} and {other.folder} name other patients for the same images: test on one pack")


def _check_findings(runs: Sequence[ScoredRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if differ := sorted(set(findings_of(first.labels)) ^ set(findings_of(run.labels))):
            raise UserError(
                f"only one of {first.folder} and {run.folder} tells {', '.join(differ)}: name the findings that all "
                "have with --findings"
            )


def _check_conditions(runs: Sequence[ScoredRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if differ := set(first.conditions) ^ set(run.conditions):
            told = sorted(f"{condition.corruption}:{condition.severity:g}" for condition in differ)
            more = f" and {len(told) - 6} more" if len(told) > 6 else ""
            raise UserError(
                f"only one of {first.folder} and {run.folder} was tested under {', '.join(told[:6])}{more}: name the "
                "conditions that all have with --conditions"
            )


def _group(name: str, within: str | None) -> str:
    """What follows the last separator in a model's name."""
    if within is None:
        return ""
    _, found, group = name.rpartition(within)
    if not (found and group):
        raise UserError(f"the model {name!r} has nothing after {within!r} in its name, which --within compares within")
    return group
