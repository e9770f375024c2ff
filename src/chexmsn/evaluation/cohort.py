"""The people of a test set: their images' labels, and how they are resampled."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64, Integer, Shaped

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.metrics.bca import bca_interval
from chexmsn.metrics.bootstrap import (
    FEWEST_PATIENTS,
    UNDEFINED_AT_MOST,
    Interval,
    enough_patients,
    macro_undefined_at_most,
    patient_counts,
    patients_with,
    percentile_interval,
)
from chexmsn.metrics.ranking import both_classes, macro

MACRO = "macro"
Kind = Literal["percentile", "bca"]
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals come about.

    Attributes:
        resamples: how often the patients are drawn anew.
        seed: the draws depend on the patients and this number alone.
        interval: percentile, or bca (bias-corrected and accelerated: better near 1, with some 2000 resamples).
    """

    resamples: int = 1000
    seed: int = 0
    interval: Kind = "percentile"

    def __post_init__(self) -> None:
        check_limits(self, resamples="[1, inf)")


class Estimate(NamedTuple):
    """A number for macro and for each finding; what is done to the values is done to all three arrays.

    Attributes:
        value: on the test set.
        samples: on each resample of its patients.
        left_out: without each patient, which BCa intervals need; no rows where intervals are percentiles.
    """

    value: Float[np.ndarray, "F"]
    samples: Float[np.ndarray, "R F"]
    left_out: Float[np.ndarray, "U F"]


@dataclass(frozen=True)
class Cohort:
    """Labels of the test images and resamples of their patients.

    Patients are resampled with all their images: on a test set of many images per patient, an
    interval that resamples images is about half as wide as it should be.

    The macro values are over one fixed set of findings, which follows from the labels alone and so is the same for all
    models, conditions and seeds: those that enough patients have, and enough have not (`enough_patients`). Where no
    finding has so many, those with positives and negatives.

    Attributes:
        table: as `labels.parquet`: image_key, patient_id, ..., one `label:<Finding>` per finding (1, 0 or NaN).
        findings: the C findings.
        labels: the same labels as an array.
        counts: how often each resample holds each image.
        interval_kind: percentile or bca.
        has_value: findings with positives and negatives.
        in_macro: findings in the macro values.
    """

    table: pd.DataFrame
    findings: tuple[str, ...]
    labels: Float[np.ndarray, "N C"]
    counts: Integer[np.ndarray, "R N"]
    interval_kind: Kind
    has_value: Bool[np.ndarray, "C"]
    in_macro: Bool[np.ndarray, "C"]

    @classmethod
    def of(cls, table: pd.DataFrame, resampling: Resampling) -> "Cohort":
        """The cohort of a table of labels. Raises UserError where no finding has both positives and negatives."""
        counts = patient_counts(table["patient_id"].to_numpy(), resampling.resamples, resampling.seed)
        return cls.resampled(table, counts, resampling.interval)

    @classmethod
    def resampled(cls, table: pd.DataFrame, counts: Integer[np.ndarray, "R N"], interval: Kind) -> "Cohort":
        """The cohort of a table of labels, over given resamples. Raises UserError as `of`."""
        findings, labels = findings_of(table), labels_of(table)
        has_value = both_classes(labels)
        if not has_value.any():
            raise UserError(
                f"none of {', '.join(findings)} has both positives and negatives among the {len(table)} test images: "
                "there is nothing to rank, choose another split, pack or label policy"
            )
        enough = has_value & enough_patients(labels, table["patient_id"].to_numpy())
        return cls(table, findings, labels, counts, interval, has_value, enough if enough.any() else has_value)

    def part(
        self,
        positions: Int64[np.ndarray, "G"],
        has_value: Bool[np.ndarray, "C"],
        in_macro: Bool[np.ndarray, "C"],
    ) -> "Cohort":
        """A group of the images, over the same resamples, with the findings that it tells something of."""
        table, labels, counts = self.table.iloc[positions], self.labels[positions], self.counts[:, positions]
        return Cohort(table, self.findings, labels, counts, self.interval_kind, has_value, in_macro)

    @property
    def patients(self) -> Shaped[np.ndarray, "N"]:
        """Whose image each is."""
        return self.table["patient_id"].to_numpy()

    @property
    def without_value(self) -> dict[str, str]:
        """The findings that have no AUROC, each with the reason."""
        return {self.findings[c]: _missing_class(self.labels[:, c]) for c in np.flatnonzero(~self.has_value)}

    @property
    def left_out(self) -> dict[str, str]:
        """The findings outside the macro, each with the reason."""
        rare = np.flatnonzero(self.has_value & ~self.in_macro)
        return self.without_value | {self.findings[c]: _few(self.labels[:, [c]], self.patients) for c in rare}

    @property
    def undefined_at_most(self) -> Float64[np.ndarray, "F"]:
        """The share of resamples without a value that an interval bears, macro first; -1 of too few patients."""
        of_macro = macro_undefined_at_most(int(self.in_macro.sum()))
        bearable = np.array([of_macro, *np.full(len(self.findings), UNDEFINED_AT_MOST)])
        return np.where(self.sizes["patients"] < FEWEST_PATIENTS, -1.0, bearable)

    def interval(self, estimate: Estimate) -> Interval:
        """The 95 % interval, macro first; NaN where too few resamples have a value."""
        return interval_of(estimate, self.interval_kind, self.undefined_at_most)

    @cached_property
    def prevalence(self) -> Estimate:
        """The share of positives among the labelled images."""
        positives, known = (self.labels == 1).astype(float), (~np.isnan(self.labels)).astype(float)
        with np.errstate(invalid="ignore"):  # where nothing is labelled, there is no share
            parts = [(weights @ positives) / (weights @ known) for weights in (np.ones((1, len(known))), self.counts)]
            without = self._without_each(positives) / self._without_each(known)
        return self.with_macro(parts[0][0], parts[1], without)

    def _without_each(self, marks: Float[np.ndarray, "N C"]) -> Float64[np.ndarray, "U C"]:
        """The sums over images without each patient's; no rows where nobody needs them."""
        names, patient_of = np.unique(self.patients, return_inverse=True)
        own = np.stack([np.bincount(patient_of, column, len(names)) for column in marks.T], axis=1)
        return (own.sum(axis=0) - own)[: self.left_out_rows]

    @cached_property
    def left_out_rows(self) -> int:
        """How many leave-one-patient-out values an estimate has."""
        return len(np.unique(self.patients)) if self.interval_kind == "bca" else 0

    def constant(self, value: float) -> Estimate:
        """The same number for everything, such as the AUROC of chance."""
        columns = 1 + len(self.findings)
        rows = (), (len(self.counts),), (self.left_out_rows,)
        return Estimate(*(np.full((*count, columns), value) for count in rows))

    def with_macro(
        self,
        value: Float[np.ndarray, "C"],
        samples: Float[np.ndarray, "R C"],
        left_out: Float[np.ndarray, "U C"],
    ) -> Estimate:
        """Put the mean over the fixed set first; a resample that lacks one of its findings has none."""
        parts = (value, samples, left_out)
        return Estimate(*(np.concatenate([self._macro(part)[..., None], part], axis=-1) for part in parts))

    def _macro(self, values: Float[np.ndarray, "*R C"]) -> Float[np.ndarray, "*R"]:
        return macro(values, self.in_macro) if self.in_macro.any() else np.full(values.shape[:-1], np.nan)

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """Labelled images, their patients and their positives; for macro over its findings (positives summed)."""
        known = ~np.isnan(self.labels)
        used = [known[:, self.in_macro].any(axis=1), *known.T]
        positives = (self.labels == 1).sum(axis=0)
        return pd.DataFrame(
            {
                "finding": [MACRO, *self.findings],
                "images": [int(rows.sum()) for rows in used],
                "patients": [self.table["patient_id"][rows].nunique() for rows in used],
                "positives": [positives[self.in_macro].sum(), *positives],
            }
        )


def interval_of(estimate: Estimate, kind: Kind, undefined_at_most: Float64[np.ndarray, "F"]) -> Interval:
    """The 95 % interval of each column; NaN where more than that share of the resamples has no value."""
    if kind == "bca":
        return bca_interval(*estimate, LEVEL, undefined_at_most=undefined_at_most)
    return percentile_interval(estimate.samples, LEVEL, undefined_at_most=undefined_at_most)


def findings_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The findings that a table of labels has columns for."""
    return tuple(name.removeprefix("label:") for name in table.columns if name.startswith("label:"))


def labels_of(table: pd.DataFrame) -> Float64[np.ndarray, "N C"]:
    """The columns of a table of labels."""
    return table[[f"label:{finding}" for finding in findings_of(table)]].to_numpy(np.float64)


def _missing_class(labels: Float[np.ndarray, "N"]) -> str:
    known = int((~np.isnan(labels)).sum())
    which = "negatives" if (labels == 1).any() else "positives"
    return f"no {which} among {known} labelled images" if known else "no labelled images"


def _few(labels: Float[np.ndarray, "N 1"], patients: Shaped[np.ndarray, "N"]) -> str:
    having, lacking = (int(patients_with(labels == label, patients)[0]) for label in (1, 0))
    number, which = (having, "with") if having <= lacking else (lacking, "without")
    people = f"{number} patient" if number == 1 else f"{number} patients"
    return f"only {people} {which} it, too few for an interval"
