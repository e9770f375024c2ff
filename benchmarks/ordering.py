"""Does one method stand up better than another? Paired differences between stress runs on the same images.

    python benchmarks/ordering.py runs/real-cpu/stress/* --out ordering.json

For each pair of models and each condition: the difference of the relative drops of the macro AUROC, its 95 % interval
and a two-sided p value, all over the same resamples of the patients. Removed tokens, filled pixels and noise alike.
Holm's correction is over the whole table (`../docs/stress.md` says what a drop is).
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.evaluation.cohort import MACRO_UNDEFINED_AT_MOST, Cohort
from chexmsn.metrics.bootstrap import resampled_auroc
from chexmsn.metrics.degradation import relative_drop
from chexmsn.metrics.multiple import holm
from chexmsn.metrics.paired import paired_difference
from chexmsn.metrics.ranking import auroc

CONDITIONS = [
    ("tokens-removed", 0.7),
    ("patches-black", 0.7),
    ("patches-image-mean", 0.7),
    ("patches-dataset-mean", 0.7),
    ("poisson-noise", 5.0),
    ("gaussian-noise", 5.0),
    ("speckle-noise", 5.0),
    ("impulse-noise", 5.0),
    ("gaussian-blur", 5.0),
]


def macro_samples(scores: pd.DataFrame, cohort: Cohort, condition: tuple[str, float]) -> np.ndarray:
    """The macro AUROC of a condition on the test set (first) and on every resample of its patients."""
    corruption, severity = condition
    cell = scores[(scores["corruption"] == corruption) & np.isclose(scores["severity"], severity)]
    columns = [f"score:{finding}" for finding in cohort.findings]
    ranking = cell.set_index("image_key").loc[cohort.table["image_key"], columns].to_numpy(np.float64)
    value = auroc(ranking, cohort.labels)
    estimate = cohort.with_macro(value, resampled_auroc(ranking, cohort.labels, cohort.counts))
    return np.append(estimate.value[0], estimate.samples[:, 0])


def drops(folder: Path, resamples: int) -> dict[tuple[str, float], np.ndarray]:
    """The relative drop under every condition, value first, then its resamples."""
    cohort = Cohort.of(pd.read_parquet(folder / "labels.parquet"), resamples=resamples, seed=0)
    scores = pd.read_parquet(folder / "scores.parquet")
    clean = macro_samples(scores, cohort, ("clean", 0.0))
    return {condition: relative_drop(clean, macro_samples(scores, cohort, condition)) for condition in CONDITIONS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stress", nargs="+", type=Path, help="folders of stress runs on the same images")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    fingerprints = {json.loads((f / "run.json").read_text())["data"]["fingerprint"] for f in options.stress}
    if len(fingerprints) > 1:
        raise SystemExit("the runs are on different images: a paired difference needs the same")
    measured = {folder.name: drops(folder, options.resamples) for folder in options.stress}
    rows = []
    for (a, of_a), (b, of_b) in itertools.combinations(measured.items(), 2):
        for condition in CONDITIONS:
            samples = of_a[condition] - of_b[condition]
            found = paired_difference(samples[0], samples[1:], undefined_at_most=MACRO_UNDEFINED_AT_MOST)
            about = {"a": a, "b": b, "corruption": condition[0], "severity": condition[1]}
            rows.append(about | dict(zip(("difference", "low", "high", "p"), map(float, found), strict=True)))
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy())
    print(table.round(4).to_string(index=False))
    options.out.write_text(json.dumps(table.to_dict("records"), indent=2) + "\n")


if __name__ == "__main__":
    main()
