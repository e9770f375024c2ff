"""Two processes that stay: they load torch once and then compute whatever the tests ask of them.

A file of its own, so that a new process loads little. `everywhere(function, *arguments)` calls
`function(rank, processes, *arguments)` on both; the function is found by its module and name.
"""

import multiprocessing
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

PROCESSES = 2
PATIENCE = timedelta(seconds=60)  # a process that waits for one that failed must not wait for long


@dataclass
class Pair:
    """The processes and the lines to them."""

    running: list[BaseProcess]
    lines: list[Connection]

    def everywhere(self, function, *arguments) -> list:
        """What the function returns on every process. A failure there is told here."""
        for line in self.lines:
            line.send((function, arguments))
        answers = [line.recv() for line in self.lines]
        failures = [text for text, _ in answers if text]
        assert not failures, "\n".join(failures)
        return [result for _, result in answers]


def start(folder) -> Pair:
    """Start the processes; they share a gloo group."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(PROCESSES)]
    running = [
        context.Process(target=serve, args=(rank, str(folder), there), daemon=True)
        for rank, (_, there) in enumerate(pipes)
    ]
    for process in running:
        process.start()
    return Pair(running, [here for here, _ in pipes])


def stop(pair: Pair) -> None:
    for line in pair.lines:
        line.send(None)
    for process in pair.running:
        process.join(10)
        process.kill()


def serve(rank: int, folder: str, line: Connection) -> None:
    """Answer requests until there are no more."""
    import traceback

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES, timeout=PATIENCE
    )
    while (request := line.recv()) is not None:
        function, arguments = request
        try:
            answer = (None, function(rank, PROCESSES, *arguments))
        except Exception:
            answer = (f"process {rank}: {traceback.format_exc()}", None)
        line.send(answer)
    dist.destroy_process_group()
