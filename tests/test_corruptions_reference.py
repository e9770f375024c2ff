"""Reference mode: the pixels and moments of imagecorruptions and MedMNIST-C."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.corruptions import MEDMNIST_C, apply, as_imagecorruptions, as_medmnist_c
from chexmsn.corruptions.motion_blur import LEVELS, slip

GOLDEN = Path(__file__).parent / "golden"
MOMENTS = json.loads((GOLDEN / "random_moments.json").read_text())
THEIR_NAMES = {
    "brightness": "brightness",
    "contrast": "contrast",
    "defocus": "defocus_blur",
    "elastic": "elastic_transform",
    "gamma-down": "gamma_corr_down",
    "gamma-up": "gamma_corr_up",
    "gaussian-blur": "gaussian_blur",
    "gaussian-noise": "gaussian_noise",
    "glass-blur": "glass_blur",
    "impulse-noise": "impulse_noise",
    "jpeg": "jpeg_compression",
    "motion-blur": "motion_blur",
    "pixelate": "pixelate",
    "poisson-noise": "shot_noise",
    "speckle-noise": "speckle_noise",
    "zoom-blur": "zoom_blur",
}
TOLERANCE = {"contrast": 0, "gaussian-blur": 1, "jpeg": 0, "pixelate": 0}  # gray levels; the others 1
IMAGES = ("phantom64", "phantom96x160", "bars224")
every_image = pytest.mark.parametrize("image", IMAGES)


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "corruptions.npz") as z:
        return dict(z)


def pixels_of(image: str) -> torch.Tensor:
    return torch.from_numpy(golden()[f"in/{image}"])[None]


def draws_of(count: int) -> Draws:
    return Draws.of(0, keys_of(f"image {i}" for i in range(count)))


def apart(ours: torch.Tensor, theirs: np.ndarray) -> np.ndarray:
    return np.abs(ours[0].numpy().astype(int) - theirs)


@every_image
@pytest.mark.parametrize("name", ["brightness", "contrast", "defocus", "gaussian-blur", "jpeg", "pixelate"])
def test_imagecorruptions_is_met(name, image):
    theirs = golden()[f"imagecorruptions/{THEIR_NAMES[name]}/{image}"]
    for severity in range(1, 6):
        ours = as_imagecorruptions(name, pixels_of(image), severity, draws_of(1))
        assert apart(ours, theirs[severity - 1]).max() <= TOLERANCE.get(name, 1)


@every_image
def test_the_zoom_blur_of_imagecorruptions_is_met_but_for_its_edges(image):
    theirs = golden()[f"imagecorruptions/zoom_blur/{image}"]
    for severity in range(1, 6):
        ours = as_imagecorruptions("zoom-blur", pixels_of(image), severity, draws_of(1))
        assert apart(ours, theirs[severity - 1])[1:-1, 1:-1].max() <= 1


@pytest.mark.parametrize("image", ["phantom64", "phantom96x160"])
def test_the_motion_blur_of_imagecorruptions_is_met_at_its_angles(image):
    theirs = golden()[f"imagecorruptions/motion_blur/{image}"]
    images = pixels_of(image)[None].float() / 255
    for level, blurred in zip(LEVELS, theirs, strict=True):
        for degrees, wanted in zip((-45.0, -20.0, 0.0, 30.0), blurred, strict=True):
            ours = 255 * slip(images, torch.tensor([level]), torch.tensor([degrees]).deg2rad())
            assert apart(ours[:, 0].floor(), wanted).max() <= 1


@every_image
@pytest.mark.parametrize("name", MEDMNIST_C)
def test_medmnist_c_is_met(name, image):
    theirs = golden()[f"medmnist-c/{THEIR_NAMES.get(name, name.replace('-', '_'))}/{image}"]
    for severity in range(1, 6):
        ours = as_medmnist_c(name, pixels_of(image), severity)
        assert apart(ours, theirs[severity - 1]).max() <= (name in ("gaussian-blur", "pixelate"))


@pytest.mark.parametrize("name", ["gaussian-blur", "motion-blur", "defocus"])
def test_our_own_mode_keeps_what_the_reference_cuts(name):
    """Half a gray level on average, and never more than one; the largest disks of the reference sum to more than 1."""
    images = pixels_of("phantom64")
    for severity in (1, 2, 3):
        exact = 255 * apply(name, images[None].float() / 255, severity, draws_of(1))[:, 0]
        lost = exact - as_imagecorruptions(name, images, severity, draws_of(1)).float()
        assert lost.min() > -0.51 and lost.max() < 1.01 and 0.4 < lost.mean() < 0.6


@pytest.mark.parametrize("moments", MOMENTS)
def test_the_random_corruptions_of_imagecorruptions_are_met_in_distribution(moments):
    theirs, severity = moments.split("/")
    name = next(ours for ours, name in THEIR_NAMES.items() if name == theirs)
    draws, measured = 60, MOMENTS[moments]
    pixels = pixels_of("phantom64").expand(draws, -1, -1)
    gray = as_imagecorruptions(name, pixels, int(severity), draws_of(draws)).flatten(1).double()
    ours = {
        "mean": gray.mean(),
        "spatial_std": gray.std(1, correction=0).mean(),
        "frac_0": (gray == 0).double().mean(),
        "frac_255": (gray == 255).double().mean(),
    }
    for what, value in ours.items():
        allowed = measured[what]["tolerance"] + 6 * measured[what]["sd_between_draws"] / draws**0.5
        assert abs(value - measured[what]["value"]) <= allowed, what
    rms = gray.var(0).mean().sqrt()  # about each pixel's own mean
    assert rms == pytest.approx(measured["noise_rms"]["value"], rel=measured["noise_rms"]["relative_tolerance"] + 0.01)


@pytest.mark.parametrize(("name", "severity"), [("gamma", 1), ("gaussian-blur", 0), ("gaussian-blur", 6)])
def test_what_imagecorruptions_does_not_have_is_told(name, severity):
    with pytest.raises(UserError, match=f"no {name} of severity {severity}"):
        as_imagecorruptions(name, pixels_of("phantom64"), severity, draws_of(1))


@pytest.mark.parametrize(("name", "severity"), [("gaussian-noise", 1), ("gamma-up", 6)])
def test_what_medmnist_c_does_not_have_here_is_told(name, severity):
    with pytest.raises(UserError, match="brightness-up, brightness-down, contrast-up"):
        as_medmnist_c(name, pixels_of("phantom64"), severity)
