"""How fast is pretraining on this machine? Ours beside lightly's MSN, and how ours grows. One command per question.

    python -m venv peer && peer/bin/pip install lightly timm -c constraints.txt
    python benchmarks/pretraining_speed.py peer --peer peer/bin/python --images ../shared/data/nih14/images
    python benchmarks/pretraining_speed.py peer --peer peer/bin/python --full-size
    python benchmarks/pretraining_speed.py batch | views | encoders | images

`peer`: MSN on ViT-Ti/16 at 224 px, 1 target, 1 random and 10 focal views of 96 px, batch 32, mask ratio 0.30, focal
views masked; the same files for both, lightly (1.6.0, in an environment of its own) with its transform, loader, head
and loss and timm's encoder, ours from a pack whose preparation counts, spread over 100 epochs. The two take turns on
all cores, while the other is stopped; the ratio of every turn is kept. `--whole-focal` and `--mask-ratio 0.15` give
the other settings. Full-size files are drawn (2544 x 3056 px, 8 bit, about 2.5 MB) into a temporary folder. Without
`--peer`, ours alone. About four minutes each on two idle cores; on a busy machine read processor time.

The others: how many images per second at other batches, focal views, encoders and sizes of the data set.
To be reached on two cores: 1.3 times lightly from 384 px files, twice from full-size ones.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from chexmsn.core.files import write_json
from chexmsn.core.lookup import load
from chexmsn.data.collection import Collection
from chexmsn.data.loader import loader
from chexmsn.data.pack import Pack
from chexmsn.data.prepare import SOURCES, prepare
from chexmsn.methods import msn
from chexmsn.methods._base import Setting
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.training.speed import STAGES, Clock, Steps, machine, matrix_peak, peak_memory

EPOCHS = 100  # over which the preparation of a pack is spread
TIMM = {"vit_tiny": "vit_tiny_patch16_224", "vit_small": "vit_small_patch16_224", "vit_base": "vit_base_patch16_224"}
RESULTS = Path(__file__).with_name("results")
CPU = torch.device("cpu")

# --- images


def full_size(folder: Path, count: int) -> Path:
    """Drawn radiographs as large as MIMIC-CXR's, with the grain that gives their files the usual size."""
    load(SOURCES, "phantom").fake(folder / "phantom", patients=count, seed=0, size=512)
    pack = prepare("phantom", folder / "phantom", folder / "small", size=512)
    (folder / "files").mkdir()
    for number, pixels in enumerate(pack.images[:count]):
        large = np.asarray(Image.fromarray(pixels).resize((2544, 3056), Image.Resampling.BICUBIC), np.float32)
        grain = np.random.default_rng(number).normal(0, 3.5, large.shape).astype(np.float32)
        Image.fromarray((large + grain).clip(0, 255).astype(np.uint8)).save(
            folder / "files" / f"{number:04}.jpg", quality=90
        )
    return folder / "files"


def some_of(images: Path, folder: Path, count: int) -> Path:
    """Links to some of the files, evenly spread."""
    files = sorted(images.iterdir())
    folder.mkdir()
    for file in files[:: max(1, len(files) // count)][:count]:
        (folder / file.name).symlink_to(file.resolve())
    return folder


def packed(files: Path, folder: Path) -> tuple[Pack, float]:
    """A pack of these files, and the seconds that one of them took."""
    names = [f"{files.name}/{file.name}" for file in sorted(files.iterdir())]
    pd.DataFrame({"image": names, "patient_id": names}).to_csv(files.parent / "labels.csv", index=False)
    start = time.perf_counter()
    pack = prepare("csv", files.parent, folder, size=256, follow_links=True)
    return pack, (time.perf_counter() - start) / len(names)


# --- ours and the peer, each a function from a number of steps to their times

Times = list[dict[str, list[float]]]


def ours(pack: Pack, asked: argparse.Namespace) -> Steps:
    torch.manual_seed(0)
    prototypes = min(1024, 4 * asked.batch_size * (1 + asked.focal_views))  # as many as a batch may have
    how = {"mask_ratio": asked.mask_ratio, "mask_focal": not asked.whole_focal, "focal_views": asked.focal_views}
    config = msn.Config(prototypes=prototypes, **how)
    encoder = build_encoder(EncoderConfig(name=asked.encoder))
    method = msn.Method(config, encoder, Setting(size=224, batch_size=asked.batch_size))
    return Steps(method, Collection([pack], ("train",)), batch_size=asked.batch_size, device=CPU, precision="32-true")


def times_of(clock: Clock) -> dict[str, list[float]]:
    return {stage: [clock.wall[stage], clock.processor[stage]] for stage in STAGES}


@contextmanager
def peer(files: Path, asked: argparse.Namespace, workers: int) -> Iterator[Callable[[str], Any]]:
    """lightly, which stands still unless it is asked."""
    command = [asked.peer, Path(__file__).with_name("pretraining_speed_peer.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    how = {"images": str(files), "encoder": TIMM[asked.encoder], "batch_size": asked.batch_size, "workers": workers}
    how |= {"mask_ratio": asked.mask_ratio, "mask_focal": not asked.whole_focal, "focal_views": asked.focal_views}
    print(json.dumps(how | {"threads": torch.get_num_threads()}), file=process.stdin, flush=True)

    def ask(line: str) -> Any:
        os.killpg(process.pid, signal.SIGCONT)
        print(line, file=process.stdin, flush=True)
        answer = json.loads(process.stdout.readline())
        os.killpg(process.pid, signal.SIGSTOP)  # its workers would read ahead in our turn
        return answer

    try:
        yield ask
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


def per_step(times: Times, clock: int) -> float:
    """Seconds of a step, a mean over these; clock 0 is the wall's, 1 the processor's."""
    return sum(seconds[clock] for step in times for seconds in step.values()) / len(times)


def medians(times: Times) -> dict[str, list[float]]:
    return {stage: [statistics.median(step[stage][clock] for step in times) for clock in (0, 1)] for stage in times[0]}


# --- the questions


def against_peer(asked: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Ours and lightly in turns, from the same files."""
    files = full_size(place, asked.files) if asked.full_size else some_of(asked.images, place / "files", asked.files)
    pack, preparation = packed(files, place / "pack")
    steps = ours(pack, asked)
    told = {"files": len(pack), "preparation_seconds_per_image": preparation, "epochs": EPOCHS}
    told |= {"gflop_per_image": steps.gflop(), "peaks": [matrix_peak(CPU)]}
    workers = sorted({0, asked.workers}) if asked.peer else []
    turns: dict[str, list[Times]] = {name: [] for name in ("ours", *(f"lightly, {n} workers" for n in workers))}
    with many_peers(files, asked, workers) as peers:
        for count, ask in zip(workers, peers, strict=True):
            ask(str(1 + 2 * count))  # warms up, and uses up what its workers have read ahead
        deadline = time.monotonic() + 60 * asked.minutes
        for turn in range(asked.turns):
            if turn and time.monotonic() > deadline:
                break
            turns["ours"].append([times_of(steps.step()) for _ in range(asked.steps)])
            for count, ask in zip(workers, peers, strict=True):
                turns[f"lightly, {count} workers"].append(ask(str(asked.steps)))
            print(f"turn {turn + 1} of {asked.turns}", file=sys.stderr, flush=True)
        told["memory_gib"] = dict(zip(turns, [peak_memory(CPU), *(ask("") for ask in peers)], strict=True))
    told["peaks"].append(matrix_peak(CPU))
    return told | compared(turns, asked.batch_size, preparation / EPOCHS, told)


@contextmanager
def many_peers(files: Path, asked: argparse.Namespace, workers: list[int]) -> Iterator[list[Callable[[str], Any]]]:
    if not workers:
        yield []
        return
    with peer(files, asked, workers[0]) as first, many_peers(files, asked, workers[1:]) as rest:
        yield [first, *rest]


def compared(turns: dict[str, list[Times]], batch: int, preparation: float, told: dict[str, Any]) -> dict[str, Any]:
    """Images per second of each, and per turn how many times as fast as the fastest lightly ours was."""
    seconds = {
        name: [[per_step(turn, clock) / batch for clock in (0, 1)] for turn in own] for name, own in turns.items()
    }
    seconds["ours"] = [[wall + preparation, processor + preparation] for wall, processor in seconds["ours"]]
    rows = {}
    for name, own in turns.items():
        wall, processor = (statistics.median(turn[clock] for turn in seconds[name]) for clock in (0, 1))
        rows[name] = {
            "images_per_second": 1 / wall,
            "processor_ms_per_image": 1000 * processor,
            "seconds_per_step_wall_and_processor": medians([step for turn in own for step in turn]),
        }
    rows["ours"]["gflop_per_second"] = told["gflop_per_image"] / statistics.median(t[0] for t in seconds["ours"])
    rows["ours"]["share_of_peak"] = rows["ours"]["gflop_per_second"] / max(told["peaks"])
    ratios = {}
    for clock, name in enumerate(("wall", "processor")):
        others = [own for other, own in seconds.items() if other != "ours"]
        each = [
            min(o[turn][clock] for o in others) / mine[clock] for turn, mine in enumerate(seconds["ours"]) if others
        ]
        if each:
            ratios[name] = {"median": statistics.median(each), "low": min(each), "high": max(each), "turns": each}
    return {"rows": rows, "times_as_fast": ratios}


def growing(asked: argparse.Namespace, place: Path, name: str, values: list[Any]) -> dict[str, Any]:
    """Images per second at each of these values of an option, all else as in `peer`."""
    pack = drawn(place)
    rows = []
    for value in values:
        changed = argparse.Namespace(**vars(asked) | {name: value})
        steps = ours(pack, changed)
        gflop = steps.gflop()
        clocks = [steps.step() for _ in range(asked.steps + 1)][1:]
        seconds = statistics.median(sum(clock.wall.values()) for clock in clocks)
        busy = statistics.median(sum(clock.processor.values()) for clock in clocks)
        row = {name: value, "images_per_second": changed.batch_size / seconds, "gflop_per_image": gflop}
        rows.append(row | {"gflop_per_second": gflop * changed.batch_size / seconds, "processor_seconds": busy})
        print(rows[-1], file=sys.stderr, flush=True)
    return {"peak": matrix_peak(CPU), "rows": rows}


def by_images(asked: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Milliseconds to read a batch from packs of more and more images."""
    rows = []
    for count in (1_000, 4_000, 16_000):
        pixels = np.lib.format.open_memmap(place / f"{count}.npy", "w+", np.uint8, (count, 256, 256))
        pixels[:] = 128  # so that the file lies in the system's cache
        pack = drawn(place)
        index = pd.concat([pack.index] * (count // len(pack) + 1), ignore_index=True).iloc[:count]
        keys = [f"{number}" for number in range(count)]
        large = Pack(
            place, pixels, index.assign(image_key=keys, split="train"), pack.info | {"splits": {"train": count}}
        )
        images = Collection([large], ("train",))
        start = time.perf_counter()
        how = {"batch_size": asked.batch_size, "seed": 0, "epoch": 0, "shuffle": True, "drop_last": True}
        feed = iter(loader(images, np.arange(count), None, **how, workers=0, pin_memory=False))
        begun = time.perf_counter() - start
        seconds = []
        for _ in range(30):
            start = time.perf_counter()
            next(feed)
            seconds.append(time.perf_counter() - start)
        ms = 1000 * statistics.median(seconds) / asked.batch_size
        rows.append({"images": count, "begin_epoch_seconds": begun, "read_ms_per_image": ms})
        print(rows[-1], file=sys.stderr, flush=True)
    return {"rows": rows}


def drawn(place: Path) -> Pack:
    folder = place / "phantom"
    if not folder.exists():
        load(SOURCES, "phantom").fake(folder, patients=40, seed=0, size=256)
    return prepare("phantom", folder, place / "drawn", size=256)


QUESTIONS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "peer": against_peer,
    "batch": lambda asked, place: growing(asked, place, "batch_size", [24, 32, 64, 128]),
    "views": lambda asked, place: growing(asked, place, "focal_views", [1, 2, 4, 10]),
    "encoders": lambda asked, place: growing(asked, place, "encoder", ["vit_micro", "vit_tiny", "vit_small"]),
    "images": by_images,
}


def in_text(told: dict[str, Any]) -> str:
    """The table of an answer."""
    rows = told["rows"].items() if isinstance(told["rows"], dict) else enumerate(told["rows"])
    lines = [f"{name!s:20} " + "  ".join(f"{k} {_short(v)}" for k, v in row.items()) for name, row in rows]
    for clock, ratio in told.get("times_as_fast", {}).items():
        lines.append(f"times as fast, {clock}: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{stage} {pair[0]:.3g}" for stage, pair in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--peer", type=Path, help="a Python with lightly")
    parser.add_argument("--images", type=Path, default=Path("../shared/data/nih14/images"), help="folder of files")
    parser.add_argument("--full-size", action="store_true", help="from drawn files of 2544 x 3056 px instead")
    parser.add_argument("--files", type=int, help="how many of them; 256, or 32 of full size, when empty")
    parser.add_argument("--encoder", choices=TIMM, default="vit_tiny")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--focal-views", type=int, default=10)
    parser.add_argument("--mask-ratio", type=float, default=0.3)
    parser.add_argument("--whole-focal", action="store_true", help="focal views keep all patches")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="lightly's; it is asked with 0 too")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="in a turn")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which no turn begins but the first")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no peer is left standing
    asked.files = asked.files or (32 if asked.full_size else 256)
    place = Path(tempfile.mkdtemp())
    try:
        told = QUESTIONS[asked.question](asked, place)
    finally:
        shutil.rmtree(place)
    command = ["pretraining_speed.py", *("PATH" if "/" in word else word for word in sys.argv[1:])]
    peers = {"lightly": "1.6.0"} if asked.peer else {}
    told = {"machine": machine(CPU) | peers, "command": " ".join(command)} | told
    kind = "-full-size" if asked.full_size else ""
    write_json(asked.out or RESULTS / f"pretraining-speed-{asked.question}{kind}.json", told)
    print(in_text(told))


if __name__ == "__main__":
    main()
