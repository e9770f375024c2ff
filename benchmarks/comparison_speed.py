"""What a comparison and a judgement cost: two models under 66 conditions, 14 findings, 5000 images, 1000 resamples.

    OMP_NUM_THREADS=1 python benchmarks/comparison_speed.py --out benchmarks/results/comparison-speed.json

Scores are drawn, since only their number matters. Processor time, and the most memory the process held.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.core.files import write_json
from chexmsn.evaluation.compare import CompareConfig, compare
from chexmsn.evaluation.conditions import chosen
from chexmsn.evaluation.judge import JudgeConfig, judge


def write_folder(folder: Path, name: str, images: int, findings: int, seed: int) -> Path:
    """A result folder of drawn scores; eight or nine images a patient, as in MIMIC-CXR's test split."""
    draw, conditions = np.random.default_rng(seed), chosen(("standard", "fills"))
    folder.mkdir()
    names = [f"finding {number}" for number in range(findings)]
    truth = (np.random.default_rng(0).random((images, findings)) < 0.15).astype(float)
    keys = [f"{number:06}" for number in range(images)]
    patients = [f"p{number % (images // 8)}" for number in range(images)]
    about = pd.DataFrame({"image_key": keys, "patient_id": patients})
    people = about.assign(sex=np.tile(["F", "M"], images // 2), age=np.linspace(20, 90, images), view="PA")
    people.join(pd.DataFrame(truth, columns=[f"label:{n}" for n in names])).to_parquet(folder / "labels.parquet")
    cells = []
    for condition in conditions:
        scores = 1 / (1 + np.exp(2 - truth - draw.normal(size=truth.shape)))
        columns = pd.DataFrame(scores.astype(np.float32), columns=[f"score:{n}" for n in names])
        cells.append(about.assign(**vars(condition), repeat=0).join(columns))
    pd.concat(cells).to_parquet(folder / "scores.parquet")
    told = {"schema_version": 1, "kind": "stress", "status": "finished", "model": {"name": name}, "seed": 0}
    told |= {"conditions": [vars(condition) for condition in conditions], "seen_in_training": [], "resamples": 1000}
    write_json(folder / "run.json", told | {"thresholds": dict.fromkeys(names, 0.2)})
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--findings", type=int, default=14)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as place:
        size = options.images, options.findings
        runs = tuple(write_folder(Path(place) / name, name, *size, seed) for seed, name in enumerate("ab"))
        config = CompareConfig(runs=runs, out=Path(place) / "out", resamples=options.resamples)
        jobs = {"compare": lambda: compare(config), "judge": lambda: judge(JudgeConfig(runs=runs[:1]))}
        for name, job in jobs.items():
            started = time.process_time()
            job()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
            measured[name] = {"seconds": round(time.process_time() - started, 1), "peak GiB so far": round(peak, 2)}
    print(json.dumps(measured, indent=2))
    options.out.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
