"""How fast are the corruptions on a CPU? Ours beside imagecorruptions, in the same run on one core.

    python -m venv peer && peer/bin/pip install imagecorruptions "setuptools<81" numba opencv-python-headless
    OMP_NUM_THREADS=1 python benchmarks/corruptions.py --peer peer/bin/python --out benchmarks/results/corruptions.json

Milliseconds of processor time per gray 224 px image, the shortest of several. Ours takes batches of 64 in one channel,
imagecorruptions one image in three equal channels, which is all it can. Both are asked in turn, so that other work on
the machine hits both. Without --peer, ours alone. To be reached by noises and blurs: 6 times as fast in the geometric
mean over severities, never below 3 times.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from chexmsn.core.draws import Draws
from chexmsn.corruptions import apply

SIDE, BATCH, REPEATS = 224, 64, 5
NAMES = {
    "gaussian-noise": "gaussian_noise",
    "poisson-noise": "shot_noise",
    "speckle-noise": "speckle_noise",
    "impulse-noise": "impulse_noise",
    "gaussian-blur": "gaussian_blur",
    "defocus": "defocus_blur",
    "motion-blur": "motion_blur",
    "zoom-blur": "zoom_blur",
    "glass-blur": "glass_blur",
    "elastic": "elastic_transform",
    "brightness": "brightness",
    "contrast": "contrast",
    "pixelate": "pixelate",
    "jpeg": "jpeg_compression",
}


def picture() -> np.ndarray:
    """Lungs, ribs and a little grain: 8 bit, mean 128, so that the codec and the counts of quanta have usual work."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    lungs = sum(np.exp(-(((x - side) / 0.3) ** 2 + (y / 0.6) ** 2) * 2) for side in (-0.45, 0.45))
    value = 170 - 130 * lungs + 12 * np.sin(25 * (y + 0.3 * x**2)) + np.random.default_rng(0).normal(0, 3, x.shape)
    return (value + 128 - value.mean()).clip(0, 255).astype(np.uint8)


def ours(name: str, severity: int, images: torch.Tensor, draws: Draws) -> float:
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        apply(name, images, severity, draws)
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds) / len(images)


@contextmanager
def peer(python: Path | None, image: np.ndarray) -> Iterator[Callable[[str, int], float | None]]:
    """Asks imagecorruptions; knows no answer where there is none."""
    if python is None:
        yield lambda name, severity: None
        return
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "image.npy", image)
        command = [python, Path(__file__).with_name("corruptions_peer.py"), Path(folder) / "image.npy"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def ask(name: str, severity: int) -> float:
            print(name, severity, file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
        process.wait()


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a Python with imagecorruptions")
    parser.add_argument("--only", nargs="*", default=list(NAMES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    image = picture()
    images = torch.from_numpy(image).float().div(255).expand(BATCH, 1, -1, -1).contiguous()
    draws = Draws.of(0, torch.arange(BATCH))
    rows = []
    with peer(options.peer, image) as ask:
        for name in options.only:
            own = [ours(name, severity, images, draws) for severity in range(1, 6)]
            theirs = [ask(NAMES[name], severity) for severity in range(1, 6)]
            row = {"corruption": name, "ms": own}
            print(f"{name:15}", *(f"{ms:7.3f}" for ms in own), end="  ")
            if options.peer:
                ratios = [b / a for a, b in zip(own, theirs, strict=True)]
                row |= {"imagecorruptions_ms": theirs, "ratio": ratios, "geometric_mean": geometric_mean(ratios)}
                print("x", *(f"{ratio:6.1f}" for ratio in ratios), f"  mean {row['geometric_mean']:.1f}", end="")
            rows.append(row)
            print(flush=True)
    about = {
        "side": SIDE,
        "batch": BATCH,
        "threads": os.environ.get("OMP_NUM_THREADS", "1, by torch"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "imagecorruptions": "1.1.2" if options.peer else "not at hand: ours alone",
    }
    if options.out:
        options.out.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
