"""Two forms of gradient descent with momentum that torch does not have; published linear evaluations use them.

The buffer of `torch.optim.SGD` is scaled by the learning rate of the step that uses it. MSN's holds every gradient
times the learning rate of its own step, which is another path as soon as the rate changes: with
`torch.optim.SGD(nesterov=True)` the authors' numbers are missed from the second step on. `timm.optim.Lars` adapts
parameters that have weight decay, or all, where MAE adapts those with more than one dimension, and puts weight decay
into the trust ratio in another way: with it, it is 1e-5 off.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _Momentum(Optimizer, ABC):
    """What both share: a buffer per parameter that starts at 0, and the order of things."""

    def __init__(self, params: Iterable[Any], *, lr: float = 0.0, momentum: float = 0.9, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step down; returns what the closure, if there is one, returns."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, self._buffer(parameter), group)
        return loss

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]

    @abstractmethod
    def _move(self, parameter: Tensor, buffer: Tensor, group: dict[str, Any]) -> None:
        """Change a parameter and its buffer in place, by the parameter's gradient."""


class NesterovSGD(_Momentum):
    """Nesterov momentum whose buffer contains the learning rate, as in facebookresearch/msn `src/sgd.py`.

    With gradient g, weight decay d, learning rate r and momentum m:
    u = r (g + d w),  b <- m b + u,  w <- w - u - m b.
    """

    def _move(self, parameter: Tensor, buffer: Tensor, group: dict[str, Any]) -> None:
        update = group["lr"] * parameter.grad.add(parameter, alpha=group["weight_decay"])
        buffer.mul_(group["momentum"]).add_(update)
        parameter.sub_(update).sub_(buffer, alpha=group["momentum"])


class Lars(_Momentum):
    """Layer-wise adaptive rates (You et al. 2017, arXiv 1708.03888) as in facebookresearch/mae `util/lars.py`.

    Parameters of more than one dimension have weight decay and an update as long as `TRUST` times themselves
    (where neither of the two is 0); biases and scales take their gradient as it is:
    b <- m b + u,  w <- w - r b.
    """

    TRUST = 0.001

    def _move(self, parameter: Tensor, buffer: Tensor, group: dict[str, Any]) -> None:
        update = parameter.grad
        if parameter.ndim > 1:
            update = update.add(parameter, alpha=group["weight_decay"])
            update = update * self._trust(parameter, update)
        buffer.mul_(group["momentum"]).add_(update)
        parameter.sub_(buffer, alpha=group["lr"])

    def _trust(self, parameter: Tensor, update: Tensor) -> Tensor:
        length, step = parameter.norm(), update.norm()
        return torch.where((length > 0) & (step > 0), self.TRUST * length / step, 1.0)
