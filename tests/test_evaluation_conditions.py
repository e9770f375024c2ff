"""The grid of conditions, and what each does to a batch of images."""

from itertools import pairwise

import pytest
import torch

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.evaluation.conditions import CLEAN, FILLS, SHARES, Condition, chosen, mechanism, pixel_fills, standard_grid
from chexmsn.evaluation.scoring import Cell, cells_of, degrade, why_not
from evaluation_folders import untrained

VIT = untrained(name="vit_micro", patch=8, size=64)
CNN = untrained(name="resnet18", patch=8, size=64)
DRAWS = Draws.of(3, keys_of(["a", "b", "c"]))
IMAGES = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gaussian-blurr", "did you mean gaussian-blur"),
        ("gaussian-blur:6", r"lies in \(0, 5\], not '6'"),
        ("gaussian-blur:much", "not 'much'"),
        ("tokens-removed:70", r"a share in \(0, 1\), not '70'"),
    ],
)
def test_a_condition_that_does_not_exist_is_told(name, message):
    with pytest.raises(UserError, match=message):
        chosen([name])


def test_only_random_conditions_are_repeated():
    blur = Condition("gaussian-blur", 1.0)
    assert cells_of([CLEAN, blur], repeats=2) == [Cell(CLEAN, 0), Cell(blur, 0), Cell(blur, 1)]


@pytest.mark.parametrize("condition", chosen(["standard", "fills"]), ids=str)
def test_every_condition_gives_images_that_do_not_depend_on_the_batch(condition):
    images, kept = degrade(IMAGES, condition, DRAWS, VIT, 0.3)
    alone, kept_alone = degrade(IMAGES[1:2], condition, Draws(DRAWS.keys[1:2]), VIT, 0.3)
    assert images.shape == IMAGES.shape and images.min() >= 0 and images.max() <= 1
    torch.testing.assert_close(images[1:2], alone)
    assert (kept is None) == (condition.corruption != "tokens-removed")
    assert kept is None or torch.equal(kept[1:2], kept_alone)
    assert (condition == CLEAN) == (kept is None and torch.equal(images, IMAGES))
    assert mechanism(condition)


def test_masks_are_nested_and_shared_by_all_ways_of_losing_a_patch():
    kept = [degrade(IMAGES, Condition("tokens-removed", share), DRAWS, VIT, 0.3).kept for share in SHARES]
    for milder, harder in pairwise(kept):
        assert all(set(h.tolist()) < set(m.tolist()) for m, h in zip(milder, harder, strict=True))
    black = degrade(IMAGES, Condition("patches-black", 0.5), DRAWS, VIT, 0.3).images
    patches = black.unfold(2, 8, 8).unfold(3, 8, 8).flatten(-2).sum(-1).flatten(1)
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
    assert all(why_not(Condition(fill, 0.5), CNN) is None for fill in FILLS)
    assert why_not(Condition("gaussian-blur", 5.0), CNN) is None


def test_a_share_that_leaves_no_patch_does_not_apply():
    small = untrained(name="vit_micro", patch=16, size=64)
    assert "leaves none of 16 patches" in why_not(Condition("tokens-removed", 0.95), small)
    assert why_not(Condition("tokens-removed", 0.9), small) is None
