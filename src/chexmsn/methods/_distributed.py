"""The two sums that MSN takes over all processes. With one process they cost nothing."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def processes() -> int:
    """How many processes share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total / processes()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient


def mean_over_processes(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The mean over processes; backward passes the gradient through unchanged.

    Together with the averaging of gradients by data-parallel training this is the exact gradient of a
    function of the global mean (facebookresearch/msn `src/utils.py`, AllReduce).
    """
    return _Mean.apply(x) if processes() > 1 else x


@torch.no_grad()
def global_logsumexp(x: Float[Tensor, "B K"]) -> Float[Tensor, "K"]:
    """log sum exp over the rows of all processes, without gradient."""
    local = x.logsumexp(0)
    if processes() == 1:
        return local
    parts = [torch.empty_like(local) for _ in range(processes())]
    dist.all_gather(parts, local)
    return torch.stack(parts).logsumexp(0)
