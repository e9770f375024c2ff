"""Batches of a collection. The order is keyed: the same for any number of workers, and after a resume.

Whatever the route, the batches are the same: cut out of pixels that lie on the device, read ahead by a thread into
memory from which a GPU copies by itself, or read by worker processes.
"""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from chexmsn.core.batch import Batch
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.progress import progress
from chexmsn.data.collection import Collection

Rows = Int64[np.ndarray, "n"]

AHEAD = 2
"""Batches that a thread reads before they are asked for: one is on its way to the device, the other being filled."""

HELD_AT_ONCE = 1024
"""Images per copy while a collection moves to a device: 64 MB of 256 px."""


@runtime_checkable
class Feeding(Protocol):
    """Batches in their order, and how many there are."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


class Batches(Dataset[Batch]):
    """Reads a whole batch at once: indexed not by a row but by an array of rows.

    Args:
        collection: what to read.
        labels: a row for each image of the collection, or None: no labels.
        pinned: read pixels straight into page-locked memory, from which a GPU copies while others compute. Its pages
            come from torch's cache and go back to it: a few buffers serve for all batches.
    """

    def __init__(
        self, collection: Collection, labels: Float32[np.ndarray, "N C"] | None, *, pinned: bool = False
    ) -> None:
        self.collection = collection
        self.keys = collection.keys
        self.labels = np.empty((len(collection), 0), np.float32) if labels is None else labels
        self.pinned = pinned

    def __getitem__(self, rows: Rows) -> Batch:
        side = self.collection.size
        pixels = torch.empty((len(rows), side, side), dtype=torch_dtype(self.collection), pin_memory=self.pinned)
        self.collection.pixels(rows, out=pixels.numpy())
        return Batch(
            pixels=pixels,
            keys=torch.from_numpy(self.keys[rows]),
            labels=torch.from_numpy(self.labels[rows]),
            rows=torch.from_numpy(rows),
        )


class From(Sampler[np.ndarray]):
    """The batches from one on. The length is that of them all: an epoch that goes on is as long as a whole one."""

    def __init__(self, batches: Sequence[np.ndarray], first: int) -> None:
        self.batches = batches
        self.first = first

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches[self.first :])

    def __len__(self) -> int:
        return len(self.batches)


class Ahead:
    """Batches that a thread reads ahead, so that neither a device nor the training loop waits for a disk."""

    def __init__(self, batches: Batches, order: From) -> None:
        self.batches = batches
        self.order = order

    def __iter__(self) -> Iterator[Batch]:
        rows = iter(self.order)
        with ThreadPoolExecutor(1, "reader", **_on_this_device(self.batches.pinned)) as thread:
            waiting = deque(thread.submit(self.batches.__getitem__, some) for some in islice(rows, AHEAD))
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(thread.submit(self.batches.__getitem__, some) for some in islice(rows, 1))
                yield batch

    def __len__(self) -> int:
        return len(self.order)


def _on_this_device(pinned: bool) -> dict[str, object]:
    """A thread that pins memory would start a context on the first GPU, whichever this process has."""
    return {"initializer": torch.cuda.set_device, "initargs": (torch.cuda.current_device(),)} if pinned else {}


class Cut:
    """Batches cut out of a whole collection that lies on a device: the order goes there once, and nothing else does."""

    def __init__(self, held: Batch, order: From) -> None:
        self.held = held
        self.order = order

    def __iter__(self) -> Iterator[Batch]:
        batches = list(self.order)
        if not batches:
            return
        rows = torch.from_numpy(np.concatenate(batches)).to(self.held.rows.device)
        for some in rows.split([len(batch) for batch in batches]):
            yield Batch(*(_selected(part, some) for part in self.held))

    def __len__(self) -> int:
        return len(self.order)


def torch_dtype(collection: Collection) -> torch.dtype:
    """In which torch holds the pixels: uint8 or uint16."""
    return torch.uint16 if collection.dtype.itemsize == 2 else torch.uint8


def _selected(part: Tensor, rows: Int64[Tensor, "n"]) -> Tensor:
    """These rows. torch promises little for uint16 but conversion, so its bytes are moved as int16."""
    if part.dtype == torch.uint16:
        return part.view(torch.int16).index_select(0, rows).view(torch.uint16)
    return part.index_select(0, rows)


def hold(collection: Collection, labels: Float32[np.ndarray, "N C"] | None, device: torch.device) -> Batch:
    """All images of a collection on a device, as one batch: 25 GB for 377,000 of 256 px (MIMIC-CXR)."""
    side, on_gpu = collection.size, device.type == "cuda"
    batches = Batches(collection, labels, pinned=on_gpu)
    pixels = torch.empty((len(collection), side, side), dtype=torch_dtype(collection), device=device)
    parts = batches_of(np.arange(len(collection)), HELD_AT_ONCE, drop_last=False)
    for part in progress(Ahead(batches, From(parts, 0)), total=len(parts), title="pixels to memory", unit="part"):
        pixels[part.rows[0] : part.rows[-1] + 1].copy_(part.pixels, non_blocking=on_gpu)
    others = (torch.from_numpy(array).to(device) for array in (batches.keys, batches.labels))
    return Batch(pixels, *others, rows=torch.arange(len(collection), device=device))


def loader(
    collection: Collection,
    rows: Rows,
    labels: Float32[np.ndarray, "N C"] | None,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    shuffle: bool,
    drop_last: bool,
    workers: int,
    pin_memory: bool,
    process: int = 0,
    processes: int = 1,
    first: int = 0,
    held: Batch | None = None,
) -> Feeding:
    """A loader of `Batch`es of these rows; `labels` has a row for each image of the collection.

    With `held`, the collection as `hold` gives it, batches are cut out of it on its device, and neither `workers` nor
    `pin_memory` matter. Without workers a thread of this process reads ahead, which copying memory is fast enough for.

    Shuffled, the order depends on seed, epoch and image keys alone. `drop_last` leaves out a short last
    batch: for training with batch statistics, never for evaluation. Of several `processes` each gets its
    share of every batch, so that together they take the steps of one. The batches before `first` are left
    out, without being read.

    Raises UserError where there is not a single batch, or one that the processes cannot share equally.
    """
    if batch_size < 1 or batch_size % processes:
        raise UserError(f"a batch of {batch_size} cannot be shared equally by {processes} processes: take a multiple")
    if len(rows) == 0 or (drop_last and len(rows) < batch_size):
        raise UserError(
            f"a batch of {batch_size} images cannot be drawn from {len(rows)}: choose a smaller batch or more data"
        )
    order = keyed_order(collection.keys[rows], seed, epoch) if shuffle else np.arange(len(rows))
    batches = batches_of(rows[order], batch_size, drop_last)
    sampler = From([batch[process::processes] for batch in batches], first)
    if held is not None:
        return Cut(held, sampler)
    if workers == 0:
        return Ahead(Batches(collection, labels, pinned=pin_memory), sampler)
    return DataLoader(
        Batches(collection, labels),
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_the_run,
    )


def leave_signals_to_the_run(worker: int) -> None:
    """Have a worker stay at work when a signal goes to all processes, as Ctrl-C and Slurm send it: the run ends it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def keyed_order(keys: Int64[np.ndarray, "n"], seed: int, epoch: int) -> Rows:
    """The positions in a random order in which every image's place depends only on seed, epoch and keys."""
    draws = Draws.of(seed, torch.from_numpy(keys)).stream("order", epoch)
    return draws.keys.argsort(stable=True).numpy()


def batches_of(rows: Rows, batch_size: int, drop_last: bool) -> list[np.ndarray]:
    """The rows cut into batches.

    >>> [rows.tolist() for rows in batches_of(np.arange(5), 2, drop_last=True)]
    [[0, 1], [2, 3]]
    """
    end = len(rows) // batch_size * batch_size if drop_last else len(rows)
    return [rows[start : start + batch_size] for start in range(0, end, batch_size)]
