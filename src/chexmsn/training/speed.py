"""What a training step costs on this machine, part by part, and what the machine could do at best.

Steps are those of a run, by the same functions in the same order, with the clock read in between; on a GPU reading the
clock waits for the device, which a run does not, so the sum of the parts is at most a little above a run's own time.
"""

import itertools
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from chexmsn.core.batch import Batch, to_images
from chexmsn.core.draws import Draws
from chexmsn.core.progress import progress
from chexmsn.data.collection import Collection
from chexmsn.data.loader import loader
from chexmsn.methods._base import AbstractMethod, Views
from chexmsn.models.linear import linear
from chexmsn.training.optimiser import apply_schedule, build_optimiser, clip_gradients
from chexmsn.views import make_views

STAGES = ("read", "views", "forward", "backward", "optimiser")
FEWEST = 3
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass
class Clock:
    """Seconds since the last look, by the clock and of the processor, all threads together, by stage."""

    device: torch.device
    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._then = self._now()

    def _now(self) -> tuple[float, float]:
        wait(self.device)
        return time.perf_counter(), time.process_time()

    def lap(self, stage: str) -> None:
        """What has passed belongs to this stage."""
        now = self._now()
        for seconds, after, before in zip((self.wall, self.processor), now, self._then, strict=True):
            seconds[stage] = after - before
        self._then = now


def wait(device: torch.device) -> None:
    """Until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Steps:
    """Training steps of a method that can be timed.

    Args:
        method: what to train; moved to the device.
        images: images to train on, epoch after epoch; a batch that is larger takes some of them several times.
        batch_size: images per step.
        device: where to compute.
        precision: as Lightning calls it (`training.precision.choose_precision`).
        labels: a classifier's targets, a row for each image.
    """

    def __init__(
        self,
        method: AbstractMethod,
        images: Collection,
        *,
        batch_size: int,
        device: torch.device,
        precision: str,
        labels: Float32[np.ndarray, "N C"] | None = None,
    ) -> None:
        self.method = method.to(device).train()
        self.device = device
        self.batch_size = batch_size
        self._batches = _batches(images, labels, batch_size)
        self._description = method.optimiser()
        self._optimiser = build_optimiser(self._description)
        self._schedule = {name: schedule.at(0, 1000, 100) for name, schedule in method.schedules().items()}
        self._autocast = AUTOCAST.get(precision)

    @property
    def dtype(self) -> torch.dtype:
        """What matrix products compute in."""
        return self._autocast or torch.float32

    def step(self) -> Clock:
        """One step, with its times."""
        clock = Clock(self.device)
        batch = self._read()
        clock.lap("read")
        draws = Draws.of(0, batch.keys).stream("epoch", 0)
        views = make_views(to_images(batch.pixels), self.method.plan, draws.stream("views"))
        clock.lap("views")
        loss = self._loss(views, batch, draws)
        clock.lap("forward")
        loss.backward()
        clock.lap("backward")
        self._optimise()
        clock.lap("optimiser")
        return clock

    def _read(self) -> Batch:
        return Batch(*(part.to(self.device) for part in next(self._batches)))

    def _loss(self, views: Views, batch: Batch, draws: Draws) -> Tensor:
        with torch.autocast(self.device.type, self._autocast) if self._autocast else nullcontext():
            return self.method.step(views, batch.labels, draws.stream("method"), self._schedule).loss

    def _optimise(self) -> None:
        clip_gradients(self._description)
        self.method.before_step(self._schedule)
        apply_schedule(self._optimiser, self._schedule)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.method.after_step(self._schedule)

    def gflop(self) -> float:
        """Billions of floating-point operations per image of one step: those of its matrix products and convolutions.

        A multiplication and an addition are two. Attention counts with what its backward pass computes anew; views,
        which are made of products too, do not count.
        """
        batch = self._read()
        draws = Draws.of(0, batch.keys)
        views = make_views(to_images(batch.pixels), self.method.plan, draws)
        with FlopCounterMode(display=False) as counter:
            self._loss(views, batch, draws).backward()
        self._optimiser.zero_grad()
        return counter.get_total_flops() / self.batch_size / 1e9


def _batches(images: Collection, labels: Float32[np.ndarray, "N C"] | None, batch_size: int) -> Iterator[Batch]:
    rows = np.resize(np.arange(len(images)), max(len(images), batch_size))
    how = {"batch_size": batch_size, "shuffle": True, "drop_last": True, "workers": 0, "pin_memory": False}
    for epoch in itertools.count():
        yield from loader(images, rows, labels, seed=0, epoch=epoch, **how)


@register_flop_formula(torch.ops.chexmsn.product)
def _linear_flop(x: torch.Size, weight: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


def matrix_peak(device: torch.device, dtype: torch.dtype = torch.float32, side: int | None = None) -> float:
    """GFLOP/s of a product of two square matrices, the fastest of several and of the ways that this machine has."""
    side = side or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / 1e9 / min(fastest(way, device) for way in (lambda: a @ b, lambda: linear(a, b)))


def fastest(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Seconds, the shortest of several after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        clock = Clock(device)
        work()
        clock.lap("work")
        seconds.append(clock.wall["work"])
    return min(seconds[1:])


def peak_memory(device: torch.device) -> float:
    """The most memory, in GiB, that this process has held on the device; on a CPU everything it has ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def benchmark(steps: Steps, seconds: float) -> dict[str, Any]:
    """Take steps for some seconds, three at least after one that warms up; medians over the steps, ready for JSON."""
    peak = matrix_peak(steps.device, steps.dtype)
    gflop = steps.gflop()
    clocks = list(_taken(steps, seconds))
    parts = medians(clocks)
    images = steps.batch_size / sum(parts.values())
    return {
        "steps": len(clocks),
        "seconds_per_step": parts,
        "images_per_second": images,
        "gflop_per_image": gflop,
        "gflop_per_second": images * gflop,
        "matrix_peak_gflop_per_second": peak,
        "share_of_peak": images * gflop / peak,
        "memory_gib": peak_memory(steps.device),
    }


def medians(clocks: Sequence[Clock]) -> dict[str, float]:
    """Seconds of each stage, the median of these steps."""
    return {stage: statistics.median(clock.wall[stage] for clock in clocks) for stage in STAGES}


def _taken(steps: Steps, seconds: float) -> Iterator[Clock]:
    end = time.perf_counter() + seconds
    for number in progress(itertools.count(), total=None, title="bench", unit="step"):
        if number >= FEWEST and time.perf_counter() >= end:
            return
        yield steps.step()


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on, without the machine's name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(), **versions}


def _processor() -> str:
    information = Path("/proc/cpuinfo")  # platform.processor() is empty on Linux
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
