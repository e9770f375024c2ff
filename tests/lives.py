"""Training runs in processes that can be killed.

They are forked from a process that has loaded everything and computed nothing: a life costs as long as the run lives,
not the ten seconds of loading torch. (A process that has computed a gradient, as pytest's, cannot be forked.)
"""

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pkgutil import resolve_name
from unittest import mock

LOADED = ("chexmsn.training.run", "chexmsn.methods.msn", "chexmsn.methods.supervised", "torch.utils.tensorboard")


@dataclass(frozen=True)
class Moment:
    """The `call`-th call of a function, counted from 1: before it, in the middle of what it writes, or after it."""

    function: str
    call: int = 1
    when: str = "before"

    def strike(self, blow: Callable[[], None]) -> mock._patch:
        """A patch under which `blow` is dealt at this moment."""
        original, calls = resolve_name(self.function), []

        def struck(*arguments, **options):
            calls.append(1)
            now = len(calls) == self.call
            if now and self.when == "within":  # torch.save(content, file)
                arguments[1].write(b"half a checkpoint")
                arguments[1].flush()
            if now and self.when != "after":
                blow()
            result = original(*arguments, **options)
            if now and self.when == "after":
                blow()
            return result

        return mock.patch(self.function, struck)


def live(config, moments: tuple[Moment, ...] = (), number: int = signal.SIGKILL, apart: bool = False) -> None:
    """Train; at each of the moments this process (with `apart`, its group: its workers too) gets the signal."""
    from chexmsn.training.config import PretrainConfig
    from chexmsn.training.run import pretrain, train

    def blow():
        os.killpg(0, number) if apart else os.kill(os.getpid(), number)

    if apart:
        os.setsid()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    with ExitStack() as struck:
        for moment in moments:
            struck.enter_context(moment.strike(blow))
        (pretrain if isinstance(config, PretrainConfig) else train)(config)


def one_of_several_is_told_to_stop(config) -> int:
    """Train beside other processes, of which the last gets SIGTERM in its second step; how this one ends."""
    from chexmsn.training.run import pretrain

    def blow():
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    with Moment("chexmsn.methods.msn.Method.after_step", 2).strike(blow):
        try:
            pretrain(config)
        except SystemExit as error:
            return error.code
    return 0


@dataclass
class Nursery:
    """The process that the others are forked from, and the line to it."""

    process: BaseProcess
    line: Connection

    def ending(self, config, *how) -> int:
        """Train in a process of its own; its exit code."""
        self._begin(config, *how)
        return self.line.recv()

    def killed_after(self, seconds: float, config) -> bool:
        """Train for so long; whether the run was still at work then."""
        pid = self._begin(config)
        if not self.line.poll(seconds):
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, signal.SIGKILL)
        return self.line.recv() == -signal.SIGKILL

    def _begin(self, *how) -> int:
        self.line.send(how)
        return self.line.recv()


def start() -> Nursery:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,))
    process.start()
    return Nursery(process, here)


def stop(nursery: Nursery) -> None:
    nursery.line.send(None)
    nursery.process.join(10)
    nursery.process.kill()


def serve(line: Connection) -> None:
    """Start a life when asked to, tell its process id and then how it ended."""
    for name in LOADED:
        importlib.import_module(name)
    context = multiprocessing.get_context("fork")
    while (how := line.recv()) is not None:
        process = context.Process(target=live, args=how)
        process.start()
        line.send(process.pid)
        process.join()
        line.send(process.exitcode)
