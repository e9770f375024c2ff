"""What the measurements of speed share: a machine's limits, a pack of noise, the run that users start, and its clock.

Of a pack's content only its size matters to speed: its pixels are random bytes, its index is made up, and both lie in
files as `chexmsn prepare` leaves them.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32

from chexmsn.core.draws import Draws
from chexmsn.core.files import write_json
from chexmsn.core.lookup import load
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy
from chexmsn.data.pack import FORMAT, IMAGES, INDEX, INFO, Pack, open_pack, sha256
from chexmsn.data.source import LABEL
from chexmsn.methods._base import AbstractMethod, Setting
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.training.config import HealthConfig, PretrainConfig
from chexmsn.training.engine import Feed, Part, lightning_told_once
from chexmsn.training.health import Health
from chexmsn.training.loop import ClassifierLoop, Loop, PretrainingLoop
from chexmsn.training.meter import Meter
from chexmsn.training.precision import choose_precision
from chexmsn.training.speed import Steps, fastest, wait

FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Fracture", "Lung Lesion", "Lung Opacity")


# --- the machine


def copy_bandwidth(device: torch.device, megabytes: int) -> float:
    """TB/s read plus written by a copy on the device."""
    a = torch.zeros(megabytes << 20, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() / fastest(lambda: b.copy_(a), device) / 1e12


# --- a pack


def noise_pack(folder: Path, images: int, side: int = 256) -> Pack:
    """A pack of random bytes, half of it for training and half to test on; the one that is there, where it fits."""
    if (folder / INFO).is_file() and len(pack := open_pack(folder)) >= images and pack.size == side:
        return pack
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pixels = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, (images, side, side))
    for start in range(0, images, 1024):
        part = pixels[start : start + 1024]
        part[:] = np.frombuffer(rng.bytes(part.size), np.uint8).reshape(part.shape)
    pixels.flush()
    index = _index(images, rng)
    index.to_parquet(folder / INDEX)
    counts = {str(name): int(count) for name, count in index["split"].value_counts().items()}
    about = {"format": FORMAT, "source": "noise", "images": images, "size": side, "fit": "crop", "dtype": "uint8"}
    numbers = {"patients": images, "splits": counts, "findings": list(FINDINGS), "mean": 0.5, "std": 0.289}
    sums = {name: sha256(folder / name) for name in (IMAGES, INDEX)}
    write_json(folder / INFO, about | numbers | {"sha256": sums, "fingerprint": sums[INDEX][:16], "left_out": 0})
    return open_pack(folder)


def _index(images: int, rng: np.random.Generator) -> pd.DataFrame:
    names = [f"image {number}" for number in range(images)]
    told = dict.fromkeys(("image_key", "content_hash", "patient_id", "study_id"), names)
    known = {"view": "PA", "sex": "F", "age": 60.0, "pixel_mm_row": 1.7, "pixel_mm_column": 1.7}
    split = {"split": np.where(np.arange(images) % 2, "test", "train")}
    labels = {LABEL + name: rng.integers(0, 2, images).astype(float) for name in FINDINGS}
    return pd.DataFrame(told | known | split | labels)


# --- a run


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, and how."""

    method: str
    encoder: str
    batch_size: int
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 224
    patch: int = 16
    compile: bool = False
    resident: str = "auto"
    precision: str = "auto"

    def build(self, device: torch.device) -> AbstractMethod:
        module = load("chexmsn.methods", self.method)
        torch.manual_seed(0)
        encoder = build_encoder(EncoderConfig(name=self.encoder, size=self.size, patch=self.patch))
        setting = Setting(size=self.size, batch_size=self.batch_size, findings=FINDINGS)
        return module.Method(module.Config(**self.options), encoder, setting).to(device)


class Clock(L.Callback):
    """Ends a run when it has been timed for long enough, beginning after the first steps."""

    def __init__(self, device: torch.device, warm: int, seconds: float) -> None:
        self.device, self.warm, self.seconds = device, warm, seconds
        self.images, self.start, self.taken = 0, 0.0, 0.0

    def on_train_batch_end(self, trainer: L.Trainer, loop: Loop, outputs: Any, batch: Any, index: int) -> None:
        if trainer.global_step == self.warm:
            wait(self.device)
            self.start = time.perf_counter()
        elif trainer.global_step > self.warm:
            self.images += len(batch.keys)
            trainer.should_stop = time.perf_counter() - self.start > self.seconds

    def on_train_end(self, trainer: L.Trainer, loop: Loop) -> None:
        wait(self.device)
        self.taken = time.perf_counter() - self.start


def trained(job: Job, pack: Path, device: torch.device, *, seconds: float, warm: int = 8) -> dict[str, float]:
    """Images per second end to end, from the pack to the moved weights, by the loop, feed and watch of users' runs."""
    images = Collection([open_pack(pack)], ("train",))
    method = job.build(device)
    targets = targets_of(method, images)
    how = {"batch_size": job.batch_size, "resident": job.resident, "epochs": 10**6}
    config = PretrainConfig(data=(pack,), out=pack / "unused", method=job.method, options=method.config, **how)
    steps = {"steps_per_epoch": len(images) // job.batch_size, "epochs": config.epochs}
    kind = PretrainingLoop if targets is None else ClassifierLoop
    loop = kind(method, seed=0, identity={}, compile=job.compile, **steps)
    meter, clock = Meter(), Clock(device, warm, seconds)
    watch = Health(HealthConfig(), meter, lambda told: None)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    started = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with lightning_told_once():
        trainer = L.Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=1,
            precision=choose_precision(job.precision, device),
            max_epochs=config.epochs,
            callbacks=[meter, watch, clock],
            logger=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            **quiet,
        )
        trainer.fit(loop, datamodule=Feed(config, Part.whole(images, targets), None))
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")
    begun = clock.start - started
    return {"images_per_second": clock.images / clock.taken, "memory_gb": memory, "seconds_before": begun}


def steps_of(job: Job, pack: Path, device: torch.device) -> Steps:
    """Plain steps of this job, part by part."""
    images = Collection([open_pack(pack)], ("train",))
    method = job.build(device)
    how = {"batch_size": job.batch_size, "device": device, "precision": choose_precision(job.precision, device)}
    return Steps(method, images, labels=targets_of(method, images), **how)


def gflop_per_image(job: Job, pack: Path, device: torch.device) -> float:
    """Of a training step, as `chexmsn bench` counts; of 32 images, which are enough for MSN's prototypes."""
    return steps_of(replace(job, batch_size=min(job.batch_size, 32)), pack, device).gflop()


def targets_of(method: AbstractMethod, images: Collection) -> Float32[np.ndarray, "N C"] | None:
    return images.labels(FINDINGS, Policy()) if method.kind == "classifier" else None


def draws_on(device: torch.device, images: int) -> Draws:
    return Draws.of(0, torch.arange(images, device=device))
