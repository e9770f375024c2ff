"""Progress with rate and time left; one line that updates on a terminal, a line now and then in a log file."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int | None, title: str, unit: str, done: int = 0) -> Iterator[T]:
    """Pass the items through while showing how many of `total` are done, the rate and the time left.

    `done` says how many were already finished before (a resumed run).
    """
    every = 0.2 if sys.stderr.isatty() else 15.0
    return iter(tqdm(items, total=total, initial=done, desc=title, unit=unit, mininterval=every, dynamic_ncols=True))
