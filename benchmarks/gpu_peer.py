"""lightly's MSN on this machine's GPU, from 384 px JPEG files by its own transform and loader on all cores.

The parts are those of `pretraining_speed_peer.py`, which needs lightly; here they are moved to the GPU, under bfloat16
autocast.
"""

import time
from pathlib import Path

import numpy as np
import torch
from lightly.loss import MSNLoss
from lightly.models import utils
from PIL import Image
from pretraining_speed_peer import MOMENTUM, batches, build


def draw_files(folder: Path, count: int, side: int = 384) -> Path:
    """Smooth noise, with some grain: 27 kB each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8))
        smooth, grain = coarse.resize((side, side), Image.Resampling.BICUBIC), rng.normal(0, 4, (side, side))
        Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg")
    return folder


def rate(images: Path, device: torch.device, *, encoder: str, batch_size: int, workers: int, seconds: float) -> float:
    """Images per second end to end, after the first batches."""
    how = {"images": str(images), "encoder": encoder, "batch_size": batch_size, "workers": workers}
    how |= {"focal_views": 10, "mask_ratio": 0.3, "mask_focal": True}
    student, target, prototypes, optimiser = build(how)
    student, target, loss_of = student.to(device), target.to(device), MSNLoss()
    prototypes = torch.nn.Parameter(prototypes.detach().to(device))
    weights = [*student.parameters(), prototypes]
    optimiser = torch.optim.AdamW(weights, **{name: optimiser.defaults[name] for name in ("lr", "weight_decay")})
    start, steps = 0.0, 0
    for number, (views, *_) in enumerate(batches(how)):
        if number == 2:
            start = _now(device)
        views = [view.to(device, non_blocking=True) for view in views]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            utils.update_momentum(student, target, MOMENTUM)
            with torch.no_grad():
                targets = target(views[0], False)
            loss = loss_of(student.anchors(views).float(), targets.float(), prototypes)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        steps = number - 1
        if number >= 2 and time.perf_counter() - start > seconds:
            break
    return steps * batch_size / (_now(device) - start)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
