"""Poisson (shot) noise: clip(Poisson(c v) / c), drawn per pixel, c quanta at white.

Cause: few X-ray quanta. A caricature of it: here the noise grows with brightness, while in a
radiograph the bright, dense regions receive the fewest quanta; and severity 1 already corresponds to
less than a thousandth of a clinical dose.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`: c = 60, 25, 12, 5, 3.
Level: 1 / c, what one quantum adds as a share of the display range, so that 0 is the identity and the
variance, v / c, grows in proportion to the level. At 224 px, a pixel of a 430 mm field is 1.9 mm wide and
collects the quanta of about a hundred detector pixels.
"""

from math import ceil, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Poisson noise"
CAUSE = "few X-ray quanta: low dose, thick patients"
SOURCE = "ImageNet-C (shot noise), Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "share of the display range per quantum"
LEVELS = (1 / 60, 1 / 25, 1 / 12, 1 / 5, 1 / 3)
IDENTITY = 0.0
_FINEST = 1e-9  # a billion quanta at white: finer ones make a thousandth of a gray level
_TERMS = 36
_MANY = 12.0  # of a rate below it, more than 36 quanta come with a chance of 1e-8


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Replace each value by a count of quanta that are worth `level` each; a level of 0 leaves it as it is."""
    quantum = level.clamp(min=_FINEST)[:, None, None, None]
    numbers, rates = draws.uniform_field(images.shape[1:]), images / quantum
    if images.device.type == "cpu":  # one image after the other stays in the cache, and its level can be read
        parts = zip(numbers, rates, (1 / quantum).flatten().tolist(), strict=True)
        counts = torch.stack([_few(n, rate, ceil(at)) if at <= _TERMS else _any(n, rate) for n, rate, at in parts])
    else:
        counts = _any(numbers, rates)
    noisy = counts.mul_(quantum).clamp_(0.0, 1.0)  # the expansion falls below 0 at the lowest numbers
    return torch.where(level[:, None, None, None] > _FINEST, noisy, images)


def _few(number: Float[Tensor, "*S"], rate: Float[Tensor, "*S"], terms: int) -> Float[Tensor, "*S"]:
    """The count whose cumulative probability first exceeds the number; `terms` where it is that or more.

    As many quanta as make white are enough: what is beyond is cut.
    """
    probability = torch.exp(-rate)
    left = number - probability
    count, none, reached = torch.zeros_like(rate), torch.zeros_like(rate), torch.empty_like(rate)
    for term in range(1, terms + 1):
        count += torch.ge(left, none, out=reached)  # as a fraction: a truth value would have to be converted
        left -= probability.mul_(rate).mul_(1 / term)
    return count


def _any(number: Float[Tensor, "*S"], rate: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    return torch.where(rate < _MANY, _few(number, rate, _TERMS), _many(number, rate.clamp(min=_MANY)))


def _many(number: Float[Tensor, "*S"], rate: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The count of a high rate by the expansion of the inverse about the normal (Giles 2016, doi 10.1145/2699466).

    Cumulative probabilities are met within 2e-4 from a rate of 12 on.
    """
    normal = (2 * number - 1).clamp_(min=-1 + 2**-24).erfinv_().mul_(sqrt(2))
    square, root = normal**2, rate.sqrt()
    return (rate + root * normal + (square / 6 + 1 / 3) - normal * (square / 72 + 1 / 36) / root).floor_()
