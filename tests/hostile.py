"""What fuzzing shares: how many examples, how files are damaged, and how much memory may be taken.

`HOSTILE_EXAMPLES=400` makes a campaign of it: other examples every time, and time for them.
"""

import gzip
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "3"))
IS_LONG = EXAMPLES >= 100
MEMORY = 6 << 30  # bytes of address space; of them a new process takes three by loading the libraries

marks = [pytest.mark.campaign, pytest.mark.timeout(3600)] if IS_LONG else []

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=not IS_LONG,
)

HOW = ("flip", "cut", "gap", "twice", "over", "into", "zeros", "field", "utf-16", "packed")


def changed(content: bytes, how: str, where: float, amount: int, junk: bytes) -> bytes:
    """Damage as disks, networks and people do it."""
    at = int(where * len(content))
    return {
        "flip": lambda: content[:at] + bytes([content[at] ^ (1 << amount % 8)]) + content[at + 1 :],
        "cut": lambda: content[:at],
        "gap": lambda: content[:at] + content[at + amount :],
        "twice": lambda: content[:at] + content[max(0, at - amount) : at] + content[at:],
        "over": lambda: content[:at] + junk + content[at + len(junk) :],
        "into": lambda: content[:at] + junk + content[at:],
        "zeros": lambda: content[:at] + bytes(amount) + content[at:],
        "field": lambda: content[:at] + b"9" * 70_000 + content[at:],
        "utf-16": lambda: content.decode("latin-1").encode("utf-16"),
        "packed": lambda: gzip.compress(content, mtime=0),
    }[how]()


@contextmanager
def limited(memory: int) -> Iterator[None]:
    """This process, and any that it starts, may take so many bytes more than it has now."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


@pytest.fixture(scope="module", autouse=True)
def memory_is_limited() -> Iterator[None]:
    with limited(MEMORY):
        yield
