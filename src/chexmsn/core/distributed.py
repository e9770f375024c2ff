"""What processes that share a batch tell each other. With one process nothing is said and nothing costs."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

T = TypeVar("T")


def processes() -> int:
    """How many processes share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the first of those that share the batch: the one that speaks and writes."""
    return processes() == 1 or dist.get_rank() == 0


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
