"""What does watching over a run cost? The same pretraining with and without health and probe, in alternation.

    OMP_NUM_THREADS=1 python benchmarks/health_cost.py PACK [PACK ...] --method mae --epochs 4 --pairs 3

Printed are the processor seconds of every run and the ratio of the medians, with over without. Everything is as a user
gets it: a look every 50 steps at the last 512 images, and the online probe as often as it takes by default (with two
packs of together 5,800 images: once in 4 epochs). MAE has the cheapest step of all methods, so the largest ratio.
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

from chexmsn.core.lookup import load
from chexmsn.models.encoder import EncoderConfig
from chexmsn.training.config import HealthConfig, PretrainConfig, ProbeConfig
from chexmsn.training.run import pretrain


def seconds(given: argparse.Namespace, watched: bool) -> float:
    """Processor time of one run."""
    with tempfile.TemporaryDirectory() as folder:
        config = PretrainConfig(
            data=tuple(given.packs),
            out=Path(folder) / "run",
            method=given.method,
            options=load("chexmsn.methods", given.method).Config(),
            encoder=EncoderConfig(name=given.encoder, size=given.size),
            train_splits=("train", "validate"),
            validate_split=None,
            epochs=given.epochs,
            batch_size=given.batch,
            device="cpu",
            health=HealthConfig() if watched else None,
            probe=ProbeConfig() if watched else None,
        )
        start = time.process_time()
        pretrain(config)
        return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", type=Path, nargs="+")
    parser.add_argument("--method", default="mae")
    parser.add_argument("--encoder", default="vit_micro")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    taken: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(given.pairs):
        for watched in (True, False) if pair % 2 else (False, True):
            taken[watched].append(seconds(given, watched))
            print(f"{'with' if watched else 'without':8} {taken[watched][-1]:8.1f} s", flush=True)
    print(f"ratio {statistics.median(taken[True]) / statistics.median(taken[False]):.4f}")


if __name__ == "__main__":
    main()
