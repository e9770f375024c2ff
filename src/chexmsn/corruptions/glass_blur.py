"""Glass blur: pixels change places with near ones between two Gaussian blurs.

Cause: structured glass, dirt or pressure marks between a film or screen and the camera.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), as `bethgelab/imagecorruptions` implements it.
There a pass goes through the pixels from the lower right corner and is meant to swap each with one drawn near it;
on colour images, which gray ones are made into, the pixel takes the other's value and the other keeps it. Hence a
pixel's new value is found by going from pixel to pixel as drawn until one comes that the pass has not reached yet;
here all these walks are taken at once.
Level: standard deviation of the blurs in pixels. Reach d = 1, 2, 2, 3, 4 pixels (-d to d - 1) and passes 2, 1, 3,
2, 2 are interpolated as the level is: of the last pass a share of the pixels, and of the reach the next whole
number. No level may exceed that of severity 5. At 224 px, a pixel of a 430 mm field is 1.9 mm wide.
"""

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from chexmsn.core.bands import gaussian_blur
from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._severity import distinct, interpolated

TITLE = "Glass blur"
CAUSE = "structured glass, dirt and pressure marks before the film"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261; imagecorruptions' version"
FAMILY = "imagenet-c"
UNIT = "standard deviation in pixels"
LEVELS = (0.7, 0.9, 1.0, 1.1, 1.5)
IDENTITY = 0.0
_REACH = (0.0, 1.0, 2.0, 2.0, 3.0, 4.0)  # at severities 0 to 5
_PASSES = (0.0, 2.0, 1.0, 3.0, 2.0, 2.0)
_DOUBLINGS = 6  # a walk goes on with a chance of about one half: one in 2 ** 64 is longer than 2 ** 6 pixels


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blur by `level` pixels, shuffle, blur again."""
    return blurred(shuffled(blurred(images, level), level, draws), level)


def shuffled(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """The shuffle alone."""
    passes = interpolated(level, (IDENTITY, *LEVELS), _PASSES)
    reach = interpolated(level, (IDENTITY, *LEVELS), _REACH).ceil()
    numbers = draws.uniform_field((int(max(_PASSES)), *images.shape[2:]))
    # On a CPU one image after the other: a batch leaves the cache, and takes twice as long.
    at_once = 1 if images.device.type == "cpu" else len(images)
    parts = zip(*(whole.split(at_once) for whole in (images, numbers, reach, passes)), strict=True)
    return torch.cat([_shuffled(*part) for part in parts])


def _shuffled(
    images: Images, numbers: Float[Tensor, "B P H W"], reach: Float[Tensor, "B"], passes: Float[Tensor, "B"]
) -> Images:
    source = torch.arange(images.numel(), dtype=torch.int32, device=images.device)
    for number, chosen in enumerate(numbers.unbind(1)):
        source = source.index_select(0, _pass(chosen, reach, passes - number))
    return images.flatten().index_select(0, source).view(images.shape)


def blurred(images: Images, level: Float[Tensor, "B"]) -> Images:
    """One of the two blurs alone."""
    return gaussian_blur(images, distinct(level), LEVELS[-1])


def _pass(
    number: Float[Tensor, "B H W"], reach: Float[Tensor, "B"], share: Float[Tensor, "B"]
) -> Int32[Tensor, "B*H*W"]:
    """Where each pixel of the batch takes its value from."""
    batch, height, width = number.shape
    reach, share = reach[:, None, None], share[:, None, None]
    rows, columns = (_visited(side, reach) for side in (height, width))
    # One number says it all: its integer part the row, that of the rest the column, the rest whether the pixel moves.
    number = number * (2 * reach)
    down = number.floor()
    number = (number - down) * (2 * reach)
    right = number.floor()
    moves = (number - right < share) & rows.mT & columns
    step = torch.where(moves, (down - reach) * width + (right - reach), 0.0).int().flatten()
    here = torch.arange(batch * height * width, dtype=torch.int32, device=number.device)
    # A pixel further on in memory has its new value already: the walk goes on from there, twice as far each time.
    end = here + step.clamp(min=0)
    for _ in range(_DOUBLINGS):
        end = end.index_select(0, end)
    return (here + step).index_select(0, end)


def _visited(side: int, reach: Float[Tensor, "B 1 1"]) -> Bool[Tensor, "B 1 side"]:
    """The positions along an axis that a pass comes by."""
    position = torch.arange(side, device=reach.device)
    return (position > reach) & (position <= side - reach)
