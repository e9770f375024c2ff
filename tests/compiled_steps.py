"""Compiled steps beside plain ones; run as a program, because checks of annotated shapes cannot be compiled.

    python tests/compiled_steps.py METHOD[,METHOD ...] BACKEND PRECISION [DEVICE]

prints a line of JSON for each method: how often code was made, and by how much losses and gradient norms differ.
"""

import copy
import json
import sys
from functools import partial
from unittest import mock

import lightning as L
import torch
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader

from chexmsn.core.lookup import load
from chexmsn.methods import dino
from chexmsn.methods._base import AbstractMethod, Setting
from chexmsn.models.encoder import EncoderConfig
from chexmsn.models.vit import ViT
from chexmsn.training.engine import lightning_told_once
from chexmsn.training.loop import Loop
from chexmsn.training.meter import Meter
from steps import some_batch

EPOCHS, STEPS, IMAGES = 2, 2, 8
OPTIONS = {
    "msn": {"focal_views": 2, "head_hidden": 32, "head_out": 16, "prototypes": 16, "warmup_epochs": 1.0},
    "dino": {"local_views": 2, "head_hidden": 32, "head_bottleneck": 16, "outputs": 32, "drop_path": 0.0},
    "simsiam": {"projection": 32, "bottleneck": 16},
    "mae": {"decoder_width": 32, "decoder_depth": 1},
}


def build(name: str) -> AbstractMethod:
    """A method on one block of a transformer; always the same weights."""
    torch.manual_seed(0)
    module = load("chexmsn.methods", name)
    encoder = ViT(EncoderConfig(name="vit_micro", patch=8, size=32), width=32, depth=1, heads=2)
    with mock.patch.object(dino, "with_drop_path", lambda encoder, rate: copy.deepcopy(encoder)):
        return module.Method(module.Config(**OPTIONS[name]), encoder, Setting(size=32, batch_size=IMAGES))


class Rows(L.Callback):
    """Every step's numbers."""

    def __init__(self, meter: Meter) -> None:
        self.rows: list[dict[str, float]] = []
        meter.listeners.append(lambda row: self.rows.append(row.numbers))


def trained(method: AbstractMethod, precision: str, device: str, compile: bool) -> list[dict[str, float]]:
    """The numbers of a short run of the loop that users run."""
    loop = Loop(method, seed=0, steps_per_epoch=STEPS, epochs=EPOCHS, identity={}, compile=compile)
    meter = Meter()
    seen = Rows(meter)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    how = {"accelerator": device, "devices": 1, "max_epochs": EPOCHS, "precision": precision, "logger": False}
    with lightning_told_once():
        batches = DataLoader([some_batch(IMAGES)] * STEPS, batch_size=None)
        L.Trainer(callbacks=[meter, seen], **quiet, **how).fit(loop, batches)
    return seen.rows


def compared(name: str, backend: str, precision: str, device: str = "cpu") -> dict[str, float]:
    """Plain float32 against the other way."""
    plain, other = build(name), build(name)
    wanted = trained(plain, "32-true", device, compile=False)
    with mock.patch("torch.compile", partial(torch.compile, backend=backend)):
        given = trained(other, precision, device, compile=backend != "none")
    pairs = list(zip(wanted, given, strict=True))
    losses = [abs(a["train/loss"] - b["train/loss"]) for a, b in pairs]
    return {
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
        "steps": len(given),
        "loss": max(losses),
        "first_loss": losses[0],
        "gradient_norm": max(
            abs(a["train/gradient_norm"] / b["train/gradient_norm"] - 1) for a, b in zip(wanted, given, strict=True)
        ),
    }


if __name__ == "__main__":
    names, *how = sys.argv[1:]
    for name in names.split(","):
        counters.clear()
        print(json.dumps(compared(name, *how)))
