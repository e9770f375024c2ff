"""Batches of a collection. The order is keyed: the same for any number of workers, and after a resume."""

import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch.utils.data import DataLoader, Dataset, Sampler

from chexmsn.core.batch import Batch
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection

Rows = Int64[np.ndarray, "n"]


class Batches(Dataset[Batch]):
    """Reads a whole batch at once: indexed not by a row but by an array of rows."""

    def __init__(self, collection: Collection, labels: Float32[np.ndarray, "N C"] | None) -> None:
        self.collection = collection
        self.keys = collection.keys
        self.labels = np.empty((len(collection), 0), np.float32) if labels is None else labels

    def __getitem__(self, rows: Rows) -> Batch:
        return Batch(
            pixels=torch.from_numpy(self.collection.pixels(rows)),
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
) -> DataLoader[Batch]:
    """A loader of `Batch`es of these rows; `labels` has a row for each image of the collection.

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
    return DataLoader(
        Batches(collection, labels),
        batch_size=None,
        sampler=From([batch[process::processes] for batch in batches], first),
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
