"""More than one device: two processes take the steps of one. Every method of chexmsn/methods is tested."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import shares
from chexmsn.core.lookup import load, names
from chexmsn.data.collection import Collection
from chexmsn.data.loader import loader
from chexmsn.models.batch_norm import BatchNorm1d, BatchNorm2d

METHODS = names("chexmsn.methods")
PRETRAINING = [name for name in METHODS if load("chexmsn.methods", name).Method.kind == "pretraining"]


def near(two, one) -> None:
    torch.testing.assert_close(two, one, rtol=1e-8, atol=1e-10)


# --- methods


def check_same_steps(two: list[dict], one: dict) -> None:
    """Two processes have the mean loss of one, its gradients, and in the end its weights and buffers, both of them."""
    near(sum(process["losses"] for process in two) / 2, one["losses"])
    for process in two:
        for what in ("gradients", "norms", "state"):
            near(process[what], one[what])


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_take_the_steps_of_one(name, two_processes):
    check_same_steps(two_processes.everywhere(shares.train, name), shares.train(0, 1, name))


@pytest.mark.parametrize("name", PRETRAINING)
def test_two_processes_have_the_validation_loss_of_one(name, two_processes):
    one = shares.validate(0, 1, name)
    for loss in two_processes.everywhere(shares.validate, name):
        torch.testing.assert_close(loss, one)


@pytest.mark.parametrize("name", PRETRAINING)
def test_processes_that_divide_the_network_take_the_steps_of_one(name, two_processes):
    check_same_steps(two_processes.everywhere(shares.train_divided, name), shares.train(0, 1, name))


def test_gradients_of_a_divided_network_are_clipped_by_their_norm(two_processes):
    how = {"sinkhorn": 0, "clip": 0.1}
    two, one = two_processes.everywhere(shares.train_divided, "msn", how), shares.train(0, 1, "msn", "vit_micro", how)
    check_same_steps(two, one)
    assert (one["norms"] > 0.1).all()


def test_two_processes_train_a_cnn_as_one_does(two_processes):
    how = ("supervised", "resnet18", {}, 1)
    check_same_steps(two_processes.everywhere(shares.train, *how), shares.train(0, 1, *how))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("msn", {"mask_ratio": 0.5, "mask_shared": True}),
        ("msn", {"sinkhorn": 0, "clip": 0.1}),
        ("supervised", {"balanced": True, "mask_ratio": 0.5}),
    ],
)
def test_options_that_look_across_the_batch_work_over_processes(name, options, two_processes):
    how = (name, "vit_micro", options)
    check_same_steps(two_processes.everywhere(shares.train, *how), shares.train(0, 1, *how))


def test_msn_s_targets_and_prototypes_are_those_of_the_global_batch(two_processes):
    wanted, losses, gradients = zip(*two_processes.everywhere(shares.msn_loss), strict=True)
    alone = shares.msn_loss(0, 1)
    near(torch.cat(wanted), alone[0])
    near(sum(losses) / 2, alone[1])
    near(sum(gradients) / 2, alone[2])


# --- batch normalisation


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (7, 5, 3, 2)])
@pytest.mark.parametrize("options", [{}, {"affine": False, "eps": 1e-6}, {"momentum": None}])
@pytest.mark.parametrize("cut", [3, 6])
def test_batch_statistics_are_those_of_all_processes(shape, options, cut, two_processes):
    one = shares.batch_norm(0, 1, options, [], shape)
    two = two_processes.everywhere(shares.batch_norm, options, [0, cut, 7], shape)
    for name in ("output", "x"):
        near(torch.cat([process[name] for process in two]), one[name])
    for name, gradient in one["gradients"].items():
        near(sum(process["gradients"][name] for process in two), gradient)
    for process in two:
        near(process["buffers"], one["buffers"])


@pytest.mark.parametrize("ours", [BatchNorm1d, BatchNorm2d])
def test_batch_norm_is_torch_s_own_with_one_process(ours):
    theirs = {BatchNorm1d: nn.BatchNorm1d, BatchNorm2d: nn.BatchNorm2d}[ours]
    x = torch.randn((6, 4, 3, 3)[: 2 if ours is BatchNorm1d else 4], generator=torch.Generator().manual_seed(0))
    results = []
    for layer in (ours(4), theirs(4)):
        inputs = x.clone().requires_grad_()
        layer(inputs).square().sum().backward()
        results.append([layer(x).detach(), inputs.grad, *layer.eval()(x), *layer.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_torch_s_gpu_layer_can_take_the_place_of_ours():
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(BatchNorm1d(3), BatchNorm2d(3)))
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in converted)


@pytest.mark.parametrize(("name", "encoder"), [("supervised", "resnet18"), *((name, "vit_micro") for name in METHODS)])
def test_no_layer_keeps_statistics_of_its_own_process(name, encoder):
    layers = [m for m in shares.build(name, encoder, {}).modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(layer, BatchNorm1d | BatchNorm2d) for layer in layers)


# --- who reads what


class Rows(Collection):
    """As much of a collection as a loader needs."""

    keys = None
    dtype = np.dtype(np.uint8)

    def __init__(self, count: int) -> None:
        self.keys = np.arange(count) * 7919

    def __len__(self) -> int:
        return len(self.keys)

    size = 1

    def pixels(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.zeros((len(rows), 1, 1), np.uint8)


@given(
    images=st.integers(1, 40),
    batch=st.integers(1, 8),
    processes=st.integers(1, 5),
    seed=st.integers(0, 99),
    drop_last=st.booleans(),
)
def test_processes_share_every_batch_without_overlap(images, batch, processes, seed, drop_last):
    batch *= processes
    if drop_last and images < batch:
        return
    how = {
        "batch_size": batch,
        "seed": seed,
        "epoch": 0,
        "shuffle": True,
        "drop_last": drop_last,
        "workers": 0,
        "pin_memory": False,
    }
    whole, *parts = (
        [rows_of.rows.tolist() for rows_of in loader(Rows(images), np.arange(images), None, **how, **which)]
        for which in [{}, *({"process": process, "processes": processes} for process in range(processes))]
    )
    assert all(len(part) == len(whole) for part in parts)
    for rows, *shared in zip(whole, *parts, strict=True):
        assert sorted(chain(*shared)) == sorted(rows)
        assert all(share == rows[process::processes] for process, share in enumerate(shared))
