"""The physics and the geometry of the radiographic corruptions, of missing parts and of those held back.

What every corruption promises (identity, range, draws, monotony) is in `test_corruptions.py`.
"""

import importlib.util
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from chexmsn.core import lookup
from chexmsn.core.draws import Draws, keys_of
from chexmsn.corruptions import FIELD_OF_VIEW_MM, Known, apply, takes_known
from chexmsn.corruptions._diffusion import diffused
from chexmsn.corruptions._signal import RANGE, displayed, exposure_of
from chexmsn.corruptions.patient_motion import lines
from chexmsn.corruptions.plasma_noise import clouds
from chexmsn.corruptions.tilt import Corners, projected

DOCS = Path(__file__).parents[1] / "docs"
NAMES = lookup.names("chexmsn.corruptions")
IN_MM = [name for name in NAMES if takes_known(lookup.load("chexmsn.corruptions", name))]
NESTED = ["markers", "leads-and-devices", "missing-rows", "missing-tiles", "collimation"]


def draws_of(count: int, seed: int = 0) -> Draws:
    return Draws.of(seed, keys_of(f"image {i}" for i in range(count)))


def noise_like(count: int, side: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def at_level(name: str, images: torch.Tensor, level: float, **known) -> torch.Tensor:
    """The corruption itself, at a level that need not be on its ladder."""
    corruption = lookup.load("chexmsn.corruptions", name)
    return corruption.corrupt(images, torch.full((len(images),), float(level)), draws_of(len(images)), **known)


# The signal


@settings(deadline=None, max_examples=30)
@given(v=st.floats(0, 1, width=32))
def test_the_signal_is_two_decades_and_comes_back(v):
    images = torch.tensor([[[[0.0, v, 1.0]]]])
    exposure = exposure_of(images)
    assert exposure[..., 0].item() == 1 and exposure[..., 2].item() == pytest.approx(0.01, rel=1e-5)
    torch.testing.assert_close(displayed(exposure), images, rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("fraction", "in_the_lung", "in_the_middle", "in_the_mediastinum"),
    [(1 / 16, 0.34, 0.76, 1.7), (1 / 256, 1.4, 3.0, 6.8), (1 / 1024, 2.7, 6.0, 13.5)],
)
def test_quantum_noise_has_the_strength_of_the_dose_model(fraction, in_the_lung, in_the_middle, in_the_mediastinum):
    """All the noise at a dose, in gray levels of 255, as the reference gives it; the full dose's is there already."""
    values, wanted = (0.15, 0.5, 0.85), (in_the_lung, in_the_middle, in_the_mediastinum)
    images = torch.tensor(values)[:, None, None, None].expand(-1, 1, 224, 224)
    noise = 255 * at_level("dose", images, fraction).flatten(1).std(1)
    for measured, all_of_it in zip(noise.tolist(), wanted, strict=True):
        assert measured == pytest.approx(all_of_it * math.sqrt(1 - fraction), rel=0.04)


@pytest.mark.parametrize("fraction", [0.5, 1 / 64, 1 / 1024])
def test_the_exposure_at_a_lower_dose_is_right_in_the_mean_and_in_its_variance(fraction):
    dose = lookup.load("chexmsn.corruptions", "dose")
    quanta = dose.QUANTA_PER_MM2 * 0.5**2
    exposure = exposure_of(
        at_level("dose", torch.full((1, 1, 400, 400), 0.3), fraction, known=Known(torch.tensor([0.5])))
    )
    signal = math.exp(-RANGE * 0.3)
    variance = signal / quanta * (1 / fraction - 1)
    assert exposure.mean().item() == pytest.approx(signal, abs=5 * math.sqrt(variance) / 400)
    assert exposure.var().item() == pytest.approx(variance, rel=0.03)


def test_half_the_pixel_has_twice_the_quantum_noise():
    images = torch.full((2, 1, 128, 128), 0.5)
    large, small = at_level("dose", images, 1 / 64, known=Known(torch.tensor([2.0, 1.0]))).flatten(1).std(1).tolist()
    assert small == pytest.approx(2 * large, rel=0.05)


def test_electronic_noise_is_a_share_of_the_mean_signal_everywhere():
    images = torch.zeros(1, 1, 100, 200)
    images[..., 100:] = 0.6
    added = exposure_of(at_level("electronic-noise", images, 0.01)) - exposure_of(images)
    wanted = 0.01 * exposure_of(images).mean().item()
    assert added[..., 100:].std().item() == pytest.approx(wanted, rel=0.03)
    assert added[..., :100].min().item() < -2 * wanted and added[..., :100].max().item() <= 1e-6  # black stays black


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_scatter_keeps_the_energy_and_lowers_contrast(share):
    board = 0.3 + 0.2 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)[None, None]
    inside = (..., slice(16, 48), slice(16, 48))
    before, after = exposure_of(board)[inside], exposure_of(at_level("scatter", board, share))[inside]
    assert after.mean().item() == pytest.approx(before.mean().item(), rel=1e-5)
    assert (after.amax() - after.amin()).item() == pytest.approx(
        (1 - share) * (before.amax() - before.amin()).item(), rel=1e-3
    )
    uneven = noise_like(1)
    torch.testing.assert_close(
        exposure_of(at_level("scatter", uneven, share)).sum(), exposure_of(uneven).sum(), rtol=1e-5, atol=0
    )


@settings(deadline=None, max_examples=30)
@given(sigma=st.floats(0, 6, width=32), height=st.integers(40, 64), width=st.integers(40, 64))
def test_a_diffused_point_has_the_variance_asked_for(sigma, height, width):
    point = torch.zeros(1, 1, height, width)
    point[..., height // 2, width // 2] = 1.0
    spread = diffused(point, torch.tensor([sigma]))[0, 0].double()
    assert spread.min() >= 0 and spread.sum().item() == pytest.approx(1, abs=1e-5)
    for axis, side in ((1, height), (0, width)):
        offset = torch.arange(side) - side // 2
        if sigma < side / 12:  # what reaches the border comes back
            assert (spread.sum(axis) * offset**2).sum().item() == pytest.approx(sigma**2, rel=2e-3, abs=1e-3)


def test_grid_lines_are_one_wave_of_the_amplitude_asked_for():
    flat = torch.full((6, 1, 128, 128), 0.5)
    ratio = exposure_of(at_level("grid-lines", flat, 0.1)) / exposure_of(flat)
    assert ratio.mean(dim=(1, 2, 3)).sub(1).abs().max() < 0.01
    assert ratio.flatten(1).std(1).mul(math.sqrt(2)).tolist() == pytest.approx([0.1] * 6, rel=0.05)
    tapered = (ratio - 1) * torch.hann_window(128) * torch.hann_window(128)[:, None]
    power = torch.fft.fft2(tapered)[:, 0].abs().square().flatten(1).sort(1, descending=True).values
    assert (power[:, :34].sum(1) > 0.99 * power.sum(1)).all()  # two peaks, of a few bins each


def test_a_cut_off_grid_takes_the_asked_share_at_one_edge_and_nothing_at_the_other():
    flat = torch.full((8, 1, 10, 100), 0.4)
    left_to_right = (exposure_of(at_level("grid-cutoff", flat, 0.5)) / exposure_of(flat))[:, 0, 0]
    ramp = 1 - 0.5 * (torch.arange(100) + 0.5) / 100
    ways = [torch.allclose(row, ramp, atol=1e-5) for row in left_to_right]
    assert set(ways) == {True, False}
    assert all(
        way or torch.allclose(row, ramp.flip(0), atol=1e-5) for way, row in zip(ways, left_to_right, strict=True)
    )


# Gray levels


def test_an_exposure_two_doublings_off_is_a_factor_of_four():
    flat = torch.full((8, 1, 4, 4), 0.5)
    factor = (exposure_of(at_level("exposure", flat, 2.0)) / exposure_of(flat))[:, 0, 0, 0]
    assert sorted({round(f, 3) for f in factor.tolist()}) == [0.25, 4.0]


@given(width=st.floats(0.3, 1.0))
@settings(deadline=None, max_examples=30)
def test_a_window_stretches_its_part_of_the_range_and_cuts_the_rest(width):
    ramp = torch.linspace(0, 1, 1001).view(1, 1, 1, -1)
    shown = at_level("window", ramp, width)[0, 0, 0]
    inside = (shown > 0) & (shown < 1)
    assert inside.double().mean().item() == pytest.approx(width, abs=0.005)
    torch.testing.assert_close(
        shown[inside].diff(), torch.full((int(inside.sum()) - 1,), 1e-3 / width), rtol=0, atol=1e-5
    )


def test_an_equalised_image_has_a_flat_histogram_whatever_its_gray_levels_were():
    images = noise_like(2)
    equalised = at_level("equalisation", images, 1.0)
    torch.testing.assert_close(equalised.flatten(1).sort(1).values[0], torch.linspace(0, 1, 48 * 48), rtol=0, atol=2e-3)
    torch.testing.assert_close(at_level("equalisation", 0.2 + images.square() / 2, 1.0), equalised, rtol=0, atol=0.01)
    flat = torch.full((1, 1, 4, 4), 0.7)
    assert at_level("equalisation", flat, 1.0).unique().tolist() == [0.0]  # nothing is darker


def test_equal_pixels_stay_equal_when_equalised():
    image = torch.tensor([0.2, 0.2, 0.5, 0.9, 0.9]).view(1, 1, 1, 5)
    assert at_level("equalisation", image, 1.0).flatten().tolist() == pytest.approx([0, 0, 1 / 3, 1, 1])


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_so_many_bits_have_so_many_gray_levels_from_black_to_white(bits):
    ramp = torch.linspace(0, 1, 4096).view(1, 1, 64, 64)
    assert at_level("bit-depth", ramp, bits).unique().tolist() == pytest.approx(
        torch.linspace(0, 1, 2**bits).tolist(), abs=1e-6
    )


def test_16_bit_images_keep_their_bits():
    image = (torch.arange(2**16) / (2**16 - 1)).view(1, 1, 256, 256)
    torch.testing.assert_close(at_level("bit-depth", image, 16.0), image, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["inversion", "flip"])
def test_what_is_turned_round_twice_is_as_before(name):
    images = noise_like(2)
    torch.testing.assert_close(apply(name, apply(name, images, 1, draws_of(2)), 5, draws_of(2)), images)


# Blurs


@settings(deadline=None, max_examples=30)
@given(half=st.floats(0, 6, width=32), angle=st.floats(-0.5, 0.5, width=32))
def test_a_line_of_motion_is_symmetric_and_as_long_as_asked_for(half, angle):
    kernel = lines(torch.tensor([half]), torch.tensor([angle]), 8)[0].double()
    assert kernel.min() >= 0 and kernel.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(kernel, kernel.flip(0, 1), rtol=0, atol=1e-6)
    tap = torch.arange(-8, 9)
    moments = [(kernel.sum(axis) * tap**2).sum().item() for axis in (0, 1)]
    # Points between pixels are shared by them, which adds at most a quarter of a pixel squared per axis.
    assert 0.995 * half**2 / 3 - 1e-3 <= sum(moments) <= half**2 / 3 + 0.5


def test_motion_keeps_the_mean_of_what_lies_inside_and_goes_mostly_along_the_body():
    images = torch.zeros(12, 1, 64, 64)
    images[..., 28:36, 28:36] = 0.8
    moved = at_level("patient-motion", images, 16.0, known=Known(torch.full((12,), 2.0)))
    torch.testing.assert_close(moved.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), rtol=1e-4, atol=0)
    smeared = (moved > 0.01).float()
    assert (smeared.amax(3).sum(2) > smeared.amax(2).sum(2)).all()


def test_loss_of_resolution_is_the_mean_of_cells_and_lines_between_them():
    image = noise_like(1, side=224)
    cells = functional.adaptive_avg_pool2d(image, 32)
    wanted = functional.interpolate(cells, size=224, mode="bilinear", align_corners=False)
    torch.testing.assert_close(apply("resolution", image, 5, draws_of(1)), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("cycles", "left"), [(4, 0.95), (32, 0.0), (64, 0.0)])
def test_32_pixels_show_coarse_waves_and_no_fine_ones(cycles, left):
    wave = 0.5 + 0.4 * (2 * math.pi * cycles * (torch.arange(224) + 0.5) / 224).sin().expand(1, 1, 224, 224)
    shown = at_level("resolution", wave, 32 / 224)
    amplitude = (shown[0, 0, 0] - 0.5).std() / (wave[0, 0, 0] - 0.5).std()
    assert amplitude.item() == pytest.approx(left, abs=0.04)


@pytest.mark.parametrize("name", IN_MM)
def test_what_is_not_known_of_the_pixel_size_is_a_field_of_430_mm(name):
    images, draws = noise_like(2), draws_of(2)
    assumed, known, other = (
        apply(name, images, 4, draws, known)
        for known in (
            Known(),
            Known(pixel_mm=torch.full((2,), FIELD_OF_VIEW_MM / 48)),
            Known(pixel_mm=torch.full((2,), FIELD_OF_VIEW_MM / 96)),
        )
    )
    assert torch.equal(assumed, known) and not torch.equal(assumed, other)


# Geometry


@pytest.mark.parametrize("level", [0.05, 0.137, 0.3])
def test_collimation_covers_exactly_its_share_of_one_to_four_sides(level):
    gray = torch.full((64, 1, 50, 70), 0.5)
    covered = (at_level("collimation", gray, level) - 0.5).abs().mul(2).mean(dim=(1, 2, 3)).tolist()
    open_shares = [(1 - rows * level) * (1 - columns * level) for rows in range(3) for columns in range(3)]
    possible = [1 - share for share in open_shares[1:]]
    assert all(min(abs(share - wanted) for wanted in possible) < 1e-5 for share in covered)
    assert len({round(share, 4) for share in covered}) >= 4


def test_a_quarter_turn_is_exact():
    images = noise_like(8)
    turned = at_level("rotation", images, 90.0)
    ways = {
        int(torch.allclose(after, before.rot90(1, (1, 2)), atol=1e-4))
        - int(torch.allclose(after, before.rot90(-1, (1, 2)), atol=1e-4))
        for before, after in zip(images, turned, strict=True)
    }
    assert ways == {1, -1}


def test_a_shift_has_the_length_asked_for():
    images = torch.zeros(6, 1, 64, 64)
    images[..., 30:34, 30:34] = 1.0
    shifted = at_level("shift", images, 0.25)[:, 0]
    place = torch.arange(64) - 31.5
    x, y = ((shifted.sum(axis) * place).sum(1) / shifted.sum((1, 2)) for axis in (1, 2))
    assert torch.hypot(x, y).tolist() == pytest.approx([16.0] * 6, abs=1e-3)


def test_scaling_changes_areas_by_the_square_of_the_factor():
    images = torch.zeros(10, 1, 80, 80)
    images[..., 30:50, 30:50] = 1.0
    ratios = at_level("scale", images, 1.5).sum(dim=(1, 2, 3)) / 400
    enlarged = ratios > 1
    assert enlarged.any() and not enlarged.all()
    torch.testing.assert_close(ratios, torch.where(enlarged, 1.5**2, 1.5**-2), rtol=0.12, atol=0)


@settings(deadline=None, max_examples=30)
@given(moves=st.lists(st.floats(0, 0.25, width=32), min_size=8, max_size=8))
def test_a_tilt_moves_corners_to_corners_and_lines_to_lines(moves):
    a, b, c, d, e, f, g, h = (torch.full((1, 1, 1), move) for move in moves)
    x, y = Corners(-a, 1 + b, 1 + c, -d), Corners(-e, -f, 1 + g, 1 + h)
    across, down = projected(x, y, torch.linspace(0, 1, 3)[None, None], torch.linspace(0, 1, 3)[None, :, None])
    for coordinate, corners in ((across[0], x), (down[0], y)):
        found = torch.stack([coordinate[0, 0], coordinate[0, 2], coordinate[2, 2], coordinate[2, 0]])
        torch.testing.assert_close(found, torch.cat(corners).flatten(), rtol=1e-4, atol=1e-5)
    for line in (0, 1, 2):  # three points on a line enclose no area
        for u, v in ((across[0, line], down[0, line]), (across[0, :, line], down[0, :, line])):
            area = (u[1] - u[0]) * (v[2] - v[0]) - (u[2] - u[0]) * (v[1] - v[0])
            assert abs(area.item()) < 1e-5


def test_glare_is_as_opaque_as_asked_for_in_its_middle_and_darkens_nothing():
    black = torch.zeros(4, 1, 100, 100)
    assert at_level("glare", black, 0.6).amax(dim=(1, 2, 3)).tolist() == pytest.approx([0.6] * 4, abs=1e-3)
    images = noise_like(4)
    assert (at_level("glare", images, 0.6) >= images).all()


# What is laid over an image or missing from it


@pytest.mark.parametrize("name", NESTED)
def test_what_is_there_at_a_mild_level_is_there_at_a_stronger_one(name):
    gray, draws = torch.full((6, 1, 96, 96), 0.4), draws_of(6)
    changes = [(apply(name, gray, severity, draws) - gray).abs() for severity in (0.5, 1, 1.7, 2, 3, 4, 5)]
    assert all((more >= less - 1e-6).all() for less, more in pairwise(changes))


@pytest.mark.parametrize("level", [0.05, 0.1, 0.333, 0.5])
def test_the_missing_share_is_exact(level):
    white = torch.ones(6, 1, 40, 72)
    rows, tiles = (at_level(name, white, level) for name in ("missing-rows", "missing-tiles"))
    for left in (rows, tiles):
        torch.testing.assert_close(left.mean(dim=(1, 2, 3)), torch.full((6,), 1 - level))
    as_rows, as_columns = (rows[:, 0].std(axis).amax(1) < 1e-6 for axis in (2, 1))
    assert (as_rows ^ as_columns).all() and as_rows.any() and as_columns.any()


def test_eight_markers_lie_in_eight_places_and_are_legible():
    black = torch.zeros(5, 1, 224, 224)
    shown = apply("markers", black, 5, draws_of(5))
    middle = shown[..., 56:168, 56:168]
    assert middle.max() == 0 and shown.amax(dim=(1, 2, 3)).tolist() == [1.0] * 5
    ink = shown.mean(dim=(1, 2, 3))
    assert (ink > 0.002).all() and (ink < 0.05).all()
    for corner in (shown[..., :75, :75], shown[..., :75, 150:], shown[..., 150:, :75], shown[..., 150:, 150:]):
        assert (corner.amax(dim=(1, 2, 3)) > 0.5).all()


def test_devices_have_their_size_in_mm_at_any_resolution():
    draws = draws_of(12)
    coarse, fine = (
        apply("leads-and-devices", torch.zeros(12, 1, side, side), 5, draws, Known(torch.full((12,), 448 / side)))
        for side in (112, 224)
    )
    averaged = functional.avg_pool2d(fine, 2)
    assert (coarse - averaged).abs().mean() < 0.08 * averaged.mean()
    torch.testing.assert_close(coarse.mean(dim=(1, 2, 3)), averaged.mean(dim=(1, 2, 3)), rtol=0.1, atol=0)


def test_devices_only_add_attenuation():
    images = noise_like(6)
    assert (apply("leads-and-devices", images, 5, draws_of(6)) >= images).all()


# Held back


def test_clouds_span_the_range_and_are_smooth():
    noise = draws_of(3).normal_field((1, 64, 64))
    made = clouds(noise)
    assert made.amin(dim=(1, 2, 3)).tolist() == [0.0] * 3 and made.amax(dim=(1, 2, 3)).tolist() == [1.0] * 3
    power = torch.fft.rfft2(made - made.mean(dim=(2, 3), keepdim=True)).abs().square().sum(dim=(0, 1))
    assert power[:4, :4].sum() > 100 * power[12:16, 12:16].sum()


def test_the_single_frequency_has_the_amplitude_asked_for():
    gray = torch.full((8, 1, 96, 96), 0.5)
    added = at_level("single-frequency", gray, 0.3) - gray
    assert added.abs().amax(dim=(1, 2, 3)).tolist() == pytest.approx([0.3] * 8, abs=0.01)
    assert added.flatten(1).std(1).tolist() == pytest.approx([0.3 / math.sqrt(2)] * 8, rel=0.05)


# The page that documents them all


@pytest.fixture(scope="module")
def page_maker():
    spec = importlib.util.spec_from_file_location("corruptions_page", DOCS / "corruptions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_corruptions_says_what_the_code_says(page_maker):
    page = page_maker.PAGE.read_text(encoding="utf-8")
    assert page == page_maker.with_table(page), "run python docs/corruptions.py"
    assert all(f"| `{name}` |" in page for name in NAMES)


def test_the_contact_sheet_shows_all_corruptions_and_is_small(page_maker):
    file = page_maker.PAGE.with_suffix(".png")
    assert file.stat().st_size < 1_500_000
    with Image.open(file) as sheet:
        rows = -(-len(NAMES) // page_maker.ACROSS)
        assert sheet.height == rows * (page_maker.THUMBNAIL + page_maker.CAPTION)
