"""From a method's description of its optimiser to torch's."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from chexmsn.methods._base import Optimiser
from chexmsn.training.momentum import Lars, NesterovSGD
from chexmsn.training.sharding import full

_WITH_MOMENTUM = {"sgd": torch.optim.SGD, "nesterov-sgd": NesterovSGD, "lars": Lars}


def build_optimiser(description: Optimiser) -> torch.optim.Optimizer:
    """The torch optimiser; learning rate and weight decay come from `apply_schedule` before every step.

    Args:
        description: what the method asks for; groups without parameters are left out.
    """
    groups = [
        {"params": g.params, "decays": g.weight_decay, "lr_scale": g.lr_scale, "lr_schedule": g.lr, "weight_decay": 0.0}
        for g in description.groups
        if g.params
    ]
    if description.name in _WITH_MOMENTUM:
        return _WITH_MOMENTUM[description.name](groups, lr=0.0, momentum=description.momentum)
    # foreach: the fused kernel of the CPU differs from the others in the last bit, and parity is tested in float64
    return torch.optim.AdamW(groups, lr=0.0, betas=description.betas, foreach=True)


def apply_schedule(optimiser: torch.optim.Optimizer, schedule: Mapping[str, float]) -> None:
    """Set learning rate and weight decay of every group for the coming step."""
    for group in optimiser.param_groups:
        group["lr"] = schedule[group["lr_schedule"]] * group["lr_scale"]
        group["weight_decay"] = schedule["weight_decay"] if group["decays"] else 0.0


def clip_gradients(description: Optimiser) -> Tensor:
    """Scale gradients down to what the description allows; returns their joint norm before, as clipping counts it."""
    clipped = clipped_parameters(description)
    norm = nn.utils.get_total_norm([p.grad for p in clipped if p.grad is not None])
    if description.clip is not None:
        nn.utils.clip_grads_with_norm_(clipped, description.clip, norm)
    if description.clip_each is not None:
        for parameter in clipped:
            nn.utils.clip_grad_norm_(parameter, description.clip_each)
    return full(norm)


def clipped_parameters(description: Optimiser) -> list[nn.Parameter]:
    """The parameters whose joint gradient norm is clipped."""
    return [parameter for group in description.groups if group.clip for parameter in group.params]
