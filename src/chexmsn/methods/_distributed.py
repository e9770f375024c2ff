"""What losses take over the images of all processes. With one process it costs nothing.

Every process has an equal share of the global batch and a loss that is a mean over that share; data-parallel training
averages losses and gradients. A term that is no such mean (the mean assignment of me-max, the balance of Sinkhorn, a
mean over the labels that are known) goes through here, and two processes give the loss and gradients of one.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.distributed import gathered, processes


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
    function of the global mean (facebookresearch/msn `src/utils.py`, AllReduce), as long as that function is the
    same on every process: its other arguments must not differ from one to the next.
    """
    return _Mean.apply(x) if processes() > 1 else x


@torch.no_grad()
def global_logsumexp(x: Float[Tensor, "B K"]) -> Float[Tensor, "K"]:
    """log sum exp over the rows of all processes, without gradient."""
    return gathered(x.logsumexp(0)).logsumexp(0)
