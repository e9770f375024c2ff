"""What processes that share a batch tell each other. With one process nothing is said and nothing costs."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def processes() -> int:
    """How many processes share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def gathered(x: Float[Tensor, "..."]) -> Float[Tensor, "P ..."]:
    """The tensors of all processes, of one shape, stacked in their order; without gradient."""
    if processes() == 1:
        return x.detach().unsqueeze(0)
    parts = [torch.empty_like(x) for _ in range(processes())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


@torch.no_grad()
def of_first_process(x: Tensor) -> Tensor:
    """The tensor of the first process, everywhere."""
    if processes() == 1:
        return x
    x = x.clone(memory_format=torch.contiguous_format)
    dist.broadcast(x, src=0)
    return x
