"""From a method's description of its optimiser to torch's."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from chexmsn.methods._base import Optimiser
from chexmsn.training.momentum import Lars, NesterovSGD
from chexmsn.training.sharding import full

_WITH_MOMENTUM = {"sgd": torch.optim.SGD, "nesterov-sgd": NesterovSGD, "lars": Lars}


def build_optimiser(description: Optimiser, *, gradients_are_scaled: bool = False) -> torch.optim.Optimizer:
    """The torch optimiser; learning rate and weight decay come from `apply_schedule` before every step.

    Args:
        description: what the method asks for; groups without parameters are left out.
        gradients_are_scaled: whether the loss is, as in half precision: a fused kernel would take the scale off by
            itself, after gradients have been clipped.
    """
    groups = [
        {"params": g.params, "decays": g.weight_decay, "lr_scale": g.lr_scale, "lr_schedule": g.lr, "weight_decay": 0.0}
        for g in description.groups
        if g.params
    ]
    if description.name in _WITH_MOMENTUM:
        return _WITH_MOMENTUM[description.name](groups, lr=0.0, momentum=description.momentum)
    kernel = _kernel([p for group in groups for p in group["params"]], gradients_are_scaled)
    optimiser = torch.optim.AdamW(groups, lr=0.0, betas=description.betas, **kernel)
    optimiser.register_load_state_dict_pre_hook(partial(_keep_kernel, kernel))
    return optimiser


def _kernel(parameters: Sequence[Tensor], gradients_are_scaled: bool) -> dict[str, bool]:
    """One kernel for all parameters where the device has it.

    That of the CPU is not taken: it differs from the others in the last bit, and parity is tested in float64. Nor is it
    for parameters that are divided over processes.
    """
    fused = all(p.is_cuda and not isinstance(p, DTensor) for p in parameters) and not gradients_are_scaled
    return {"fused": True, "foreach": False} if fused else {"fused": False, "foreach": True}


def _keep_kernel(kernel: Mapping[str, bool], optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """A checkpoint brings the kernel of the device that it was written on: this one may have another."""
    for group in state["param_groups"]:
        group.update(kernel)


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
        _clip_each([p.grad for p in clipped if p.grad is not None], description.clip_each)
    return full(norm)


def _clip_each(gradients: list[Tensor], largest: float) -> None:
    """As `nn.utils.clip_grad_norm_` of one after the other, in a few kernels for all."""
    factors = torch._foreach_add(torch._foreach_norm(gradients), 1e-6)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, largest)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(gradients, factors)


def clipped_parameters(description: Optimiser) -> list[nn.Parameter]:
    """The parameters whose joint gradient norm is clipped."""
    return [parameter for group in description.groups if group.clip for parameter in group.params]
