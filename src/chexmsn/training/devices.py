"""A function on every device of a run: one process each, which are started here where nothing else has done it."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from torch.multiprocessing import start_processes
from tqdm import tqdm

from chexmsn.core.errors import UserError
from chexmsn.training.config import RunConfig
from chexmsn.training.processes import check_layout, claim_failure, exit_code, joined, launcher

log = logging.getLogger(__name__)

Work = Callable[[Any], Path]

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
GRACE = 120.0  # seconds in which all processes whose companion ended may still write what they have


def on_all_devices(work: Work, config: RunConfig) -> Path:
    """What `work(config)` returns, where one process per device does it.

    Raises:
        UserError: what was started does not agree with `devices` and `nodes`; or what `work` raises.
        SystemExit: a process failed and has told of it, or a signal ended them.
    """
    environment = launcher()
    check_layout(config, environment)
    if config.devices * config.nodes == 1:
        return work(config)
    if environment is None:
        _start(work, config)
        return config.out
    try:
        with joined(environment, config):
            return work(config)
    except (UserError, OSError) as error:
        if environment.global_rank() == 0:
            raise
        log.error("chexmsn: %s", error)  # the command line speaks for the first process alone
        sys.exit(exit_code(error))


def _start(work: Work, config: RunConfig) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # outlives every one of them
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    how = (work, config, store.port, logging.getLogger().getEffectiveLevel(), errors)
    processes = start_processes(_member, how, nprocs=config.devices, join=False, start_method="spawn").processes
    with forwarding(processes):
        failed = _wait(processes, when_one_fails=lambda: claim_failure(store))
    if failed is None:
        return
    if not errors.empty():
        raise errors.get()
    if failed.exitcode == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if failed.exitcode < 0:
        ended = signal.Signals(-failed.exitcode)
        why = " (memory may be short)" if ended == signal.SIGKILL else ""  # what a system short of memory sends
        raise UserError(
            f"a process of this run was ended by {ended.name}{why}: the same command continues from the last checkpoint"
        )
    sys.exit(failed.exitcode)


def _member(rank: int, work: Work, config: RunConfig, port: int, level: int, errors: SimpleQueue) -> None:
    """One process per device: it finds the others by the environment variables that torchrun would set."""
    os.setpgrp()  # Ctrl-C goes to the process that started this one, which hands it on, once
    count = str(config.devices)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "chexmsn"}
    os.environ |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    torch.set_num_threads(max(1, torch.get_num_threads() // config.devices))
    try:
        with joined(TorchElasticEnvironment(), config):
            work(config)
    except (UserError, OSError) as error:
        errors.put(error)
        sys.exit(exit_code(error))
    except KeyboardInterrupt as error:
        sys.exit(exit_code(error))
    except Exception:  # torch would put it in a file that we do not read
        traceback.print_exc()
        sys.exit(1)


def _wait(processes: Sequence[BaseProcess], when_one_fails: Callable[[], object]) -> BaseProcess | None:
    """Wait for all of them. The first that fails comes back, when the others have ended too."""
    running = {process.sentinel: process for process in processes}
    while running:
        for sentinel in multiprocessing.connection.wait(running):
            process = running.pop(sentinel)
            process.join()
            if process.exitcode:
                when_one_fails()
                _end(running.values())
                return process
    return None


def _end(processes: Iterable[BaseProcess]) -> None:
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


@contextmanager
def forwarding(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Hand signals on to these processes, which know what to do about them."""

    def forward(number: int, _: Any) -> None:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
