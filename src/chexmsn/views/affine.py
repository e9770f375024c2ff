"""Rotation, scaling and shifting of the whole image before it is cropped."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from chexmsn.core.draws import Draws
from chexmsn.core.limits import check_limits
from chexmsn.core.shapes import Images


@dataclass(frozen=True, kw_only=True)
class Affine:
    """A random similarity about the image's centre; what comes from outside the image is black.

    The defaults are the published downstream training's (nyuad-cai/CXR-EHR-MSN `train_transforms`,
    which takes the nearest pixel where this interpolates).

    Attributes:
        rotate: largest rotation in degrees, either way.
        scale: range of the magnification.
        shift: largest shift along each axis, as a share of the side.
    """

    rotate: float = 45.0
    scale: tuple[float, float] = (0.85, 1.15)
    shift: float = 0.15

    def __post_init__(self) -> None:
        check_limits(self, "affine", rotate="[0, 180]", scale="(0, inf)", shift="[0, 1)")

    def corruptions(self) -> dict[str, dict[str, object]]:
        """Which corruptions of a stress test it is, and how much of each.

        >>> Affine(scale=(1.0, 1.0), shift=0.0).corruptions()
        {'rotation': {'rotate': 45.0}}
        """
        shown = {"rotation": {"rotate": self.rotate}} if self.rotate else {}
        if self.scale != (1.0, 1.0):
            shown["scale"] = {"scale": list(self.scale)}
        return shown | ({"shift": {"shift": self.shift}} if self.shift else {})


def move(images: Images, affine: Affine, draws: Draws) -> Images:
    """Rotate, scale and shift each image by its own draw, bilinearly."""
    height, width = images.shape[2:]
    turn, zoom, right, down = draws.uniform(4).T
    angle = math.radians(affine.rotate) * (2 * turn - 1)
    # grid_sample asks where each output pixel comes from, so this is the inverse map: shift back, then turn and shrink.
    cos, sin = angle.cos(), angle.sin()
    factor = 1 / (affine.scale[0] + (affine.scale[1] - affine.scale[0]) * zoom)
    x, y = 2 * affine.shift * (2 * right - 1), 2 * affine.shift * (2 * down - 1)  # the side is 2 in grid units
    linear = torch.stack([cos, sin * (height / width), -sin * (width / height), cos]).T.reshape(-1, 2, 2)
    linear = linear * factor[:, None, None]
    offset = -(linear * torch.stack([x, y], dim=1).unsqueeze(1)).sum(dim=2, keepdim=True)
    with torch.autocast(images.device.type, enabled=False):  # half precision would move pixels by whole ones
        grid = nn.functional.affine_grid(torch.cat([linear, offset], dim=2), list(images.shape), align_corners=False)
        return nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
