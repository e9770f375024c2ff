"""How often do 95 % intervals hold what they claim to, when some findings have very few patients?

    OMP_NUM_THREADS=1 python benchmarks/coverage.py --out benchmarks/results/coverage.json

Test sets of 163 patients with 226 images are drawn again and again: of each finding a given number of patients is
positive, scores are normal, shifted by 1 for positives, and correlated (0.6) within a patient. The true AUROC is known.
For every set of findings: the share of intervals that hold it, by finding and for two macros, over all findings and
over those with enough patients (`metrics/bootstrap.py` on the rule).
"""

import argparse
import json
from collections import defaultdict
from math import erf
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.metrics.bca import bca_interval
from chexmsn.metrics.bootstrap import Interval, enough_patients, patient_counts, percentile_interval, resampled_auroc
from chexmsn.metrics.jackknife import left_out_auroc
from chexmsn.metrics.ranking import auroc, macro

PATIENTS, IMAGES, CORRELATION, SHIFT = 163, 226, 0.6, 1.0
TRUTH = (1 + erf(SHIFT / 2)) / 2
POSITIVE_PATIENTS = {
    "as fold 4 of NIH": (24, 6, 14, 31, 10, 15, 49, 11, 15, 11, 8, 10, 15, 2),
    "one finding of one patient": (24, 12, 14, 31, 10, 15, 49, 11, 15, 11, 12, 10, 15, 1),
    "three rare findings": (24, 2, 14, 31, 10, 15, 49, 11, 15, 11, 3, 10, 15, 2),
    "four findings, one rare": (24, 31, 15, 2),
    "nothing but rare findings": (3,) * 14,
}


def test_set(positive_patients: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and patients of one test set."""
    generator = np.random.default_rng(seed)
    patients = np.append(np.arange(PATIENTS), generator.integers(PATIENTS, size=IMAGES - PATIENTS))
    ill = np.stack([generator.permutation(PATIENTS) < count for count in positive_patients], axis=1)
    labels = ill[patients].astype(float)
    common, own = generator.normal(size=ill.shape)[patients], generator.normal(size=labels.shape)
    return SHIFT * labels + CORRELATION**0.5 * common + (1 - CORRELATION) ** 0.5 * own, labels, patients


def holds(interval: Interval) -> np.ndarray:
    """Whether the truth lies inside; NaN where there is no interval."""
    inside = (interval.low <= TRUTH) & (interval.high >= TRUTH)
    return np.where(np.isnan(interval.low), np.nan, inside)


def intervals(positive_patients: tuple[int, ...], resamples: int, seed: int) -> dict[str, float]:
    """Whether each interval of one test set holds the truth."""
    scores, labels, patients = test_set(positive_patients, seed)
    counts = patient_counts(patients, resamples, seed)
    estimate = auroc(scores, labels), resampled_auroc(scores, labels, counts), left_out_auroc(scores, labels, patients)
    single = holds(percentile_interval(estimate[1], undefined_at_most=1.0))
    answer = {f"{count} positive patients": single[c] for c, count in enumerate(positive_patients)}
    enough = enough_patients(labels, patients)
    for name, findings in (("macro, all findings", np.full_like(enough, True)), ("macro, enough patients", enough)):
        of_macro = tuple(macro(part, findings) for part in estimate)
        answer[f"{name}, percentile"] = holds(percentile_interval(of_macro[1], undefined_at_most=1.0)).item()
        answer[f"{name}, BCa"] = holds(bca_interval(*of_macro, undefined_at_most=1.0)).item()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test-sets", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    results = {}
    for name, positive_patients in POSITIVE_PATIENTS.items():
        drawn = [intervals(positive_patients, options.resamples, seed) for seed in range(options.test_sets)]
        results[name] = pd.DataFrame(drawn).mean().round(3).dropna().to_dict()
    single = defaultdict(list)
    for found in results.values():
        for key in [key for key in found if key.endswith("patients") and not key.startswith("macro")]:
            single[key].append(found.pop(key))
    results["single findings"] = {key: round(float(np.mean(single[key])), 3) for key in sorted(single, key=_count)}
    print(json.dumps(results, indent=2))
    options.out.write_text(json.dumps(results, indent=2) + "\n")


def _count(key: str) -> int:
    return int(key.partition(" ")[0])


if __name__ == "__main__":
    main()
