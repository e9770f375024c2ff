"""Views against torchvision, Pillow and scipy, and what must hold for any image and plan."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from chexmsn.core.bands import Stretch, gaussian_bands, triangle_bands
from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.views import Affine, Blur, Jitter, ViewGroup, evaluation_view, make_views
from chexmsn.views.affine import move
from chexmsn.views.crops import Boxes, flip, random_boxes, resize_boxes

EVERYTHING = ViewGroup(
    name="all", count=2, size=24, affine=Affine(), jitter=Jitter(gamma=0.5, probability=0.7), blur=Blur()
)
PLAN = (
    ViewGroup(name="random", count=2, size=32),
    ViewGroup(name="focal", count=3, size=16, scale=(0.05, 0.3)),
    EVERYTHING,
)


def draws_of(count: int, seed: int = 0) -> Draws:
    return Draws.of(seed, keys_of(f"image {i}" for i in range(count)))


def pictures(count: int, height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(count))


def stretch(start: float, length: float) -> Stretch:
    values = (start, length, start, start + length)
    return Stretch(*(torch.tensor([float(value)], dtype=torch.float64) for value in values))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_crop_is_resized_as_torchvision_does(data):
    height, width = data.draw(st.integers(8, 60)), data.draw(st.integers(8, 60))
    top, left = data.draw(st.integers(0, height - 2)), data.draw(st.integers(0, width - 2))
    h, w = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    size, flipped = data.draw(st.integers(1, 70)), data.draw(st.booleans())
    images = pictures(1, height, width)
    boxes = Boxes(stretch(top, h), flip(stretch(left, w), torch.tensor([flipped])))
    wanted = tv.resized_crop(images, top, left, h, w, [size, size], InterpolationMode.BILINEAR, antialias=True)
    wanted = wanted.flip(3) if flipped else wanted
    torch.testing.assert_close(resize_boxes(images, boxes, size), wanted, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("side", "size"), [(300, 224), (300, 112), (250, 64), (100, 224), (97, 56)])
def test_the_evaluation_view_is_pillows_resize_of_a_fractional_box(side, size):
    picture = pictures(1, side, side)
    edge = side / 16
    box = (edge, edge, side - edge, side - edge)
    wanted = Image.fromarray(picture[0, 0].numpy()).resize((size, size), Image.Resampling.BILINEAR, box=box)
    ours = evaluation_view(picture, size)[0, 0]
    torch.testing.assert_close(ours, torch.from_numpy(np.array(wanted)), rtol=0, atol=5e-5)


@pytest.mark.parametrize(("side", "size"), [(256, 224), (128, 112), (64, 56)])
def test_the_evaluation_view_is_a_slice_where_it_can_be(side, size):
    images, edge = pictures(2, side, side), (side - size) // 2
    assert torch.equal(evaluation_view(images, size), images[:, :, edge:-edge, edge:-edge])


def test_the_evaluation_view_of_a_pack_meets_the_published_transform():
    with np.load(Path(__file__).parent / "golden" / "eval_transform_a.npz") as stored:
        z = dict(stored)
    image = Image.fromarray(z["in_image"])
    packed = tv.center_crop(tv.resize(image, 256, InterpolationMode.BILINEAR, antialias=True), [256, 256])
    view = evaluation_view(torch.from_numpy(np.array(packed))[None, None].float() / 255, 224)[0, 0].numpy()
    for channel, (mean, std) in enumerate(zip((0.4884, 0.455, 0.4171), (0.2596, 0.253, 0.2556), strict=True)):
        normalised = (view - mean) / std
        np.testing.assert_allclose(normalised[::8, ::8], z["out_every8"][channel], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(normalised.mean(), z["out_channel_mean"][channel], rtol=1e-5, atol=1e-5)


def test_boxes_are_drawn_as_torchvision_draws_them():
    scale, ratio, draws = (0.3, 1.0), (3 / 4, 4 / 3), draws_of(4000)
    rows, columns = random_boxes(draws, 60, 80, scale, ratio)
    ours = torch.stack([rows.start, columns.start, rows.length, columns.length])
    image = torch.empty(1, 60, 80)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(4000)]
    theirs = torch.tensor(theirs, dtype=torch.float64).T
    noise = ((ours.var(1) + theirs.var(1)) / 4000).sqrt()
    assert ((ours.mean(1) - theirs.mean(1)).abs() < 4.5 * noise).all()
    assert torch.allclose(ours.std(1), theirs.std(1), rtol=0.06)


@settings(max_examples=30, deadline=None)
@given(
    sides=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    scale=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted).map(tuple),
    seed=st.integers(0, 1000),
)
def test_boxes_lie_in_the_image_and_honour_scale_and_ratio(sides, scale, seed):
    rows, columns = random_boxes(draws_of(50, seed), *sides, scale, (3 / 4, 4 / 3))
    for axis, side in zip((rows, columns), sides, strict=True):
        assert (axis.start >= 0).all() and (axis.length >= 1).all() and (axis.start + axis.length <= side).all()
        assert torch.equal(axis.start, axis.start.round()) and torch.equal(axis.length, axis.length.round())
    h, w = rows.length, columns.length
    largest = h * w == (h * w).max()  # may be the fallback, which has its own area
    assert (((h - 0.5) * (w - 0.5) <= scale[1] * sides[0] * sides[1]) | largest).all()
    assert (((h + 0.5) * (w + 0.5) >= scale[0] * sides[0] * sides[1]) | (h == sides[0]) | (w == sides[1])).all()
    assert ((w + 0.5) / (h - 0.5) >= 3 / 4).all() and ((w - 0.5) / (h + 0.5) <= 4 / 3).all()


@pytest.mark.parametrize("sides", [(20, 200), (200, 20), (50, 50)])
def test_where_no_try_fits_the_largest_central_box_is_taken(sides):
    ratio = (1.5, 1.6) if sides == (50, 50) else (3 / 4, 4 / 3)
    rows, columns = random_boxes(draws_of(3), *sides, (1.0, 1.0), ratio)
    wanted = RandomResizedCrop.get_params(torch.empty(1, *sides), [1.0, 1.0], list(ratio))
    ours = zip(rows.start, columns.start, rows.length, columns.length, strict=True)
    assert all(tuple(int(v) for v in box) == wanted for box in ours)


def test_views_are_view_major_and_depend_on_key_group_and_number_alone():
    images, draws = pictures(5), draws_of(5)
    whole = make_views(images, PLAN, draws)
    assert [tuple(views.shape) for views in whole] == [(10, 1, 32, 32), (15, 1, 16, 16), (10, 1, 24, 24)]
    order = torch.tensor([3, 0])
    part = make_views(images[order], PLAN, Draws(draws.keys[order]))
    for group, many, few in zip(PLAN, whole, part, strict=True):
        picked = many.unflatten(0, (group.count, 5))[:, order].flatten(0, 1)
        torch.testing.assert_close(few, picked, rtol=0, atol=1e-6)
    alone = make_views(images, (ViewGroup(name="focal", count=1, size=16, scale=(0.05, 0.3)),), draws)[0]
    torch.testing.assert_close(alone, whole[1][:5], rtol=0, atol=1e-6)
    assert not torch.allclose(whole[1][:5], whole[1][5:10]), "views of one image must differ"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), side=st.integers(12, 64), value=st.floats(0, 1, width=32))
def test_views_stay_in_range_and_a_constant_image_stays_constant(seed, side, value):
    draws = draws_of(2, seed)
    for views in make_views(pictures(2, side, side), PLAN, draws):
        assert views.dtype == torch.float32 and views.min() >= 0 and views.max() <= 1
    blurred = ViewGroup(name="blurred", count=2, size=20, blur=Blur(probability=1.0))
    for views in make_views(torch.full((2, 1, side, side), value), (*PLAN[:2], blurred), draws):
        torch.testing.assert_close(views, torch.full_like(views, value), rtol=0, atol=1e-5)


def test_a_flip_mirrors_the_same_crop_and_a_second_flip_restores_it():
    images, draws = pictures(4), draws_of(4)
    never, always = (ViewGroup(name="crop", count=2, size=20, flip=p) for p in (0.0, 1.0))
    plain, mirrored = make_views(images, (never,), draws)[0], make_views(images, (always,), draws)[0]
    torch.testing.assert_close(mirrored.flip(3), plain, rtol=0, atol=2e-5)
    columns, yes = stretch(3, 9), torch.tensor([True])
    twice = flip(flip(columns, yes), yes)
    assert all(torch.equal(a, b) for a, b in zip(twice, columns, strict=True))


def test_half_of_the_views_are_flipped():
    ramp = torch.linspace(0, 1, 16).expand(2000, 1, 4, 16).contiguous()
    views = make_views(ramp, (ViewGroup(name="crop", count=1, size=8),), draws_of(2000))[0]
    assert 0.45 < (views[:, 0, 0, 0] > views[:, 0, 0, -1]).float().mean() < 0.55


class Chosen(Draws):
    """Draws that come out as told."""

    def uniform(self, count):
        return torch.tensor([[1.0, 0.75, 0.9, 0.3]])


def test_moving_an_image_agrees_with_torchvision():
    affine, images = Affine(rotate=30.0, scale=(0.8, 1.2), shift=0.2), pictures(1, 30, 50)
    ours = move(images, affine, Chosen(torch.tensor([0])))
    translate = [0.2 * 0.8 * 50, 0.2 * -0.4 * 30]
    theirs = tv.affine(images, 30.0, translate, 1.1, [0.0, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_an_affine_of_nothing_is_the_identity():
    images = pictures(3)
    still = Affine(rotate=0.0, scale=(1.0, 1.0), shift=0.0)
    torch.testing.assert_close(move(images, still, draws_of(3)), images, rtol=0, atol=1e-4)


def test_without_a_scale_the_views_show_what_evaluation_sees():
    images = pictures(3, 64, 64)
    group = ViewGroup(name="train", count=1, size=56, scale=None, flip=0.0)
    torch.testing.assert_close(make_views(images, (group,), draws_of(3))[0], evaluation_view(images, 56))


def test_jitter_changes_the_chosen_share_and_leaves_the_rest_alone():
    images, size = pictures(400, 16, 16), 16
    whole = {"count": 1, "size": size, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0}
    plan = (ViewGroup(name="crop", **whole, jitter=Jitter(probability=0.25, gamma=0.2)),)
    changed = (make_views(images, plan, draws_of(400))[0] - images).abs().amax((1, 2, 3)) > 1e-5
    assert 0.18 < changed.float().mean() < 0.32
    none = (ViewGroup(name="crop", **whole, jitter=Jitter(brightness=0.0, contrast=0.0, probability=1.0)),)
    torch.testing.assert_close(make_views(images, none, draws_of(400))[0], images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0, 2.5, 6.0])
def test_the_blur_of_an_axis_is_scipys(sigma):
    image = np.random.default_rng(0).random((9, 40))
    blurred = image @ gaussian_bands(torch.tensor([sigma]), side=40, largest=6.0)[0].double().numpy().T
    wanted = gaussian_filter(image, (0, sigma), mode="nearest", truncate=4.0) if sigma else image
    np.testing.assert_allclose(blurred, wanted, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(side=st.integers(1, 40), sigma=st.floats(0, 12), size=st.integers(1, 40), cut=st.floats(0.1, 1))
def test_rows_of_band_matrices_are_weights(side, sigma, size, cut):
    length = torch.tensor([side * cut], dtype=torch.float64)
    zero = torch.zeros_like(length)
    resize = triangle_bands(Stretch((side - length) / 2, length, zero, zero + side), side=side, size=size)
    for bands in (resize, gaussian_bands(torch.tensor([sigma]), side=side, largest=sigma)):
        assert (bands >= 0).all()
        torch.testing.assert_close(bands.sum(2), torch.ones_like(bands.sum(2)), rtol=0, atol=1e-5)


def test_autocast_does_not_coarsen_views():
    images, draws = pictures(2), draws_of(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = make_views(images, PLAN, draws)
    for a, b in zip(coarse, make_views(images, PLAN, draws), strict=True):
        assert torch.equal(a, b)


def test_views_leave_the_global_generators_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    make_views(pictures(2), PLAN, draws_of(2))
    assert torch.equal(torch.get_rng_state(), before) and (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: ViewGroup(name="g", count=0, size=8), "count"),
        (lambda: ViewGroup(name="g", count=1, size=0), "size"),
        (lambda: ViewGroup(name="g", count=1, size=8, scale=(0.0, 1.0)), "scale"),
        (lambda: ViewGroup(name="g", count=1, size=8, scale=(0.5, 1.2)), "scale"),
        (lambda: ViewGroup(name="g", count=1, size=8, scale=(0.8, 0.5)), "scale"),
        (lambda: ViewGroup(name="g", count=1, size=8, ratio=(0.0, 1.0)), "ratio"),
        (lambda: ViewGroup(name="g", count=1, size=8, flip=1.5), "flip"),
        (lambda: Affine(rotate=200.0), "rotate of affine"),
        (lambda: Affine(scale=(1.2, 0.8)), "scale of affine"),
        (lambda: Affine(shift=1.0), "shift"),
        (lambda: Jitter(brightness=1.5), "brightness"),
        (lambda: Jitter(probability=-0.1), "probability"),
        (lambda: Blur(sigma=(2.0, 1.0)), "sigma"),
        (lambda: Blur(probability=float("nan")), "probability"),
        (lambda: evaluation_view(pictures(1), 0), "size"),
        (lambda: make_views(pictures(1), (PLAN[0], PLAN[0]), draws_of(1)), "twice"),
    ],
)
def test_bad_plans_are_told_in_one_line(wrong, told):
    with pytest.raises(UserError, match=told) as error:
        wrong()
    assert "\n" not in str(error.value)
