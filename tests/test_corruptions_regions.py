"""Patterns of missing regions, and what fills them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.corruptions import PATTERNS, Known, fill_patches, kept_in

PATCH = 4


def draws_of(images: int, seed: int = 0) -> Draws:
    return Draws.of(seed, keys_of(map(str, range(images))))


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def gone(kept: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return torch.ones(len(kept), rows * columns).scatter_(1, kept, 0.0).view(-1, rows, columns)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    ratio=st.integers(1, 99).map(lambda n: n / 100),
    seed=st.integers(0, 99),
)
def test_a_block_is_in_one_piece_of_the_exact_size_and_nested(rows, columns, ratio, seed):
    patches = rows * columns
    if int(patches * (1 - ratio)) == 0:
        return
    images, draws = torch.zeros(2, 1, rows * PATCH, columns * PATCH), draws_of(2, seed)
    lost = gone(kept_in("block", images, PATCH, ratio, draws), rows, columns)
    milder = gone(kept_in("block", images, PATCH, ratio / 2, draws), rows, columns)
    assert (milder <= lost).all() and torch.equal(lost[0].sum(), lost[1].sum())
    assert all(label(one.numpy())[1] <= 1 for one in lost)


def test_a_block_away_from_the_border_is_square():
    lost = gone(kept_in("block", torch.zeros(400, 1, 56, 56), PATCH, 0.0459, draws_of(400)), 14, 14)
    extent = torch.stack([lost.amax(dim).sum(1) for dim in (1, 2)])
    assert (extent == 3).all(dim=0).float().mean() > 0.4


def test_blocks_lie_everywhere():
    lost = gone(kept_in("block", torch.zeros(2000, 1, 16, 16), PATCH, 1 / 16, draws_of(2000)), 4, 4).mean(0)
    torch.testing.assert_close(lost, torch.full((4, 4), 1 / 16), atol=0.025, rtol=0)


def test_the_most_or_the_least_salient_patches_go_first():
    images, saliency = torch.zeros(3, 1, 16, 16), noise(3, 1, 16, 16)
    by_patch = saliency.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).mean((-1, -2)).flatten(1)
    for pattern, highest in (("salient", True), ("non-salient", False)):
        kept = kept_in(pattern, images, PATCH, 0.5, draws_of(3), Known(saliency=saliency))
        want = by_patch.topk(8, largest=not highest).indices
        assert torch.equal(kept.sort().values, want.sort().values)


def test_equally_salient_patches_go_at_random():
    images = torch.zeros(500, 1, 16, 16)
    kept = kept_in("salient", images, PATCH, 0.5, draws_of(500), Known(saliency=torch.ones(500, 1, 16, 16)))
    torch.testing.assert_close(gone(kept, 4, 4).mean(0), torch.full((4, 4), 0.5), atol=0.1, rtol=0)


def test_the_anatomy_goes_first_or_last():
    images, anatomy = torch.zeros(4, 1, 16, 16), torch.zeros(4, 1, 16, 16, dtype=torch.bool)
    anatomy[..., :8, :8] = True  # 4 of 16 patches
    inside = anatomy[:, 0, ::PATCH, ::PATCH].float()
    known = Known(anatomy=anatomy)
    quarter, half = (gone(kept_in("inside", images, PATCH, ratio, draws_of(4), known), 4, 4) for ratio in (0.25, 0.5))
    assert torch.equal(quarter, inside) and (half >= inside).all()
    assert torch.equal(gone(kept_in("outside", images, PATCH, 0.75, draws_of(4), known), 4, 4), 1 - inside)
    eighth = gone(kept_in("inside", images, PATCH, 0.125, draws_of(4), known), 4, 4)
    assert (eighth <= inside).all() and len(eighth.unique(dim=0)) > 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_do_not_depend_on_the_batch_or_its_order(pattern):
    images, known = noise(5, 1, 16, 16), Known(anatomy=noise(5, 1, 16, 16) > 0.5, saliency=noise(5, 1, 16, 16))
    kept = kept_in(pattern, images, PATCH, 0.4, draws_of(5), known)
    rows = torch.tensor([3, 1])
    few = Known(anatomy=known.anatomy[rows], saliency=known.saliency[rows])
    assert torch.equal(kept[rows], kept_in(pattern, images[rows], PATCH, 0.4, Draws(draws_of(5).keys[rows]), few))


@pytest.mark.parametrize(("pattern", "needs"), [("salient", "saliency"), ("outside", "anatomy")])
def test_what_is_not_known_is_told(pattern, needs):
    with pytest.raises(UserError, match=f"{pattern!r} needs the {needs}"):
        kept_in(pattern, torch.zeros(1, 1, 8, 8), PATCH, 0.5, draws_of(1))


NOTHING_KEPT = torch.zeros(2, 0, dtype=torch.int64)


def test_noise_has_the_mean_and_deviation_of_the_image_and_one_field_for_all_shares():
    images = torch.stack([0.5 + 0.1 * (noise(1, 64, 64) - 0.5), 0.3 + 0.2 * (noise(1, 64, 64) - 0.5)])
    filled = fill_patches(images, NOTHING_KEPT, PATCH, "noise", draws_of(2), 0.4)
    torch.testing.assert_close(filled.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.005, rtol=0)
    torch.testing.assert_close(filled.std((1, 2, 3)), images.std((1, 2, 3)), atol=0, rtol=0.05)
    some = fill_patches(images, torch.tensor([[0], [9]]), PATCH, "noise", draws_of(2), 0.4)
    assert torch.equal(some[..., PATCH * 8 :, :], filled[..., PATCH * 8 :, :])


def test_blur_shows_the_image_through_a_gaussian_of_a_patch():
    images = noise(2, 1, 24, 24)
    filled = fill_patches(images, NOTHING_KEPT, PATCH, "blur", draws_of(2), 0.4)
    want = torch.tensor(gaussian_filter(images[0, 0].numpy(), PATCH, mode="nearest", truncate=4.0))
    torch.testing.assert_close(filled[0, 0], want, atol=1e-5, rtol=0)
