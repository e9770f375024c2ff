"""How fast is a bootstrap by patient? Ours beside scikit-learn's loop, in the same run on one core.

    OMP_NUM_THREADS=1 python benchmarks/metrics_speed.py --out benchmarks/results/metrics-speed.json

1000 resamples of the patients x 14 findings x 5000 images. scikit-learn is called once per finding and resample with
the resampled images, for `--loop` resamples, and scaled up; the values of both are compared. To be reached: AUROC below
0.5 s, average precision below 1 s. Seconds of processor time, the best of three, so that other work disturbs little.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from chexmsn.metrics.bca import bca_interval
from chexmsn.metrics.bootstrap import patient_counts, percentile_interval, resampled_auroc, resampled_average_precision
from chexmsn.metrics.calibration import expected_calibration_error, resampled_brier, resampled_reliability
from chexmsn.metrics.covariance import clustered_covariance
from chexmsn.metrics.jackknife import left_out, left_out_auroc
from chexmsn.metrics.operating import resampled_operating_point
from chexmsn.metrics.ranking import auroc

IMAGES, PATIENTS, FINDINGS, RESAMPLES = 5000, 2000, 14, 1000


def test_set() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores in [0, 1], labels (2 to 40 % positive, 5 % unknown) and patients."""
    generator = np.random.default_rng(0)
    labels = (generator.random((IMAGES, FINDINGS)) < np.linspace(0.02, 0.4, FINDINGS)).astype(float)
    scores = 1 / (1 + np.exp(-labels - generator.normal(size=labels.shape)))
    labels[generator.random(labels.shape) < 0.05] = np.nan
    return scores, labels, generator.integers(PATIENTS, size=IMAGES)


def best_of_three(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """The shortest processor time, and the answer."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        answer = function()
        seconds.append(time.process_time() - start)
    return min(seconds), answer


def loop(metric: Callable[..., float], scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """scikit-learn, one call per finding and resample."""
    values = np.empty((len(counts), FINDINGS))
    for r, count in enumerate(counts):
        rows = np.repeat(np.arange(IMAGES), count)
        for c in range(FINDINGS):
            label = labels[rows, c]
            known = ~np.isnan(label)
            values[r, c] = metric(label[known], scores[rows, c][known])
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", type=int, default=25, help="resamples of scikit-learn's loop")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    scores, labels, patients = test_set()
    seconds, counts = best_of_three(lambda: patient_counts(patients, RESAMPLES, 0))
    rows: list[dict[str, object]] = [{"what": "drawing the counts, once for everything", "seconds": seconds}]

    side_by_side = {
        "AUROC": (resampled_auroc, roc_auc_score),
        "average precision": (resampled_average_precision, average_precision_score),
        "Brier score": (resampled_brier, brier_score_loss),
    }
    for name, (ours, theirs) in side_by_side.items():
        seconds, values = best_of_three(partial(ours, scores, labels, counts))
        start = time.process_time()
        reference = loop(theirs, scores, labels, counts[: options.loop])
        scaled = (time.process_time() - start) * RESAMPLES / options.loop
        apart = np.abs(values[: options.loop] - reference).max()
        beside = {"scikit-learn": scaled, "ratio": scaled / seconds, "largest difference": apart}
        rows.append({"what": name, "seconds": seconds} | beside)

    two, value = np.stack([scores, scores[::-1]]), auroc(scores, labels)
    samples, without = resampled_auroc(scores, labels, counts), left_out_auroc(scores, labels, patients)
    alone = {
        "calibration error": lambda: expected_calibration_error(resampled_reliability(scores, labels, counts)),
        "sensitivity, specificity, PPV, NPV": lambda: resampled_operating_point(
            scores, labels, np.full(FINDINGS, 0.5), counts
        ),
        "AUROC without each of 2000 patients": lambda: left_out_auroc(scores, labels, patients),
        "average precision without each of 2000 patients": lambda: left_out(
            resampled_average_precision, scores, labels, patients
        ),
        "percentile intervals": lambda: percentile_interval(samples),
        "BCa intervals": lambda: bca_interval(value, samples, without),
        "DeLong, two models": lambda: clustered_covariance(two, labels, np.arange(IMAGES)),
        "Obuchowski, two models": lambda: clustered_covariance(two, labels, patients),
    }
    rows += [{"what": name, "seconds": best_of_three(function)[0]} for name, function in alone.items()]

    print(pd.DataFrame(rows).to_string(index=False, na_rep="", float_format=lambda number: f"{number:.3g}"))
    about = {
        "images": IMAGES,
        "patients": PATIENTS,
        "findings": FINDINGS,
        "resamples": RESAMPLES,
        "loop resamples": options.loop,
        "threads": os.environ.get("OMP_NUM_THREADS", "as the machine has"),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }
    options.out.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
