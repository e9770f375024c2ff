"""40 steps on small drawn images: the loss goes down, and the features do not collapse."""

import math

import pytest
import torch

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.lookup import load
from chexmsn.methods._base import Setting
from chexmsn.metrics.representation import effective_rank, mean_resemblance
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.training.optimiser import build_optimiser
from chexmsn.views import evaluation_view, make_views
from steps import take_step

BATCH, STEPS = 16, 40
SMALL = {"local_views": 2, "head_hidden": 128}
OPTIONS = {  # small heads, averages that are quick enough for 40 steps, and more weight on SIGReg for 16 images
    "pmsn": {"focal_views": 2, "head_hidden": 128, "head_out": 32, "prototypes": 32, "ema_start": 0.9},
    "dino": {"outputs": 1024, "lr": 3e-4, "ema_start": 0.99, "centre_momentum": 0.5} | SMALL,
    "lejepa": {"head_out": 32, "slices": 128, "trade_off": 0.2} | SMALL,
}


def gratings(count, side):
    """Waves of a direction, wavelength and brightness of their own: any crop tells which image it is of."""
    angle, frequency, brightness, phase = Draws.of(7, keys_of(map(str, range(count)))).uniform(4).T[..., None, None]
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    along = torch.cos(math.pi * angle) * columns + torch.sin(math.pi * angle) * rows
    waves = torch.sin((6 + 18 * frequency) * along + 2 * math.pi * phase)
    return (0.3 + 0.4 * brightness + 0.3 * waves).clamp(0, 1).unsqueeze(1)


def trained(method, images):
    """The losses of 40 steps."""
    optimiser, losses = build_optimiser(method.optimiser()), []
    for step in range(STEPS):
        schedule = {name: s.at(step, STEPS, STEPS // 2) for name, s in method.schedules().items()}
        draws = Draws.of(0, keys_of(map(str, range(BATCH)))).stream("step", step)
        loss = method.step(make_views(images, method.views(), draws), None, draws.stream("method"), schedule).loss
        take_step(method, optimiser, schedule, loss)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIONS)
def test_goes_down_and_does_not_collapse(name):
    module, images = load("chexmsn.methods", name), gratings(BATCH, 48)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = build_encoder(EncoderConfig(name="vit_micro", patch=8, size=32))
        method = module.Method(module.Config(**OPTIONS[name]), encoder, Setting(size=32, batch_size=BATCH))
        losses = trained(method, images)
    features = method.downstream()(evaluation_view(images, 32)).pooled.detach()
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.2
    assert effective_rank(features) > 3
    assert mean_resemblance(features) < 0.9
