"""Work in a process of its own, for decoders that end theirs when a file is damaged."""

import faulthandler
import mmap
import os
import resource
import signal
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

PATIENCE = 120
"""Seconds; a large radiograph takes one."""

_HEAD = 4096
"""Bytes of room for what NumPy writes before the numbers."""


class WorkDied(RuntimeError):
    """The process ended without a result."""


def array_apart(make: Callable[[], np.ndarray], at_most: int) -> Shaped[np.ndarray, "..."]:
    """The array that `make` returns, of at most so many bytes. Raises WorkDied where it raises, ends or hangs.

    >>> array_apart(lambda: np.arange(3), 100).tolist()
    [0, 1, 2]
    >>> array_apart(lambda: os._exit(3), 100)
    Traceback (most recent call last):
    chexmsn.data._apart.WorkDied: the process of the decoder ended with status 3
    """
    with mmap.mmap(-1, at_most + _HEAD) as shared:
        child = os.fork()
        if not child:
            _work(make, shared)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            raise WorkDied(f"the process of the decoder ended with status {abs(status)}")
        return np.load(shared, allow_pickle=False)


def _work(make: Callable[[], np.ndarray], shared: mmap.mmap) -> None:
    """In the new process: the result, or nothing at all."""
    try:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no last words on the terminal
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # nor a patient's image on the disk
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        np.save(shared, make(), allow_pickle=False)
        shared.seek(0)
        os._exit(0)
    finally:
        os._exit(1)
