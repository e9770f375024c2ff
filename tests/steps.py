"""Training steps of methods: one by one, for what a method does, or through the loop that users run."""

from collections.abc import Callable, Mapping, Sequence

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from chexmsn.core.batch import Batch
from chexmsn.core.draws import keys_of
from chexmsn.methods._base import AbstractMethod
from chexmsn.training.engine import lightning_told_once
from chexmsn.training.loop import Loop
from chexmsn.training.optimiser import apply_schedule, clip_gradients


def take_step(
    method: AbstractMethod,
    optimiser: torch.optim.Optimizer,
    schedule: Mapping[str, float],
    loss: Tensor,
    look: Callable[[], object] = lambda: None,
) -> Tensor:
    """Down this loss, in the order of `chexmsn.training.loop`; `look` sees the gradients before they are clipped.

    Returns their norm.
    """
    apply_schedule(optimiser, schedule)
    optimiser.zero_grad()
    loss.backward()
    look()
    norm = clip_gradients(method.optimiser())
    method.before_step(schedule)
    optimiser.step()
    method.after_step(schedule)
    return norm


def some_batch(images: int, side: int = 40) -> Batch:
    """Noise, always the same."""
    pixels = torch.randint(256, (images, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Batch(pixels, keys_of(map(str, range(images))), torch.zeros(images, 0), torch.arange(images))


def run_through(method: AbstractMethod, batches: Sequence[Batch], epochs: int, callbacks: Sequence[Callback]) -> None:
    """Train on the same batches in every epoch, by Lightning and our loop as users do."""
    loop = Loop(method, seed=0, steps_per_epoch=len(batches), epochs=epochs, identity={})
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    with lightning_told_once():
        trainer = L.Trainer(accelerator="cpu", devices=1, max_epochs=epochs, callbacks=list(callbacks), **quiet)
        trainer.fit(loop, DataLoader(batches, batch_size=None))
