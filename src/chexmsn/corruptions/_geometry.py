"""Places in an image, in pixels from its centre, and what is fetched from or drawn at them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chexmsn.core.shapes import Images


def places(images: Images) -> tuple[Float[Tensor, "1 1 W"], Float[Tensor, "1 H 1"]]:
    """Where the pixels' centres lie: to the right of the image's centre, and below it."""
    height, width = images.shape[2:]
    right, below = (torch.arange(side, device=images.device) + 0.5 - side / 2 for side in (width, height))
    return right[None, None, :], below[None, :, None]


def fetched(images: Images, right: Float[Tensor, "B #H #W"], below: Float[Tensor, "B #H #W"]) -> Images:
    """Each pixel from its place in the image, bilinearly; black outside: air around a patient, dark around a film."""
    height, width = images.shape[2:]
    # grid_sample counts from -1 at the image's left edge to 1 at its right edge, columns first.
    x, y = (place.expand(-1, height, width) for place in (right * (2 / width), below * (2 / height)))
    grid = torch.stack([x, y], dim=3)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp_(0, 1)


def either_way(chance: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """A sign from a number drawn in [0, 1)."""
    return torch.where(chance < 0.5, -1.0, 1.0)


def waves(
    images: Images, direction: Float[Tensor, "B"], frequency: Float[Tensor, "B"], phase: Float[Tensor, "B"]
) -> Float[Tensor, "B 1 H W"]:
    """Plane sine waves in [-1, 1]: their direction in radians from the rows, cycles per pixel, and phase in cycles."""
    right, below = places(images)
    along = right * direction.cos()[:, None, None] + below * direction.sin()[:, None, None]
    return (2 * math.pi * (frequency[:, None, None] * along + phase[:, None, None])).sin()[:, None]
