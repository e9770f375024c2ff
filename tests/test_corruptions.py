"""What every file in `chexmsn/corruptions` promises, and the numbers of the reference implementation.

A new corruption is walked over without another edit.
"""

import inspect
import json
import math
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chexmsn.core import lookup
from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.corruptions import (
    NOTHING_KNOWN,
    CorruptionPlan,
    Known,
    apply,
    corrupt_for_training,
    fill_patches,
    kept_count,
    kept_patches,
)

GOLDEN = Path(__file__).parent / "golden"
NAMES = lookup.names("chexmsn.corruptions")
REFERENCE_NAMES = {
    "gaussian-noise": "gaussian_noise",
    "poisson-noise": "shot_noise",
    "impulse-noise": "impulse_noise",
    "speckle-noise": "speckle_noise",
}
FAMILIES = {"imagenet-c", "radiographic", "missing", "held-back"}
NOT_MONOTONE = {
    "glass-blur": "its source's second level has one pass where the first has two",
    "pixelate": "cells of a whole number of pixels keep more than slightly smaller ones that share their edge pixels",
}
READ_BACK = {
    "jpeg": "the codec works on the CPU",
    "dose": "torch draws Poisson numbers of high rates from a generator per image",
}
EIGHT_BIT = {
    "bit-depth": "fewer bits are what it is about",
    "jpeg": "the codec takes 8 bit",
    "poisson-noise": "values are counts of quanta, some 300 of them at white",
}
every_corruption = pytest.mark.parametrize("name", NAMES)
every_noise = pytest.mark.parametrize("name", REFERENCE_NAMES)


def draws_of(count: int, seed: int = 0) -> Draws:
    return Draws.of(seed, keys_of(f"image {i}" for i in range(count)))


@pytest.fixture(scope="module")
def phantom() -> torch.Tensor:
    with np.load(GOLDEN / "corruptions.npz") as z:
        return torch.from_numpy(z["in/phantom64"])[None, None].float() / 255


def test_the_published_corruptions_are_there():
    assert set(NAMES) >= {"gaussian-blur", *REFERENCE_NAMES}


@every_corruption
def test_a_corruption_says_what_it_is(name):
    corruption = lookup.load("chexmsn.corruptions", name)
    assert all(getattr(corruption, field) for field in ("TITLE", "CAUSE", "SOURCE", "UNIT"))
    assert corruption.FAMILY in FAMILIES
    assert len(corruption.LEVELS) == 5 and {type(n) for n in (*corruption.LEVELS, corruption.IDENTITY)} == {float}
    assert list(inspect.signature(corruption.corrupt).parameters) in (
        ["images", "level", "draws"],
        ["images", "level", "draws", "known"],
    )
    assert all(part in corruption.__doc__ for part in ("Cause:", "Source:", "Level:", "224 px"))


@every_corruption
def test_severity_0_is_the_identity_and_does_not_change_its_input(name, phantom):
    given_images = phantom.repeat(3, 1, 1, 1)
    before = given_images.clone()
    mixed = apply(name, given_images, torch.tensor([0.0, 3.0, 0.0]), draws_of(3))
    assert torch.equal(given_images, before)
    assert torch.equal(mixed[[0, 2]], before[[0, 2]]) and not torch.equal(mixed[1], before[1])
    corruption = lookup.load("chexmsn.corruptions", name)
    untouched = corruption.corrupt(given_images, torch.full((3,), float(corruption.IDENTITY)), draws_of(3))
    torch.testing.assert_close(untouched, before, rtol=0, atol=1e-6)


@every_corruption
@settings(max_examples=10, deadline=None)
@given(severity=st.floats(0, 5), height=st.integers(8, 40), width=st.integers(8, 40), seed=st.integers(0, 99))
def test_images_stay_in_range_and_keep_their_shape(name, severity, height, width, seed):
    images = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(seed))
    corrupted = apply(name, images, severity, draws_of(2, seed))
    assert corrupted.shape == images.shape and corrupted.dtype == images.dtype
    assert corrupted.min() >= 0 and corrupted.max() <= 1


@every_corruption
def test_an_image_is_corrupted_alike_in_every_batch(name):
    images, draws = torch.rand(5, 1, 24, 24, generator=torch.Generator().manual_seed(0)), draws_of(5)
    whole = apply(name, images, 4, draws)
    order = torch.tensor([4, 1])
    torch.testing.assert_close(apply(name, images[order], 4, Draws(draws.keys[order])), whole[order], rtol=0, atol=1e-6)
    assert torch.equal(apply(name, images, 4, draws), whole)


@every_corruption
def test_distortion_grows_with_severity(name, phantom):
    images, draws = phantom.repeat(8, 1, 1, 1), draws_of(8)
    steps = [0.0, 0.3, 1.0, 1.5, 2.0, 3.0, 3.7, 4.0, 5.0]
    distances = [(apply(name, images, step, draws) - images).square().mean().item() for step in steps]
    assert distances[0] == 0
    if len(set(lookup.load("chexmsn.corruptions", name).LEVELS)) == 1:
        assert len(set(distances[1:])) == 1 and distances[1] > 0
    elif name in NOT_MONOTONE:
        assert min(distances[1:3]) > 0 and max(distances[1:3]) < distances[5] < distances[8]
    else:
        assert all(a < b for a, b in pairwise(distances)), distances


@every_corruption
def test_whole_severities_have_the_listed_levels(name, phantom):
    corruption = lookup.load("chexmsn.corruptions", name)
    for severity, level in enumerate(corruption.LEVELS, start=1):
        wanted = corruption.corrupt(phantom, torch.tensor([level]), draws_of(1).stream(corruption.__name__))
        assert torch.equal(apply(name, phantom, severity, draws_of(1)), wanted)


@every_corruption
def test_the_global_generators_are_left_alone(name, phantom):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    apply(name, phantom, 3, draws_of(1))
    assert torch.equal(torch.get_rng_state(), before) and (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@every_corruption
def test_nothing_is_read_back_from_the_device(name, monkeypatch):
    """On the meta device, which has shapes and no values, reading one fails."""
    if name in READ_BACK:
        pytest.skip(READ_BACK[name])
    monkeypatch.setattr(torch, "autocast", lambda *device, **options: nullcontext())  # does not know this device
    images, draws = torch.empty(3, 1, 32, 32, device="meta"), Draws(torch.empty(3, dtype=torch.int64, device="meta"))
    for severity in (2.5, torch.empty(3, device="meta")):
        assert apply(name, images, severity, draws).shape == images.shape


@every_corruption
def test_sixteen_bits_are_not_cut_to_eight(name):
    if name in EIGHT_BIT:
        pytest.skip(EIGHT_BIT[name])
    fine = (torch.arange(4096).view(1, 1, 64, 64) + 30000) / 65535  # within 16 levels of 8 bit
    mild = apply(name, fine, 0.2, draws_of(1))
    assert len(mild.unique()) > 128


@every_corruption
@pytest.mark.parametrize("severity", [-0.1, 5.1, float("nan"), float("inf")])
def test_severities_outside_the_ladder_are_refused(name, severity, phantom):
    with pytest.raises(UserError, match=r"severity must lie in \[0, 5\]"):
        apply(name, phantom, severity, draws_of(1))


@every_corruption
def test_severities_of_a_tensor_are_limited_to_the_ladder(name, phantom):
    limited = apply(name, phantom.repeat(2, 1, 1, 1), torch.tensor([-1.0, 7.0]), draws_of(2))
    assert torch.equal(limited[:1], phantom)
    at_the_end = apply(name, phantom.repeat(2, 1, 1, 1), 5, draws_of(2))
    torch.testing.assert_close(limited[1], at_the_end[1], rtol=0, atol=1e-6)


def test_what_is_not_known_of_the_pixels_is_assumed():
    images = torch.zeros(2, 1, 100, 215)
    assert NOTHING_KNOWN.pixel_size(images).tolist() == [2.0, 2.0]
    assert Known(pixel_mm=torch.tensor([0.5, math.nan])).pixel_size(images).tolist() == [0.5, 2.0]
    assert NOTHING_KNOWN.pixels(torch.tensor([4.0, 1.0]), images).tolist() == [2.0, 0.5]


def test_an_unknown_name_is_refused(phantom):
    with pytest.raises(UserError, match="did you mean gaussian-blur"):
        apply("gausian-blur", phantom, 1, draws_of(1))


@every_noise
def test_noise_has_the_exact_moments_at_every_gray_level(name):
    """Mean, variance and the shares of black and white per gray level, within six standard errors."""
    side = 48
    gray = (torch.arange(256.0) / 255)[:, None, None, None].expand(-1, 1, side, side)
    with np.load(GOLDEN / "noise_by_level.npz") as z:
        table = torch.from_numpy(z[REFERENCE_NAMES[name]])
    for severity, exact in enumerate(table, start=1):
        out = apply(name, gray, severity, draws_of(256, severity)).flatten(1).double()
        mean, std, black, white = exact.T
        assert ((out.mean(1) - mean).abs() <= 6 * std / side + 1e-6).all()
        assert ((out.var(1) - std**2).abs() <= 6 * std / side + 1e-6).all()  # values differ by at most 1
        for share, p in (((out == 0), black), ((out > 1 - 1e-6), white)):
            assert ((share.double().mean(1) - p).abs() <= 6 * (p * (1 - p)).sqrt() / side + 3 / side**2).all()


@every_noise
def test_noise_is_independent_between_pixels_and_images(name):
    noise = apply(name, torch.full((4, 1, 64, 64), 0.5), 2, draws_of(4))[:, 0]
    noise = (noise - noise.mean()) / noise.std()
    pairs = [(noise[:, 1:], noise[:, :-1]), (noise[:, :, 1:], noise[:, :, :-1]), (noise[1:], noise[:-1])]
    for a, b in pairs:
        assert abs((a * b).mean()) < 4 / a.numel() ** 0.5


def test_gaussian_blur_of_an_image_smaller_than_its_kernel_keeps_the_mean_of_its_edges():
    step = torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2).contiguous()
    blurred = apply("gaussian-blur", step, 5, draws_of(1))
    torch.testing.assert_close(blurred.sum(3), torch.ones(1, 1, 2))
    assert (blurred[..., 0] < 0.5).all()


def test_kept_counts_meet_the_authors_where_floating_point_does():
    with np.load(GOLDEN / "mask_counts_a.npz") as z:
        patches, ratios, theirs = z["in_patches"], z["in_ratio"], z["out_msn_kept_patches"]
    differing = set()
    for n, row in zip(patches.tolist(), theirs.tolist(), strict=True):
        for ratio, kept in zip(ratios.tolist(), row, strict=True):
            if kept == 0:
                with pytest.raises(UserError, match="leaves none"):
                    kept_count(n, ratio)
            elif kept_count(n, ratio) != kept:
                differing.add((n, ratio, kept_count(n, ratio), kept))
    assert differing == {(100, 0.9, 10, 9)}  # 100 * (1 - 0.9) is 9.999999999999998 in floating point


def test_196_patches_keep_the_published_counts():
    assert [kept_count(196, ratio) for ratio in (0.0, 0.15, 0.3, 0.5, 0.7, 0.9, 0.95)] == [196, 166, 137, 98, 58, 19, 9]


@settings(max_examples=25, deadline=None)
@given(ratios=st.lists(st.integers(0, 95), min_size=2, max_size=2).map(sorted), seed=st.integers(0, 99))
def test_kept_patches_are_nested_and_distinct(ratios, seed):
    few, many = (kept_patches(draws_of(3, seed), 49, ratio / 100) for ratio in reversed(ratios))
    for less, more in zip(few.tolist(), many.tolist(), strict=True):
        assert set(less) <= set(more) <= set(range(49)) and len(set(more)) == len(more)


@pytest.mark.parametrize(("fill", "value"), [("black", 0.0), ("image-mean", None), ("dataset-mean", 0.4)])
def test_dropped_patches_are_filled_and_kept_ones_are_not_touched(fill, value):
    images = torch.rand(3, 1, 24, 32, generator=torch.Generator().manual_seed(1))
    kept = kept_patches(draws_of(3), 12, 0.5)
    filled = fill_patches(images, kept, 8, fill, draws_of(3), 0.4)
    for image, out, indices in zip(images, filled, kept.tolist(), strict=True):
        for patch in range(12):
            square = (0, slice(8 * (patch // 4), 8 * (patch // 4) + 8), slice(8 * (patch % 4), 8 * (patch % 4) + 8))
            filling = torch.full((8, 8), image.mean().item() if value is None else value)
            torch.testing.assert_close(out[square], image[square] if patch in indices else filling)


def test_patches_that_do_not_fit_the_image_are_refused():
    with pytest.raises(UserError, match="multiples of the patch of 16 px, not 224 x 230"):
        fill_patches(torch.zeros(1, 1, 224, 230), torch.zeros(1, 1, dtype=torch.int64), 16, "black", draws_of(1), 0.5)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.2, float("nan")])
def test_shares_that_are_none_are_refused(ratio):
    with pytest.raises(UserError, match="share of patches"):
        kept_patches(draws_of(1), 49, ratio)


def test_training_corrupts_the_asked_share_alike_in_every_batch():
    images, draws = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(2)), draws_of(300)
    plan = CorruptionPlan(names=tuple(NAMES), severity=(2.0, 4.0), probability=0.4)
    before = images.clone()
    corrupted = corrupt_for_training(images, plan, draws)
    assert torch.equal(images, before)
    changed = (corrupted != images).flatten(1).any(1)
    assert 0.3 < changed.float().mean() < 0.5
    part = corrupt_for_training(images[100:140], plan, Draws(draws.keys[100:140]))
    torch.testing.assert_close(part, corrupted[100:140], rtol=0, atol=1e-6)


def test_training_uses_the_corruption_and_severity_of_the_plan():
    images, draws = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(3)), draws_of(6)
    plan = CorruptionPlan(names=("gaussian-blur",), severity=(3.0, 3.0), probability=1.0)
    torch.testing.assert_close(corrupt_for_training(images, plan, draws), apply("gaussian-blur", images, 3, draws))
    never = CorruptionPlan(names=("gaussian-blur",), probability=0.0)
    assert torch.equal(corrupt_for_training(images, never, draws), images)


def test_a_plan_says_what_was_seen():
    plan = CorruptionPlan(names=("gaussian-blur", "impulse-noise"), severity=(1.0, 2.0), probability=0.5)
    seen = json.loads(json.dumps(plan.describe()))
    assert [entry["corruption"] for entry in seen] == ["gaussian-blur", "impulse-noise"]
    assert seen[0]["severity"] == [1.0, 2.0] and seen[0]["probability"] == 0.25


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"names": ()}, "at least one"),
        ({"names": ("fog",)}, "no corruption called 'fog'"),
        ({"names": ("gaussian-blur", "gaussian-blur")}, "once"),
        ({"names": ("gaussian-blur",), "severity": (3.0, 1.0)}, "severity"),
        ({"names": ("gaussian-blur",), "severity": (1.0, 6.0)}, "severity"),
        ({"names": ("gaussian-blur",), "probability": 1.5}, "probability"),
    ],
)
def test_bad_plans_are_told(options, told):
    with pytest.raises(UserError, match=told):
        CorruptionPlan(**options)


def test_poisson_noise_stays_in_range_at_the_lowest_numbers(monkeypatch):
    """The expansion of a count about its rate gives -1 there."""
    monkeypatch.setattr(Draws, "uniform_field", lambda draws, shape: torch.zeros(len(draws.keys), *shape))
    poisson = lookup.load("chexmsn.corruptions", "poisson-noise")
    noisy = poisson.corrupt(
        torch.linspace(0.1, 1, 64).reshape(1, 1, 8, 8), torch.tensor([0.01]), Draws.of(0, keys_of(["a"]))
    )
    assert noisy.min() >= 0 and noisy.max() <= 1
