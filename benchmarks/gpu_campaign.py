"""What a GPU still has to show (docs/speed.md): pretraining, stress test and fine-tuning at speed, stage by stage.

    python benchmarks/gpu_campaign.py --out OUT                      # every stage, some 40 minutes on one H100 or H200
    python benchmarks/gpu_campaign.py --out OUT --stages pretraining --minutes 8.5
    python benchmarks/gpu_campaign.py --out OUT --tiny               # the same on a CPU in minutes: does it run?

Each measurement is a line in OUT/<stage>.jsonl as soon as it is made. The same command goes on where it was: what is
measured is not measured again, and after `--minutes` nothing new is begun. Tables are printed, and OUT/campaign.json
holds them all with the machine. A measurement that fails is a line too, with the error.

The pack is made on the machine (`noise_pack`: 40,000 images of random bytes, 2.6 GB; of its content only the size
matters to speed) in --scratch, which is not OUT. Training is the loop, feed, meter and watch of `chexmsn pretrain`,
without its loggers and checkpoints.

Needed beside Python 3.12, torch 2.11, torchvision, timm, lightning, pandas, pyarrow, scikit-learn and jaxtyping, which
the machine has: what the package imports when it reads a pack, and the package itself, which asks for its own version.
Where nothing can be downloaded, carry the wheels (8 MB) and put their folder on the path:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --dest wheels \\
        simplejpeg jsonargparse docstring_parser typeshed_client importlib_resources pydicom
    pip wheel --no-deps --wheel-dir wheels .
    pip install --no-deps --no-index --target libraries wheels/*.whl          # there
    PYTHONPATH=libraries python benchmarks/gpu_campaign.py --out $OUT

beartype, gdcm and tensorboard are not needed. The last stage needs lightly, and says so where it is missing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from _measure import Job, copy_bandwidth, draws_on, gflop_per_image, noise_pack, steps_of, trained
from stress_speed import end_to_end

from chexmsn.core.batch import to_images
from chexmsn.core.device import choose_device
from chexmsn.corruptions import apply
from chexmsn.data.collection import Collection
from chexmsn.data.loader import Ahead, Batches, From, batches_of
from chexmsn.data.pack import open_pack
from chexmsn.evaluation.conditions import NOISES
from chexmsn.models.encoder import EncoderConfig
from chexmsn.training.speed import fastest, machine, matrix_peak, medians
from chexmsn.views import make_views

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much of everything: what a GPU is asked for, or as little as shows that it runs."""

    images: int = 40_000
    seconds: float = 6.0
    encoders: tuple[str, ...] = ("vit_small", "vit_tiny", "vit_base")
    batches: tuple[int, ...] = (512, 1024, 256)
    sweep: tuple[int, ...] = (128, 256, 1024)
    size: int = 224
    side: int = 256
    tested: int = 5000  # with 1000 resamples, whose cost does not shrink with the images
    matrix: int = 8192
    copied: int = 4096
    compile: bool = True
    options: tuple[tuple[str, Any], ...] = ()
    rivals: tuple[str, ...] = ("vit_small_patch16_224", "vit_tiny_patch16_224")


TINY = Scale(
    images=64,
    seconds=0.2,
    encoders=("vit_micro",),
    batches=(8,),
    sweep=(4,),
    size=48,
    side=64,
    tested=24,
    matrix=256,
    copied=1,
    compile=False,
    rivals=("vit_tiny_patch16_224",),
    options=(("prototypes", 16), ("head_hidden", 32), ("head_out", 16), ("focal_views", 2), ("focal_size", 32)),
)


@dataclass(frozen=True)
class Site:
    """Where it is measured."""

    device: torch.device
    scratch: Path
    scale: Scale

    @property
    def pack(self) -> Path:
        return noise_pack(self.scratch / "pack", self.scale.images, self.scale.side).folder

    def job(self, **changes: Any) -> Job:
        """MSN as it was published: mask ratio 0.30, 1 target, 1 random and 10 focal views, 1024 prototypes."""
        scale = self.scale
        options = {"mask_ratio": 0.3, "mask_focal": True} | dict(scale.options)
        common = {"size": scale.size, "encoder": scale.encoders[0], "batch_size": scale.batches[0]}
        return Job(**{"method": "msn", "options": options, "compile": scale.compile} | common | changes)


# --- the measurements: each stage names them, most wanted first

Measurement = tuple[str, Callable[[], Row]]


def limits(site: Site) -> Iterator[Measurement]:
    """The machine: what a product of matrices and a copy reach."""
    kinds = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    for name, kind in kinds.items():
        yield name, lambda kind=kind: {"tflops": matrix_peak(site.device, kind, site.scale.matrix) / 1000}
    yield "copy", lambda: {"tb_per_second": copy_bandwidth(site.device, site.scale.copied)}
    yield "reader", lambda: {"images_per_second": reading(site)}


def pretraining(site: Site) -> Iterator[Measurement]:
    """MSN end to end: three encoders, focal views masked or whole, compiled and plain."""
    scale = site.scale
    for masked in (True, False):
        for encoder, batch in zip(scale.encoders, scale.batches, strict=True):
            options = dict(site.job().options) | {"mask_focal": masked}
            job = site.job(encoder=encoder, batch_size=batch, options=options)
            yield from of_job(site, f"{encoder}, focal {'masked' if masked else 'whole'}", job)


def plain(site: Site) -> Iterator[Measurement]:
    """The same without compiling, and float32; pixels on the device against streamed."""
    for encoder, batch in zip(site.scale.encoders, site.scale.batches, strict=True):
        yield from of_job(site, f"{encoder}, plain", site.job(encoder=encoder, batch_size=batch, compile=False))
    yield from of_job(site, "plain, float32", site.job(compile=False, precision="32", batch_size=site.scale.sweep[0]))
    yield from of_job(site, "plain, streamed", site.job(compile=False, resident="never"))


def sweep(site: Site) -> Iterator[Measurement]:
    """Batch sizes, compiled."""
    for batch in site.scale.sweep:
        yield from of_job(site, f"batch {batch}", site.job(batch_size=batch))
    yield from of_job(site, "streamed", site.job(resident="never"))


def methods(site: Site) -> Iterator[Measurement]:
    """MAE, SimSiam and DINO; and a classifier that is fine-tuned."""
    small = {"outputs": 64, "head_hidden": 32, "head_bottleneck": 16} if site.scale.options else {}
    for name, options in {"mae": {}, "simsiam": {}, "dino": small, "fine-tune": {}}.items():
        yield from of_job(site, name, site.job(method=name, options=options))


def of_job(site: Site, name: str, job: Job) -> Iterator[Measurement]:
    def measured() -> Row:
        gflop = gflop_per_image(job, site.pack, site.device)  # first: what cannot be built fails in a second
        row = trained(job, site.pack, site.device, seconds=site.scale.seconds)
        return {"batch": job.batch_size} | row | {"gflop_per_image": gflop} | _reached(row, gflop)

    yield name, measured


def _reached(row: Row, gflop: float) -> Row:
    return {"tflops": row["images_per_second"] * gflop / 1000}


def stages(site: Site) -> Iterator[Measurement]:
    """Where the time of a plain step goes, each part by itself and waited for."""
    for encoder, batch in zip(site.scale.encoders, site.scale.batches, strict=True):
        yield encoder, lambda encoder=encoder, batch=batch: parts(site, site.job(encoder=encoder, batch_size=batch))


def parts(site: Site, job: Job) -> Row:
    """Milliseconds per step of reading, views, forward, backward and optimiser."""
    steps = steps_of(job, site.pack, site.device)
    clocks = [steps.step() for _ in range(6)][1:]  # the first warms up
    return {"batch": job.batch_size} | {stage: 1000 * seconds for stage, seconds in medians(clocks).items()}


def reading(site: Site) -> float:
    """Images per second that the reading thread delivers from the system's cache."""
    images = Collection([open_pack(site.pack)], ("train",))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).numpy()
    parts = batches_of(order, min(512, len(images)), drop_last=True)
    feed = Ahead(Batches(images, None, pinned=site.device.type == "cuda"), From(parts, 0))
    return len(parts) * len(parts[0]) / fastest(lambda: [None for _ in feed], site.device, repeats=2)


def stressing(site: Site) -> Iterator[Measurement]:
    """The standard grid of 36 conditions on a ViT-S, the command as users give it, judging included."""
    yield "standard grid", lambda: stressed(site)


def stressed(site: Site) -> Row:
    scale = site.scale
    pack = noise_pack(site.scratch / f"tested-{scale.tested}", 2 * scale.tested, scale.side).folder
    network = EncoderConfig(name=scale.encoders[0], size=scale.size)
    return end_to_end(network, pack, site.scratch, site.device, batch_size=min(250, scale.tested))


def rival(site: Site) -> Iterator[Measurement]:
    """lightly's MSN pipeline from 384 px files, on all cores; images per second end to end."""
    workers = os.cpu_count() if site.device.type == "cuda" else 0
    for encoder in site.scale.rivals:
        yield f"lightly, {encoder}", lambda encoder=encoder: rivalled(site, encoder, workers)


def rivalled(site: Site, encoder: str, workers: int) -> Row:
    if find_spec("lightly") is None:
        return {"not_measured": "lightly is not on this machine"}
    from gpu_peer import draw_files, rate

    count, batch = (512, 256) if site.device.type == "cuda" else (8, 4)
    files = draw_files(site.scratch / "files", count)
    how = {"batch_size": batch, "workers": workers, "seconds": 4 * site.scale.seconds}
    return {"batch": batch, "workers": workers, "images_per_second": rate(files, site.device, encoder=encoder, **how)}


def agreement(site: Site) -> Iterator[Measurement]:
    """Corruptions and views here against a CPU: fields of noise agree in distribution, everything else in value."""
    for name in NOISES:
        yield name, lambda name=name: agreed(site, name)
    yield "views", lambda: views_agree(site)


def agreed(site: Site, name: str) -> Row:
    side, generator = site.scale.size, torch.Generator().manual_seed(0)
    images = torch.rand(64, 1, side, side, generator=generator)
    made = [
        (apply(name, images.to(device), 3, draws_on(device, 64)).cpu() - images)
        for device in (torch.device("cpu"), site.device)
    ]
    (cpu_mean, cpu_std), (mean, std) = ((float(change.mean()), float(change.std())) for change in made)
    largest = float((made[0] - made[1]).abs().max())
    return {"largest_difference": largest, "mean": mean, "mean_cpu": cpu_mean, "std": std, "std_cpu": cpu_std}


def views_agree(site: Site) -> Row:
    plan = site.job().build(torch.device("cpu")).plan
    pixels = torch.randint(256, (8, site.scale.side, site.scale.side), dtype=torch.uint8)
    made = [
        make_views(to_images(pixels.to(device)), plan, draws_on(device, 8))
        for device in (torch.device("cpu"), site.device)
    ]
    return {"largest_difference": max(float((a - b.cpu()).abs().max()) for a, b in zip(*made, strict=True))}


STAGES: Mapping[str, Callable[[Site], Iterator[Measurement]]] = {
    "limits": limits,
    "pretraining": pretraining,
    "stressing": stressing,
    "methods": methods,
    "plain": plain,
    "stages": stages,
    "sweep": sweep,
    "agreement": agreement,
    "rival": rival,
}


# --- keeping and showing


def run_stage(name: str, site: Site, out: Path, deadline: float) -> list[Row]:
    """The rows of a stage; those that are not there yet are measured, while there is time."""
    file = out / f"{name}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {row["what"] for row in rows}
    for what, measure in STAGES[name](site):
        if what in done:
            continue
        if time.monotonic() > deadline:
            print(f"{name}: {what} not measured, the time is up; the same command goes on", flush=True)
            continue
        row = {"what": what} | measured(measure)
        with file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{name}: {row}", flush=True)
        rows.append(row)
    return rows


def measured(measure: Callable[[], Row]) -> Row:
    """A row, or what went wrong: the other measurements are worth having."""
    start = time.perf_counter()
    try:
        row = measure()
    except Exception as error:  # out of memory, a compiler that gives up: the row says so
        row = {"failed": f"{type(error).__name__}: {error}"[:300]}
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return row | {"took": time.perf_counter() - start}


def with_share(tables: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Beside TFLOP/s, the share of what a product of matrices reaches on this machine."""
    peak = next((row["tflops"] for row in tables.get("limits", []) if row["what"] == "bfloat16"), None)
    if peak is None:
        return tables
    for row in (row for name, rows in tables.items() if name != "limits" for row in rows if "tflops" in row):
        row["share_of_peak"] = row["tflops"] / peak
    return tables


def table(name: str, rows: list[Row]) -> str:
    columns = sorted(dict.fromkeys(column for row in rows for column in row), key="took".__eq__)  # that one comes last
    cells = [columns] + [[_shown(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([f"\n{name}: {STAGES[name].__doc__}", *lines])


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "chexmsn-campaign")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args(words)
    site = Site(choose_device(asked.device), asked.scratch, TINY if asked.tiny else Scale())
    deadline = time.monotonic() + 60 * asked.minutes
    asked.out.mkdir(parents=True, exist_ok=True)
    tables = with_share({name: run_stage(name, site, asked.out, deadline) for name in asked.stages})
    about = {"machine": machine(site.device), "command": sys.argv, "scale": asdict(site.scale)}
    (asked.out / "campaign.json").write_text(json.dumps(about | {"stages": tables}, indent=2) + "\n")
    for name, rows in tables.items():
        print(table(name, rows))


if __name__ == "__main__":
    main()
