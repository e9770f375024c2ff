"""What processes that share a batch tell each other. With one process nothing is said and nothing costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

T = TypeVar("T")
_each_for_itself = ContextVar("each for itself", default=False)


def processes() -> int:
    """How many processes share the batch."""
    return dist.get_world_size() if _in_a_group() and not _each_for_itself.get() else 1


@contextmanager
def each_for_itself() -> Iterator[None]:
    """Here every process has the whole batch, as in validation: `processes()` is 1, and nothing is said.

    >>> with each_for_itself():
    ...     processes()
    1
    """
    before = _each_for_itself.set(True)
    try:
        yield
    finally:
        _each_for_itself.reset(before)


def is_first() -> bool:
    """Whether this process is the first of its group: the one that speaks and writes."""
    return not _in_a_group() or dist.get_rank() == 0


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


@torch.no_grad()
def gathered(x: Float[Tensor, "..."]) -> Float[Tensor, "P ..."]:
    """The tensors of all processes, of one shape, stacked in their order; without gradient."""
    if processes() == 1:
        return x.detach().unsqueeze(0)
    parts = [torch.empty_like(x) for _ in range(processes())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


def first_then_others(work: Callable[[], T]) -> T:
    """What `work` returns, when the first process has done it before the others begin: what it makes, they find."""
    if is_first():
        result = work()
    if processes() > 1:
        dist.barrier()
    return result if is_first() else work()


@torch.no_grad()
def of_first_process(x: Tensor) -> Tensor:
    """The tensor of the first process, everywhere."""
    if processes() == 1:
        return x
    x = x.clone(memory_format=torch.contiguous_format)
    dist.broadcast(x, src=0)
    return x
