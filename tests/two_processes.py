"""Two processes that stay: they load torch once and then compute whatever the tests ask of them.

A file of its own, so that a new process loads little. Functions are found by their module and name.
"""

import multiprocessing
import os
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

PROCESSES = 2
PATIENCE = timedelta(seconds=60)  # a process that waits for one that failed must not wait for long


@dataclass
class Pair:
    """The processes and the lines to them."""

    running: list[BaseProcess]
    lines: list[Connection]

    def everywhere(self, function, *arguments) -> list:
        """What `function(rank, processes, *arguments)` returns in each of two processes of one group."""
        with TemporaryDirectory() as folder:
            return self._ask(grouped, (f"{folder}/store", function, arguments))

    def as_torchrun(self, function, *arguments) -> list:
        """What `function(*arguments)` returns in each of two processes that torchrun seems to have started."""
        import torch.distributed as dist

        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        return self._ask(launched, (store.port, function, arguments))

    def _ask(self, how, arguments) -> list:
        for line in self.lines:
            line.send((how, arguments))
        answers = [line.recv() for line in self.lines]
        failures = [text for text, _ in answers if text]
        assert not failures, "\n".join(failures)
        return [result for _, result in answers]


def start() -> Pair:
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(PROCESSES)]
    running = [context.Process(target=serve, args=(rank, there)) for rank, (_, there) in enumerate(pipes)]
    for process in running:
        process.start()
    return Pair(running, [here for here, _ in pipes])


def stop(pair: Pair) -> None:
    for line in pair.lines:
        line.send(None)
    for process in pair.running:
        process.join(10)
        process.kill()


def serve(rank: int, line: Connection) -> None:
    """Answer requests until there are no more."""
    import traceback

    import torch

    torch.set_num_threads(1)
    while (request := line.recv()) is not None:
        how, arguments = request
        try:
            answer = (None, how(rank, *arguments))
        except BaseException:
            answer = (f"process {rank}: {traceback.format_exc()}", None)
        line.send(answer)


def grouped(rank, store, function, arguments):
    import torch.distributed as dist

    how = {"rank": rank, "world_size": PROCESSES, "timeout": PATIENCE}
    dist.init_process_group("gloo", init_method=Path(store).as_uri(), **how)
    try:
        return function(rank, PROCESSES, *arguments)
    finally:
        dist.destroy_process_group()


def launched(rank, port, function, arguments):
    import torch.distributed as dist

    size = str(PROCESSES)
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    sizes = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    os.environ |= ranks | sizes | agent
    try:
        return function(*arguments)
    finally:
        for name in ranks | sizes | agent:
            del os.environ[name]
        if dist.is_initialized():
            dist.destroy_process_group()
