"""The people of a test set: their images' labels, and how they are resampled."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer

from chexmsn.core.errors import UserError
from chexmsn.metrics.bootstrap import Interval, patient_counts, percentile_interval
from chexmsn.metrics.ranking import both_classes, macro

MACRO = "macro"
LEVEL = 0.95
# A resample in which a finding has one class only says nothing of it. The interval of a finding bears few of these
# (the bootstrap's own default); macro needs all findings at once, but depends on each only a little.
MACRO_UNDEFINED_AT_MOST = 0.5


class Estimate(NamedTuple):
    """A number for macro and for each finding: on the test set, and on each resample of its patients."""

    value: Float[np.ndarray, "F"]
    samples: Float[np.ndarray, "R F"]


@dataclass(frozen=True)
class Cohort:
    """Labels of the test images and resamples of their patients.

    Patients are resampled with all their images: on a test set of many images per patient, an
    interval that resamples images is about half as wide as it should be.

    Attributes:
        table: as `labels.parquet`: image_key, patient_id, ..., one `label:<Finding>` per finding (1, 0 or NaN).
        findings: the C findings.
        labels: the same labels as an array.
        counts: how often each resample holds each image.
        in_macro: findings with positives and negatives: one fixed set for the macro values of all conditions.
    """

    table: pd.DataFrame
    findings: tuple[str, ...]
    labels: Float[np.ndarray, "N C"]
    counts: Integer[np.ndarray, "R N"]
    in_macro: Bool[np.ndarray, "C"]

    @classmethod
    def of(cls, table: pd.DataFrame, *, resamples: int, seed: int) -> "Cohort":
        """The cohort of a table of labels. Its resamples depend on the patients and the seed alone.

        Raises UserError where no finding has both positives and negatives.
        """
        findings = tuple(name.removeprefix("label:") for name in table.columns if name.startswith("label:"))
        labels = table[[f"label:{finding}" for finding in findings]].to_numpy(np.float64)
        in_macro = both_classes(labels)
        if not in_macro.any():
            raise UserError(
                f"none of {', '.join(findings)} has both positives and negatives among the {len(table)} test images: "
                "there is nothing to rank, choose another split, pack or label policy"
            )
        return cls(table, findings, labels, patient_counts(table["patient_id"].to_numpy(), resamples, seed), in_macro)

    @property
    def left_out(self) -> dict[str, str]:
        """The findings outside the macro, each with the reason."""
        return {self.findings[c]: _missing_class(self.labels[:, c]) for c in np.flatnonzero(~self.in_macro)}

    @cached_property
    def prevalence(self) -> Estimate:
        """The share of positives among the labelled images."""
        positives, known = (self.labels == 1).astype(float), (~np.isnan(self.labels)).astype(float)
        with np.errstate(invalid="ignore"):  # where nothing is labelled, there is no share
            return self.with_macro(
                positives.sum(axis=0) / known.sum(axis=0), (self.counts @ positives) / (self.counts @ known)
            )

    def with_macro(self, value: Float[np.ndarray, "C"], samples: Float[np.ndarray, "R C"]) -> Estimate:
        """Put the mean over the fixed set first; a resample that lacks one of its findings has none."""
        return Estimate(
            np.append(macro(value, self.in_macro), value), np.column_stack([macro(samples, self.in_macro), samples])
        )

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


def interval(samples: Float[np.ndarray, "R F"]) -> Interval:
    """The 95 % percentile interval of an estimate, macro first; NaN where too few resamples have a value."""
    macros = percentile_interval(samples[:, :1], LEVEL, undefined_at_most=MACRO_UNDEFINED_AT_MOST)
    return Interval(*map(np.append, macros, percentile_interval(samples[:, 1:], LEVEL)))


def _missing_class(labels: Float[np.ndarray, "N"]) -> str:
    known = int((~np.isnan(labels)).sum())
    which = "negatives" if (labels == 1).any() else "positives"
    return f"no {which} among {known} labelled images" if known else "no labelled images"
