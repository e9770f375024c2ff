"""An ordered parallel map that survives Ctrl-C and the death of its parent."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from chexmsn.core.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """Those that this process may use, which under Slurm are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int, preload: Iterable[str] = ()
) -> Iterator[Result]:
    """`function(task)` for every task, in the order of the tasks, computed by `workers` processes.

    Only a few tasks per worker are in flight, so that memory stays bounded. One worker is this process.
    `preload` names modules that all workers share. Raises UserError when a worker dies.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("forkserver")  # a plain fork may deadlock where threads run
    context.set_forkserver_preload([__name__, *preload])
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    try:
        yield from _in_order(pool, function, tasks, ahead=3 * workers)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for want of memory: what was done is kept; "
            f"give the same command with fewer than {workers} workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, function: Callable[[Task], Result], tasks: Iterable[Task], ahead: int
) -> Iterator[Result]:
    waiting = deque()
    for task in tasks:
        waiting.append(pool.submit(function, task))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
