"""LeJEPA: what SIGReg measures and what it does to a set of points."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.methods import lejepa
from chexmsn.methods._base import Setting
from chexmsn.models.encoder import EncoderConfig, build_encoder
from test_methods import batch_of, build, config_of, schedule_of, step_of

EXPECTED = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))  # of the statistic of standard normal samples
COLLAPSED = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))  # of one image, all at the origin
seeds = st.integers(0, 2**32 - 1)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directions(key, width, count=64):
    return lejepa.random_directions(Draws.of(0, keys_of([key])), width, count, normal(0))


def statistic(samples):
    return lejepa.epps_pulley(samples[:, None])[0].item()


# --- the statistic


def integrated_slowly(samples):
    """The definition, by adaptive quadrature of one sample after the other."""

    def integrand(t):
        real = math.fsum(math.cos(t * x) for x in samples) / len(samples)
        imaginary = math.fsum(math.sin(t * x) for x in samples) / len(samples)
        return ((real - math.exp(-t * t / 2)) ** 2 + imaginary**2) * math.exp(-t * t / 2)

    return len(samples) * quad(integrand, -5, 5, limit=200)[0]


def in_closed_form(x):
    """The integral over the whole line: every term is the integral of a cosine times a Gaussian."""
    pairs = torch.exp(-((x[:, None] - x) ** 2) / 2).mean()
    single = math.sqrt(2) * torch.exp(-(x**2) / 4).mean()
    return (len(x) * math.sqrt(2 * math.pi) * (pairs - single + 1 / math.sqrt(3))).item()


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 12), st.floats(0, 2), st.floats(-2, 2))
def test_the_statistic_is_the_integral(seed, count, scale, shift):
    samples = scale * normal(seed, count) + shift
    fine = lejepa.epps_pulley(samples[:, None], points=129).item()
    assert fine == pytest.approx(integrated_slowly(samples.tolist()), rel=1e-3, abs=1e-3)
    assert fine == pytest.approx(in_closed_form(samples), rel=1e-3, abs=1e-3)
    near = samples.clamp(-2.5, 2.5)
    assert statistic(near) == pytest.approx(in_closed_form(near), rel=1e-3, abs=1e-3)


def test_more_points_come_closer_to_the_integral():
    samples = 2 * normal(0, 10) + 1
    errors = [
        abs(lejepa.epps_pulley(samples[:, None], limit=9.0, points=points).item() - in_closed_form(samples))
        for points in (9, 17, 33, 65)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-9


@pytest.mark.parametrize("count", [16, 64, 256])
def test_standard_normal_samples_have_the_expected_value_whatever_their_number(count):
    samples = normal(1, count, 4096)
    assert lejepa.epps_pulley(samples).mean().item() == pytest.approx(EXPECTED, rel=0.06)


@pytest.mark.parametrize("count", [16, 1024])
def test_collapsed_samples_are_told_in_proportion_to_their_number(count):
    assert statistic(torch.zeros(count, dtype=torch.float64)) == pytest.approx(count * COLLAPSED, rel=1e-4)


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(normal(2, 512) + 0.5, id="shifted"),
        pytest.param(2 * normal(2, 512), id="too wide"),
        pytest.param(normal(2, 512) / 2, id="too narrow"),
        pytest.param(normal(2, 512).sign(), id="two points of the same mean and variance"),
        pytest.param((normal(2, 512).abs().log() + 1).exp(), id="skewed"),
    ],
)
def test_other_distributions_are_told_from_normal_ones(samples):
    assert statistic(samples) > 4 * EXPECTED


@given(seeds, st.integers(1, 8), st.integers(1, 5), st.integers(1, 6))
def test_views_and_directions_are_samples_of_their_own(seed, batch, views, slices):
    embeddings = normal(seed, views, batch, 4)
    chosen = directions(str(seed), 4, slices)
    each = [statistic(view @ direction) for view in embeddings for direction in chosen.T]
    assert lejepa.sigreg(embeddings, chosen).item() == pytest.approx(sum(each) / len(each), rel=1e-9)


# --- directions


def test_directions_are_unit_vectors_spread_over_the_sphere():
    found = directions("a", 8, 4096)
    torch.testing.assert_close(found.norm(dim=0), torch.ones(4096, dtype=torch.float64))
    torch.testing.assert_close(found @ found.T / 4096, torch.eye(8, dtype=torch.float64) / 8, rtol=0, atol=0.01)
    assert found.mean(1).abs().max() < 0.03


def test_directions_are_new_at_every_step_and_the_same_again():
    draws = Draws.of(0, keys_of(["a", "b"]))
    first, second, again = (
        lejepa.random_directions(draws.stream("epoch", epoch), 8, 16, normal(0)) for epoch in (0, 1, 0)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_rotated_embeddings_are_judged_alike():
    embeddings = (normal(3, 1, 64, 8) * torch.linspace(0.2, 2, 8)).exp()
    rotation = torch.linalg.qr(normal(4, 8, 8))[0]
    many = directions("a", 8, 8192)
    before, after = (lejepa.sigreg(points, many).item() for points in (embeddings, embeddings @ rotation))
    assert before > 5 * EXPECTED
    assert after == pytest.approx(before, rel=0.03)
    assert lejepa.sigreg(embeddings @ rotation, rotation.T @ many).item() == pytest.approx(before, rel=1e-9)


# --- what it does


def test_its_gradient_drives_a_collapsed_set_apart_to_an_isotropic_one():
    points = (0.01 * normal(5, 1, 128, 4)).requires_grad_()
    optimiser = torch.optim.Adam([points], lr=0.05)
    for step in range(150):
        optimiser.zero_grad()
        lejepa.sigreg(points, directions(str(step), 4)).backward()
        optimiser.step()
    spread = points.detach()[0]
    torch.testing.assert_close(spread.mean(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=0.1)
    torch.testing.assert_close(spread.T.cov(correction=0), torch.eye(4, dtype=torch.float64), rtol=0, atol=0.15)


def test_every_view_is_drawn_to_the_large_ones_and_they_to_it():
    embeddings = normal(6, 5, 3, 4).requires_grad_()
    loss = lejepa.prediction_loss(embeddings, 2)
    centre = (embeddings[0] + embeddings[1]) / 2
    each = [((view[i] - centre[i]) ** 2).mean() for view in embeddings for i in range(3)]
    torch.testing.assert_close(loss, sum(each) / 15)
    loss.backward()
    moved_views = embeddings.grad.flatten(1).norm(dim=1)
    assert (moved_views > 0).all(), "no gradient is stopped"
    assert lejepa.prediction_loss(embeddings[:1].detach().expand(5, -1, -1), 2) == 0


def test_the_loss_weighs_prediction_against_normality():
    step = step_of(build("lejepa", trade_off=0.25))
    torch.testing.assert_close(step.loss.detach(), 0.75 * step.log["prediction"] + 0.25 * step.log["sigreg"])


def test_published_views_at_224_and_the_encoder_is_handed_on():
    encoder = build_encoder(EncoderConfig(name="vit_micro", size=224))
    method = lejepa.Method(config_of("lejepa", local_views=8), encoder, Setting(size=224, batch_size=256))
    views = [(group.name, group.count, group.size, group.scale) for group in method.views()]
    assert views == [("global", 2, 224, (0.3, 1.0)), ("local", 8, 96, (0.05, 0.3))]
    assert method.downstream() is encoder


def test_validation_is_judged_on_directions_that_stay():
    method = build("lejepa").eval()
    first, second = (method.validation_step(*batch_of(method), schedule_of(method)).log["sigreg"] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trade_off": 0.0}, "trade_off must lie in"),
        ({"trade_off": 1.0}, "trade_off must lie in"),
        ({"slices": 0}, "slices must be at least 1"),
        ({"integration_points": 16}, "integration_points must be odd"),
        ({"integration_points": 1}, "integration_points must be at least 3"),
        ({"integration_limit": 0.0}, "integration_limit must be above 0"),
        ({"local_views": -1}, "local_views must be at least 0"),
        ({"local_size": 12}, "local size must be a multiple of the patch size 8, not 12"),
        ({"local_scale": (0.3, 0.1)}, "scale"),
    ],
)
def test_nonsense_is_refused_before_any_data_is_opened(options, message):
    with pytest.raises(UserError, match=message) as refused:
        lejepa.Method.check(lejepa.Config(**options), EncoderConfig(name="vit_micro", patch=8, size=32), 32, 4)
    assert "\n" not in str(refused.value)


def test_a_single_image_is_no_sample():
    with pytest.raises(UserError, match="2 images or more, not 1"):
        lejepa.Method.check(lejepa.Config(), EncoderConfig(), 224, batch_size=1)
