"""Optimisers of our own take the steps of the authors' code, and come back from a checkpoint as they were."""

import pytest
import torch
from torch import nn

from chexmsn.methods._base import Optimiser, ParameterGroup
from chexmsn.training.optimiser import apply_schedule, build_optimiser
from test_methods_golden import load, params


def built(name, weights, momentum):
    groups = [ParameterGroup(params=[w]) for w in weights]
    return build_optimiser(Optimiser(name=name, groups=groups, momentum=momentum))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nesterov_sgd(dtype):
    arrays, close = load("msn_sgd_a", dtype)
    p = params("msn_sgd_a")
    weight = nn.Parameter(arrays["in_param"])
    optimiser = built("nesterov-sgd", [weight], p.momentum)
    for i, lr in enumerate(p.lrs):
        apply_schedule(optimiser, {"lr": lr, "weight_decay": p.weight_decay})
        weight.grad = arrays[f"in_grad{i}"]
        optimiser.step()
        close(weight, arrays[f"out_param{i}"])


def test_with_a_constant_rate_nesterov_sgd_is_torchs():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(5, 4, 3, generator=generator, dtype=torch.float64)
    ours, theirs = (nn.Parameter(torch.ones(4, 3, dtype=torch.float64)) for _ in range(2))
    optimiser = built("nesterov-sgd", [ours], 0.9)
    oracle = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    for gradient in gradients:
        apply_schedule(optimiser, {"lr": 0.1, "weight_decay": 0.01})
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimiser.step()
        oracle.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["mae_lars_a", "mae_lars_b_wd"])
def test_lars(name, dtype):
    arrays, close = load(name, dtype)
    p = params(name)
    weights = {what: nn.Parameter(arrays[f"in_{what}"]) for what in ("weight", "bias", "zero_weight")}
    optimiser = built("lars", weights.values(), p.momentum)
    for i in range(4):
        apply_schedule(optimiser, {"lr": p.lr, "weight_decay": p.weight_decay})
        for what, weight in weights.items():
            weight.grad = arrays[f"in_grad_{what}{i}"]
        optimiser.step()
        for what, weight in weights.items():
            close(weight, arrays[f"out_{what}{i}"])


@pytest.mark.parametrize("name", ["nesterov-sgd", "lars"])
def test_momentum_survives_a_checkpoint(name):
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(4, 3, 2, generator=generator)

    def steps(weight, optimiser, gradients):
        for gradient in gradients:
            apply_schedule(optimiser, {"lr": 0.1, "weight_decay": 0.01})
            weight.grad = gradient.clone()
            optimiser.step()

    whole, part, rest = (nn.Parameter(torch.ones(3, 2)) for _ in range(3))
    steps(whole, built(name, [whole], 0.9), gradients)
    stopped = built(name, [part], 0.9)
    steps(part, stopped, gradients[:2])
    resumed = built(name, [rest], 0.9)
    rest.data.copy_(part.data)
    resumed.load_state_dict(stopped.state_dict())
    steps(rest, resumed, gradients[2:])
    assert torch.equal(rest, whole)
