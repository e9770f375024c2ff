"""How fast a pack is read in shuffled order from the page cache: one-channel images of 256 px, batches of 256.

    OMP_NUM_THREADS=1 python benchmarks/reading_speed.py --out benchmarks/results/reading-speed.json

`Collection.pixels` alone, and the loader with 0 to 2 worker processes, by processor time of all processes and by the
clock. Nothing is done with the batches. The best repeat counts: on a shared machine the others measure its other users.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.data.collection import Collection
from chexmsn.data.loader import batches_of, keyed_order, loader
from chexmsn.data.pack import Pack

SIDE, BATCH = 256, 256


def in_memory(place: Path, images: int) -> Collection:
    """A collection of so many images of noise; a file as `chexmsn prepare` writes it, all in the page cache."""
    pixels = np.lib.format.open_memmap(place / "images.npy", "w+", np.uint8, (images, SIDE, SIDE))
    rng = np.random.default_rng(0)
    for start in range(0, images, BATCH):
        pixels[start : start + BATCH] = rng.integers(0, 256, pixels[start : start + BATCH].shape, np.uint8)
    pixels.flush()
    keys = [str(number) for number in range(images)]
    index = pd.DataFrame({"image_key": keys, "patient_id": keys, "split": "train"})
    info = {"size": SIDE, "splits": {"train": images}, "findings": [], "fingerprint": "", "source": "noise"}
    return Collection([Pack(place, np.load(place / "images.npy", mmap_mode="r"), index, info)], ["train"])


def processor_time() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def rates(batches: Callable[[], Iterable[object]], images: int, repeats: int) -> dict[str, int]:
    best = {"per second of processor time": 0, "per second": 0}
    for _ in range(repeats):
        clock, busy = time.perf_counter(), processor_time()
        for _ in batches():
            pass
        found = images / (processor_time() - busy), images / (time.perf_counter() - clock)
        best = {name: max(rate, round(now)) for (name, rate), now in zip(best.items(), found, strict=True)}
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    how = {"batch_size": BATCH, "seed": 0, "epoch": 0, "shuffle": True, "drop_last": True, "pin_memory": False}
    with tempfile.TemporaryDirectory() as place:
        images = in_memory(Path(place), options.images)
        rows = np.arange(len(images))
        order = batches_of(keyed_order(images.keys, 0, 0), BATCH, drop_last=True)
        ways: dict[str, Callable[[], Iterable[object]]] = {"Collection.pixels": lambda: map(images.pixels, order)}
        for workers in range(3):
            ways[f"loader, {workers} workers"] = lambda workers=workers: loader(
                images, rows, None, workers=workers, **how
            )
        told = {name: rates(way, options.images, options.repeats) for name, way in ways.items()}
    print(json.dumps(told, indent=2))
    options.out.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
