"""The grid of conditions, and what each does to a batch of images."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.core.lookup import names
from chexmsn.corruptions import Known
from chexmsn.evaluation.conditions import (
    CLEAN,
    REGIONS,
    SHARES,
    Condition,
    chosen,
    drops_patches,
    mechanism,
    pixel_fills,
    standard_grid,
)
from chexmsn.evaluation.scoring import Cell, cells_of, degrade, why_not
from evaluation_folders import untrained

VIT = untrained(name="vit_micro", patch=8, size=64)
CNN = untrained(name="resnet18", patch=8, size=64)
DRAWS = Draws.of(3, keys_of(["a", "b", "c"]))
IMAGES = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
KNOWN = Known(anatomy=IMAGES.roll(5, 3) > 0.5, saliency=IMAGES.roll(9, 2))


def test_the_standard_grid_is_the_published_one():
    grid = standard_grid()
    assert len(grid) == len(set(grid)) == 36
    assert grid[0] == CLEAN
    assert [c.severity for c in grid if c.corruption == "tokens-removed"] == list(SHARES)
    noises = {c.corruption for c in grid} - {"clean", "tokens-removed"}
    assert noises == {"poisson-noise", "gaussian-noise", "speckle-noise", "impulse-noise", "gaussian-blur"}


def test_conditions_are_chosen_by_name():
    assert chosen(["standard"]) == standard_grid()
    assert chosen(["standard", "fills"]) == standard_grid() + pixel_fills()
    assert chosen(["patches-black:0.7", "patches-black:0.7"]) == (CLEAN, Condition("patches-black", 0.7))
    assert [c.severity for c in chosen(["impulse-noise"])] == [0, 1, 2, 3, 4, 5]
    assert chosen(["tokens-removed:0.33333333333", "tokens-removed:0.333333"]) == (
        CLEAN,
        Condition("tokens-removed", 1 / 3),
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gaussian-blurr", "did you mean gaussian-blur"),
        ("gaussian-blur:6", r"lies in \(0, 5\], not '6'"),
        ("gaussian-blur:much", "not 'much'"),
        ("gaussian-blur:", "not ''"),
        ("gaussian-blur:1e-7", r"lies in \(0, 5\], not '1e-7'"),
        ("tokens-removed:70", r"a share in \(0, 1\), not '70'"),
        ("patches-blur/blok", "did you mean patches-blur/block"),
        (
            "patches-grey",
            r"'patches-grey' .*: choose one of the grids clean, standard, .* or a condition of docs/stress",
        ),
        ("zzz", r"no condition called 'zzz': choose one of the grids"),
    ],
)
def test_a_condition_that_does_not_exist_is_told(name, message):
    with pytest.raises(UserError, match=message) as refused:
        chosen([name])
    assert len(str(refused.value)) < 240


def test_only_random_conditions_are_repeated():
    blur = Condition("gaussian-blur", 1.0)
    assert cells_of([CLEAN, blur], repeats=2) == [Cell(CLEAN, 0), Cell(blur, 0), Cell(blur, 1)]


def test_the_family_grids_hold_every_file_and_every_region():
    everything = {condition.corruption for condition in chosen(["extended"])}
    assert everything == {"clean", *names("chexmsn.corruptions")} | {
        name for name, region in REGIONS.items() if region.needs != "anatomy"
    }
    assert set(standard_grid()) < set(chosen(["missing", "imagenet-c"])) < set(chosen(["extended"]))
    assert {"missing-rows", "patches-noise/block"} < {c.corruption for c in chosen(["missing"])}


def test_what_has_one_level_is_run_once():
    assert chosen(["flip"]) == (CLEAN, Condition("flip", 5.0))


SAMPLED = [*chosen(["standard", "fills"]), *(Condition(name, 0.7) for name in REGIONS)]


@pytest.mark.parametrize("condition", dict.fromkeys(SAMPLED), ids=str)
def test_every_condition_gives_images_that_do_not_depend_on_the_batch(condition):
    images, kept = degrade(IMAGES, condition, DRAWS, VIT, 0.3, KNOWN)
    known = Known(anatomy=KNOWN.anatomy[1:2], saliency=KNOWN.saliency[1:2])
    alone, kept_alone = degrade(IMAGES[1:2], condition, Draws(DRAWS.keys[1:2]), VIT, 0.3, known)
    assert images.shape == IMAGES.shape and images.min() >= 0 and images.max() <= 1
    torch.testing.assert_close(images[1:2], alone)
    assert (kept is None) == (not condition.corruption.startswith("tokens-removed"))
    assert kept is None or torch.equal(kept[1:2], kept_alone)
    assert (condition == CLEAN) == (kept is None and torch.equal(images, IMAGES))
    assert mechanism(condition)


@settings(max_examples=60, deadline=None)
@given(
    condition=st.sampled_from(chosen(["extended", "tokens-removed/inside", "patches-noise/outside"])),
    rows=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    repeat=st.integers(0, 3),
)
def test_what_an_image_becomes_depends_on_nothing_but_itself_the_condition_and_the_repeat(condition, rows, repeat):
    """Neither on the batch's size nor on its order, so not on the number of processes that share the images either."""
    draws = DRAWS.stream("repeat", repeat)
    images, kept = degrade(IMAGES, condition, draws, VIT, 0.3, KNOWN)
    known = Known(anatomy=KNOWN.anatomy[rows], saliency=KNOWN.saliency[rows])
    some, kept_of_some = degrade(IMAGES[rows], condition, Draws(draws.keys[rows]), VIT, 0.3, known)
    torch.testing.assert_close(some, images[rows], atol=1e-5, rtol=0)
    assert (kept is None and kept_of_some is None) or torch.equal(kept_of_some, kept[rows])


def test_masks_are_nested_and_shared_by_all_ways_of_losing_a_patch():
    kept = [degrade(IMAGES, Condition("tokens-removed", share), DRAWS, VIT, 0.3).kept for share in SHARES]
    for milder, harder in pairwise(kept):
        assert all(set(h.tolist()) < set(m.tolist()) for m, h in zip(milder, harder, strict=True))
    black = degrade(IMAGES, Condition("patches-black", 0.5), DRAWS, VIT, 0.3).images
    patches = black.unfold(2, 8, 8).unfold(3, 8, 8).flatten(-2).sum(-1).flatten(1)
    for row, shown in zip(kept[SHARES.index(0.5)], patches > 0, strict=True):
        assert set(row.tolist()) == set(shown.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("name", [name for name in REGIONS if name.startswith("tokens")])
def test_every_pattern_is_nested_and_loses_the_same_share(name):
    kept = [degrade(IMAGES, Condition(name, share), DRAWS, VIT, 0.3, KNOWN).kept for share in SHARES]
    assert [rows.shape for rows in kept] == [(3, int(round(64 * (1 - share), 9))) for share in SHARES]
    for milder, harder in pairwise(kept):
        assert all(set(h.tolist()) < set(m.tolist()) for m, h in zip(milder, harder, strict=True))
    pixels = degrade(IMAGES, Condition(name.replace("tokens-removed", "patches-black"), 0.5), DRAWS, VIT, 0.3, KNOWN)
    patches = pixels.images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(-2).sum(-1).flatten(1)
    for row, shown in zip(kept[SHARES.index(0.5)], patches > 0, strict=True):
        assert set(row.tolist()) == set(shown.nonzero()[:, 0].tolist())


def test_noise_grows_on_one_field():
    weak, strong = (
        degrade(IMAGES * 0.2 + 0.4, Condition("gaussian-noise", s), DRAWS, VIT, 0.3).images - (IMAGES * 0.2 + 0.4)
        for s in (1.0, 2.0)
    )
    inside = strong.abs() < 0.3  # not clipped
    torch.testing.assert_close(strong[inside], weak[inside] * 0.12 / 0.08, atol=1e-5, rtol=1e-4)


def test_the_data_sets_mean_fills_what_is_gone():
    images = degrade(IMAGES, Condition("patches-dataset-mean", 0.9), DRAWS, VIT, 0.375).images
    assert (images == 0.375).float().mean() == pytest.approx(58 / 64)  # 6 of 64 patches stay


def test_a_cnn_has_no_tokens():
    reason = why_not(Condition("tokens-removed", 0.5), CNN)
    assert "resnet18 is a CNN and has no tokens to remove" in reason
    assert "see patches-black/block" in why_not(Condition("tokens-removed/block", 0.5), CNN)
    fills = [name for name, region in REGIONS.items() if region.fill]
    assert all(drops_patches(name) and why_not(Condition(name, 0.5), CNN) is None for name in fills)
    assert why_not(Condition("gaussian-blur", 5.0), CNN) is None


def test_a_share_that_leaves_no_patch_does_not_apply():
    small = untrained(name="vit_micro", patch=16, size=64)
    assert "leaves none of 16 patches" in why_not(Condition("tokens-removed", 0.95), small)
    assert why_not(Condition("tokens-removed", 0.9), small) is None


def test_what_is_not_known_is_the_reason():
    unknown = {"saliency": "no gradient"}
    assert why_not(Condition("patches-blur/salient", 0.5), CNN, unknown) == "no gradient"
    assert why_not(Condition("patches-blur/inside", 0.5), CNN, unknown) is None
    with pytest.raises(UserError, match="'inside' needs the anatomy"):
        degrade(IMAGES, Condition("patches-blur/inside", 0.5), DRAWS, VIT, 0.3)
