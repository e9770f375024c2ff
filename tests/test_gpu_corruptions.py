"""CPU and GPU degrade images alike: to a gray level where nothing is drawn per pixel, in distribution where it is.

On a machine with a GPU: CUDA_VISIBLE_DEVICES=0 python -m pytest tests/test_gpu_corruptions.py (the suite hides GPUs).
"""

import pytest
import torch

from chexmsn.core import lookup
from chexmsn.core.draws import Draws, keys_of
from chexmsn.corruptions import FILLS, PATTERNS, Known, apply, fill_patches, kept_in

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="no GPU is to be seen: run with CUDA_VISIBLE_DEVICES=0 on a machine that has one",
)
GRAY_LEVEL = 1 / 255
FIELDS = {
    "gaussian-noise": "a normal number per pixel",
    "poisson-noise": "a count per pixel",
    "speckle-noise": "a normal number per pixel",
    "impulse-noise": "a uniform number per pixel",
    "dose": "a count per pixel",
    "electronic-noise": "a normal number per pixel",
    "elastic": "a displacement per pixel",
    "glass-blur": "a swap per pixel",
    "plasma-noise": "clouds of a normal number per pixel",
}
every_corruption = pytest.mark.parametrize("name", lookup.names("chexmsn.corruptions"))


def images_and_draws(count: int, side: int = 96) -> tuple[torch.Tensor, Draws]:
    """Smooth images with detail, and their keys."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 8, 8, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    fine = torch.rand(count, 1, side, side, generator=draw)
    return (0.9 * smooth + 0.1 * fine), Draws.of(0, keys_of(f"image {i}" for i in range(count)))


def on_gpu(draws: Draws) -> Draws:
    return Draws(draws.keys.cuda())


@every_corruption
@pytest.mark.parametrize("severity", [1.0, 3.5, 5.0])
def test_devices_agree(name, severity):
    images, draws = images_and_draws(32)
    here = apply(name, images, severity, draws)
    there = apply(name, images.cuda(), severity, on_gpu(draws)).cpu()
    if name not in FIELDS:
        off = (here - there).abs()
        # a pixel may fall on the other side of an edge or a step; a share of one in a thousand is no other image
        assert (off > GRAY_LEVEL).float().mean() < 1e-3, f"{(off > GRAY_LEVEL).sum()} pixels, up to {off.max():.3f}"
        return
    for of in (torch.Tensor.mean, torch.Tensor.std):  # over the batch: a cloud lightens or darkens its image
        theirs, ours = (of(both.flatten(1), dim=1).mean() for both in (here, there))
        assert (theirs - ours).abs() < 0.02, f"{of.__name__}: {theirs:.4f}, {ours:.4f}"
    distance = torch.stack([(both - images).square().mean() for both in (here, there)])
    assert (distance[0] / distance[1] - 1).abs() < 0.1, distance


@every_corruption
def test_an_image_is_degraded_alike_in_every_batch_on_a_gpu(name):
    images, draws = images_and_draws(5, 48)
    images, draws, order = images.cuda(), on_gpu(draws), torch.tensor([4, 1], device="cuda")
    whole = apply(name, images, 4.0, draws)
    part = apply(name, images[order], 4.0, Draws(draws.keys[order]))
    torch.testing.assert_close(part, whole[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_patches_go_on_both_devices(pattern):
    images, draws = images_and_draws(6)
    beside = torch.rand(6, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    here = kept_in(pattern, images, 16, 0.6, draws, Known(anatomy=beside > 0.5, saliency=beside))
    on = Known(anatomy=beside.cuda() > 0.5, saliency=beside.cuda())
    there = kept_in(pattern, images.cuda(), 16, 0.6, on_gpu(draws), on)
    assert torch.equal(here.sort(dim=1).values, there.cpu().sort(dim=1).values)


@pytest.mark.parametrize("fill", [fill for fill in FILLS if fill != "noise"])
def test_fills_agree(fill):
    images, draws = images_and_draws(4)
    kept = kept_in("random", images, 16, 0.6, draws, Known())
    here = fill_patches(images, kept, 16, fill, draws, 0.4)
    there = fill_patches(images.cuda(), kept.cuda(), 16, fill, on_gpu(draws), 0.4).cpu()
    torch.testing.assert_close(here, there, rtol=0, atol=GRAY_LEVEL)
