"""Which prototypes a batch is assigned to: what shows that all images end up at one. DINO's outputs count as such."""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.distributed import gathered
from chexmsn.methods._distributed import mean_over_processes


def mean_assignment(probabilities: Float[Tensor, "N K"]) -> Float[Tensor, "K"]:
    """How much of the rows of all processes each prototype gets; "me-max" is its divergence from uniform."""
    return mean_over_processes(probabilities.mean(0))


@torch.no_grad()
def prototypes_used(assigned: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
    """How many prototypes are some row's most likely one, among the rows of all processes.

    Args:
        assigned: probabilities, or their logarithms.
    """
    used = assigned.new_zeros(assigned.shape[1])
    return gathered(used.index_fill(0, assigned.argmax(1), 1.0)).amax(0).sum()


@torch.no_grad()
def same_prototype(assigned: Float[Tensor, "N K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Share of the rows, view-major, whose most likely prototype is that of their image's target.

    Args:
        assigned: probabilities, or their logarithms.
        targets: likewise.
    """
    views = assigned.argmax(1).unflatten(0, (-1, len(targets)))
    return (views == targets.argmax(1)).to(targets.dtype).mean()
