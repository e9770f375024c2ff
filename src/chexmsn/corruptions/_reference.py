"""Reference mode: the 8-bit pixels of imagecorruptions and of MedMNIST-C, for whoever must reproduce published numbers.

Both libraries cut to whole gray levels where this project keeps fractions, which darkens by half a level on
average, and both do so again in the middle of some corruptions. Levels are theirs; draws are ours, because theirs
follow global generators or none that can be set.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load
from chexmsn.core.shapes import Images
from chexmsn.corruptions import defocus, glass_blur, jpeg, pixelate
from chexmsn.corruptions._convolution import correlate
from chexmsn.corruptions._severity import apply

GrayLevels = UInt8[Tensor, "B H W"]


def as_imagecorruptions(name: str, pixels: GrayLevels, severity: int, draws: Draws) -> GrayLevels:
    """What `bethgelab/imagecorruptions` makes of gray images, at severity 1 to 5.

    Deterministic corruptions are equal within a gray level (zoom blur: in 99 % of the pixels away from the edge),
    the random ones in distribution. Its noises differ between the three channels of a gray image; these are one
    channel. Raises UserError for an unknown corruption and for one that is not of ImageNet-C.

    >>> pixels, draws = torch.full((1, 8, 8), 100, dtype=torch.uint8), Draws(torch.tensor([1]))
    >>> as_imagecorruptions("brightness", pixels, 1, draws).unique()
    tensor([125], dtype=torch.uint8)
    """
    corruption = load("chexmsn.corruptions", name)
    if corruption.FAMILY != "imagenet-c" or severity not in range(1, 6):
        raise UserError(f"imagecorruptions has no {name} of severity {severity}: take an ImageNet-C one of 1 to 5")
    level = corruption.LEVELS[severity - 1]
    if corruption is pixelate:
        return _pixelated(pixels, level)
    if corruption is defocus:
        return _defocused(pixels, level)
    if corruption is glass_blur:
        return _through_glass(pixels, level, draws.stream(corruption.__name__))
    return _cut(apply(name, _images(pixels), severity, draws))


def as_medmnist_c(name: str, pixels: GrayLevels, severity: int) -> GrayLevels:
    """What MedMNIST-C's ChestMNIST settings make of gray images, at severity 1 to 5: its corruptions without draws.

    Its noises are not offered: it averages three draws of a gray image into one, in effect other levels than it
    names. Raises UserError for another name, with those there are.

    >>> as_medmnist_c("brightness-up", torch.full((1, 8, 8), 100, dtype=torch.uint8), 1).unique()
    tensor([110], dtype=torch.uint8)
    """
    if name not in MEDMNIST_C or severity not in range(1, 6):
        raise UserError(f"there is no {name!r} of severity {severity} here: take 1 to 5 of {', '.join(MEDMNIST_C)}")
    corrupt, levels = MEDMNIST_C[name]
    return corrupt(pixels, levels[severity - 1])


def _images(pixels: GrayLevels) -> Images:
    return pixels.unsqueeze(1).float().div_(255)


def _cut(images: Images) -> GrayLevels:
    return images.mul(255).add_(1e-4).to(torch.uint8)[:, 0]  # a whole level must not become the next lower one


def _rounded(images: Images) -> Images:
    return images.mul(255).add_(0.5 + 1e-4).floor_().div_(255)


def _pixelated(pixels: GrayLevels, scale: float) -> GrayLevels:
    """Pillow resizes along the rows, rounds, and then along the columns."""
    images, level = _prepared(pixels, scale)
    rows, columns = (pixelate.cells(level, side)[:, None] for side in images.shape[2:])
    return _cut(_rounded(rows @ _rounded(images @ columns.mT)))


def _defocused(pixels: GrayLevels, radius: float) -> GrayLevels:
    """The disk is smoothed within a square that the larger ones touch: mirrored there, they sum to more than 1."""
    images, level = _prepared(pixels, radius)
    smooth = _gaussians(level.new_full((1,), 0.1 if radius == defocus.LEVELS[0] else 0.5), reach=2)
    disk = defocus.disks(level[:1], max(8, int(radius)))
    kernel = correlate(disk[:, None], smooth, (2, 2), "mirror")[:, 0]
    return _cut(correlate(images, kernel.expand(len(images), -1, -1), (kernel.shape[1] // 2,) * 2, "mirror"))


def _through_glass(pixels: GrayLevels, sigma: float, draws: Draws) -> GrayLevels:
    images, level = _prepared(pixels, sigma)
    blurred = _images(_cut(glass_blur.blurred(images, level)))
    return _cut(glass_blur.blurred(glass_blur.shuffled(blurred, level, draws), level))


def _multiplied(pixels: GrayLevels, factor: float) -> GrayLevels:
    return pixels.float().mul(factor).clamp_(max=255).to(torch.uint8)


def _stretched(pixels: GrayLevels, factor: float) -> GrayLevels:
    mean = pixels.float().mean(dim=(1, 2), keepdim=True).add_(0.5).floor_()
    return (mean + factor * (pixels - mean)).clamp_(0, 255).to(torch.uint8)


def _with_gamma(pixels: GrayLevels, exponent: float) -> GrayLevels:
    return pixels.div(255).pow_(exponent).mul_(255.999).to(torch.uint8)


def _coded(pixels: GrayLevels, quality: float) -> GrayLevels:
    return _cut(jpeg.corrupt(*_prepared(pixels, quality), _NONE))


def _blurred(pixels: GrayLevels, taps: float) -> GrayLevels:
    """OpenCV's kernels of few taps: sigma follows from their number, and the image is mirrored."""
    images, level = _prepared(pixels, 0.15 * taps + 0.35)
    reach = int(taps) // 2
    return _cut(_rounded(correlate(images, _gaussians(level, reach), (reach, reach), "mirror")))


def _prepared(pixels: GrayLevels, level: float) -> tuple[Images, Float[Tensor, "B"]]:
    return _images(pixels), torch.full((len(pixels),), level, device=pixels.device)


def _gaussians(sigma: Float[Tensor, "B"], reach: int) -> Float[Tensor, "B K K"]:
    tap = torch.arange(-reach, reach + 1, device=sigma.device)
    weight = torch.exp(-0.5 * (tap / sigma[:, None]) ** 2)
    weight = weight / weight.sum(dim=1, keepdim=True)
    return weight[:, :, None] * weight[:, None]


_NONE = Draws(torch.zeros(0, dtype=torch.int64))

_UP, _DOWN = (1.1, 1.2, 1.3, 1.4, 1.6), (0.9, 0.8, 0.7, 0.6, 0.4)

MEDMNIST_C: dict[str, tuple[Callable[[GrayLevels, float], GrayLevels], tuple[float, ...]]] = {
    "brightness-up": (_multiplied, (1.1, 1.2, 1.3, 1.4, 1.5)),
    "brightness-down": (_multiplied, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "contrast-up": (_stretched, _UP),
    "contrast-down": (_stretched, _DOWN),
    "gamma-up": (_with_gamma, _UP),
    "gamma-down": (_with_gamma, _DOWN),
    "gaussian-blur": (_blurred, (3.0, 5.0, 7.0, 9.0, 11.0)),
    "jpeg": (_coded, (50.0, 30.0, 15.0, 10.0, 7.0)),
    "pixelate": (_pixelated, (0.3, 0.25, 0.2, 0.15, 0.1)),
}
"""MedMNIST-C's corruptions of chest radiographs that draw nothing, and their levels (of the blur: taps)."""
