"""A step never waits for the device: nothing of views, masks, corruptions, loss or optimiser is read back.

On the meta device, which has shapes and no values, reading one fails; so do indices by truth values, whose number
would have to be read. On a GPU torch itself says where it would wait.
"""

from contextlib import nullcontext

import pytest
import torch

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.lookup import load
from chexmsn.corruptions import CorruptionPlan, corrupt_for_training, kept_patches
from chexmsn.corruptions._training import _all, _those_meant
from chexmsn.training.optimiser import build_optimiser
from chexmsn.views import Affine, Blur, Jitter, ViewGroup, make_views
from steps import take_step
from test_methods import METHODS, build, schedule_of

PLAN = CorruptionPlan(names=("gaussian-noise", "poisson-noise", "gaussian-blur"), probability=0.7)
EVERYTHING = ViewGroup(name="all", count=3, size=24, affine=Affine(), jitter=Jitter(gamma=0.2), blur=Blur())


@pytest.fixture
def no_autocast(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *device, **options: nullcontext())  # does not know this device


def unknown(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def draws_of_nobody(images):
    return Draws(unknown(images, dtype=torch.int64))


def test_views_and_masks_read_nothing(no_autocast):
    images, draws = unknown(4, 1, 40, 40), draws_of_nobody(4)
    for group in (EVERYTHING, ViewGroup(name="seen", count=1, size=32, scale=None)):
        assert make_views(images, (group,), draws)[0].shape == (4 * group.count, 1, group.size, group.size)
    assert kept_patches(draws, 196, 0.3).shape == (4, 137)


def test_corruption_in_training_reads_nothing(no_autocast):
    images = unknown(4, 1, 40, 40)
    assert corrupt_for_training(images, PLAN, draws_of_nobody(4)).shape == images.shape


def test_computing_a_corruption_for_all_gives_what_computing_it_for_some_gives():
    images, draws = torch.rand(6, 1, 24, 24), Draws.of(0, keys_of("abcdef"))
    severity, meant = torch.linspace(1, 5, 6), torch.tensor([True, False, True, True, False, False])
    for name in PLAN.names:
        some = _those_meant(name, images.clone(), severity, meant, draws)
        torch.testing.assert_close(_all(name, images, severity, meant, draws), some, rtol=0, atol=1e-6)
        assert some[~meant].equal(images[~meant]) and not some[meant].equal(images[meant])


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_a_method_reads_nothing(name, no_autocast):
    masked = load("chexmsn.methods", name).Method.uses_mask_ratio
    method = build(name, corruption=PLAN, **({"mask_ratio": 0.5} if masked else {})).to("meta")
    draws = draws_of_nobody(4)
    views = make_views(unknown(4, 1, 40, 40), method.views(), draws.stream("views"))
    step = method.step(views, unknown(4, 3), draws.stream("method"), schedule_of(method))
    norm = take_step(method, build_optimiser(method.optimiser()), schedule_of(method), step.loss)
    assert norm.device.type == "meta" and all(value.device.type == "meta" for value in step.log.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch tells of waiting on CUDA devices alone")
@pytest.mark.parametrize("name", METHODS)
def test_a_step_on_a_gpu_never_waits(name):
    method = build(name).to("cuda")
    optimiser = build_optimiser(method.optimiser())
    draws = Draws.of(0, keys_of("abcd").to("cuda"))
    images, labels = torch.rand(4, 1, 40, 40, device="cuda"), torch.zeros(4, 3, device="cuda")

    def once():
        views = make_views(images, method.views(), draws.stream("views"))
        with torch.autocast("cuda", dtype=torch.bfloat16):
            step = method.step(views, labels, draws.stream("method"), schedule_of(method))
        take_step(method, optimiser, schedule_of(method), step.loss)

    once()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        once()
    finally:
        torch.cuda.set_sync_debug_mode("default")
