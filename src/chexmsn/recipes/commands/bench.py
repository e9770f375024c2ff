"""Measure how fast this machine pretrains, and how long your data will take.

Example:
    chexmsn bench --data packs/mimic --encoder.name vit_small --epochs 100
    chexmsn bench --images 377110 --encoder.name vit_tiny --batch_size 32 --json speed.json

Two minutes. Steps of training are timed part by part, from a pack or, without one, from radiographs drawn for it. The
hours are those of training alone: validation, the online probe and checkpoints come on top, a few per cent.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.core.files import write_json
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load
from chexmsn.data.collection import Collection
from chexmsn.data.pack import open_pack
from chexmsn.data.prepare import SOURCES, prepare
from chexmsn.methods._base import Setting
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser
from chexmsn.training.precision import choose_precision
from chexmsn.training.run import check_sides, method_file, seeded
from chexmsn.training.speed import STAGES, Steps, benchmark, machine

log = logging.getLogger(__name__)

DRAWN = 16  # patients; a step takes them several times where the batch is larger, and is none the slower


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure.

    Attributes:
        method: pretraining method (a file in chexmsn/methods).
        options: the method's own options.
        encoder: the network.
        data: pack to read from and to estimate for; without it radiographs are drawn.
        images: images of the data set that the hours are estimated for; those of `data` when empty.
        epochs: passes over them.
        batch_size: images per step.
        precision: auto, 32, bf16 or 16.
        device: auto, cpu or gpu.
        seconds: how long to take steps; at least three are taken after the first, which warms up.
        json: file for the numbers.
    """

    method: str = "msn"
    options: Any
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: Path | None = None
    images: int | None = None
    epochs: int = 100
    batch_size: int = 32
    precision: str = "auto"
    device: str = "auto"
    seconds: float = 60.0
    json: Path | None = None

    def __post_init__(self) -> None:
        check_limits(self, images="[1, inf)", epochs="[1, inf)", batch_size="[1, inf)", seconds="[0, inf)")


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of measuring and of the chosen method."""
    method = method_file(values.get("method", BenchConfig.method), kind="pretraining")
    return dataclass_parser("bench", BenchConfig, {"options": method.Config})


def check(arguments: Any) -> None:
    """Raise UserError for what cannot work, before any data are opened."""
    c = as_dataclass(BenchConfig, arguments)
    load("chexmsn.methods", c.method).Method.check(c.options, c.encoder, c.encoder.size, c.batch_size)
    choose_precision(c.precision, choose_device(c.device))
    if c.json is not None and not c.json.parent.is_dir():
        raise UserError(f"there is no folder {c.json.parent} for {c.json.name}: make it, or choose another")


def run(arguments: Any) -> dict[str, Any]:
    """Measure, and print what was found."""
    check(arguments)
    config = as_dataclass(BenchConfig, arguments)
    with images_for(config) as images:
        told = measured(config, images)
    print(in_text(told))
    if config.json is not None:
        write_json(config.json, told)
    return told


def measured(config: BenchConfig, images: Collection) -> dict[str, Any]:
    """All numbers, ready for JSON."""
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    with seeded(0):
        setting = Setting(size=config.encoder.size, batch_size=config.batch_size)
        method = method_file(config.method, "pretraining").Method(
            config.options, build_encoder(config.encoder), setting
        )
    steps = Steps(method, images, batch_size=config.batch_size, device=device, precision=precision)
    speed = benchmark(steps, config.seconds)
    counted = config.images or (len(images) if config.data else None)
    hours = {} if counted is None else {"images": counted, "epochs": config.epochs}
    if hours:
        hours["hours"] = counted * config.epochs / speed["images_per_second"] / 3600
    about = {"method": config.method, "encoder": asdict(config.encoder), "batch_size": config.batch_size}
    return {"machine": machine(device), **about, "precision": precision, **speed, "estimate": hours or None}


@contextmanager
def images_for(config: BenchConfig) -> Iterator[Collection]:
    """The training images of the pack, or of one that is drawn here and deleted afterwards."""
    if config.data is not None:
        images = Collection([open_pack(config.data)], ("train",))
        check_sides(images, config.encoder)
        yield images
        return
    log.info("no pack is given: radiographs are drawn")
    with tempfile.TemporaryDirectory() as place:
        folder, size = Path(place), max(256, config.encoder.size)
        load(SOURCES, "phantom").fake(folder / "phantom", patients=DRAWN, seed=0, size=size)
        yield Collection([prepare("phantom", folder / "phantom", folder / "pack", size=size)], ("train",))


def in_text(told: dict[str, Any]) -> str:
    """What was measured, for people."""
    encoder, parts, whole = told["encoder"], told["seconds_per_step"], sum(told["seconds_per_step"].values())
    on = f"{told['machine']['name']}, {told['machine']['threads']} threads"
    lines = [
        f"{told['method']}, {encoder['name']}/{encoder['patch']} at {encoder['size']} px, batch {told['batch_size']}, "
        f"precision {told['precision']}, on {on}",
        *(f"  {stage:10}{1000 * parts[stage]:10.1f} ms a step{parts[stage] / whole:7.1%}" for stage in STAGES),
        f"{told['images_per_second']:.4g} images/s (median of {told['steps']} steps), {told['gflop_per_image']:.3g} "
        f"GFLOP each: {told['gflop_per_second']:.3g} GFLOP/s, {told['share_of_peak']:.0%} of the "
        f"{told['matrix_peak_gflop_per_second']:.3g} of a matrix product; at most {told['memory_gib']:.1f} GiB",
    ]
    if (estimate := told["estimate"]) is not None:
        lines.append(
            f"{estimate['images']:,} images x {estimate['epochs']} epochs: about {estimate['hours']:,.1f} hours "
            "(validation, probe and checkpoints not counted)"
        )
    return "\n".join(lines)
