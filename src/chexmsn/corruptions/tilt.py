"""Tilt: a projective view of the image as of a picture on a table; around it lies black.

Cause: a film or screen photographed from aside.
Source: CheXphoto (Phillips et al. 2020, arXiv 2007.06199, code read) moves the corners by up to 5 % of the side per
level; ladder ours. The formula from the unit square to a quadrilateral is Heckbert's (1989, Fundamentals of Texture
Mapping). How far each corner of the photograph lies outside the film is drawn.
Level: the farthest that a corner may lie outside, along either axis, as a share of the side. At 224 px, severity 5
is up to 45 pixels.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._geometry import fetched, places

TITLE = "Tilt"
CAUSE = "films and screens photographed from aside"
SOURCE = "CheXphoto, arXiv 2007.06199 (code read); ladder ours"
FAMILY = "radiographic"
UNIT = "farthest move of a corner, share of the side"
LEVELS = (0.04, 0.08, 0.12, 0.16, 0.2)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """See each image from aside, its corners moved by up to `level`."""
    height, width = images.shape[2:]
    outside = (draws.uniform(8) * level[:, None]).view(-1, 2, 4, 1, 1)
    x, y = (Corners(*axis.unbind(1)) for axis in outside.unbind(1))
    right, below = places(images)
    across, down = projected(
        Corners(-x.top_left, 1 + x.top_right, 1 + x.bottom_right, -x.bottom_left),
        Corners(-y.top_left, -y.top_right, 1 + y.bottom_right, 1 + y.bottom_left),
        right / width + 0.5,
        below / height + 0.5,
    )
    return fetched(images, (across - 0.5) * width, (down - 0.5) * height)


class Corners(NamedTuple):
    """One coordinate of the four corners of a quadrilateral, clockwise."""

    top_left: Float[Tensor, "B 1 1"]
    top_right: Float[Tensor, "B 1 1"]
    bottom_right: Float[Tensor, "B 1 1"]
    bottom_left: Float[Tensor, "B 1 1"]


def projected(
    x: Corners, y: Corners, u: Float[Tensor, "1 1 W"], v: Float[Tensor, "1 H 1"]
) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
    """Where the points (u, v) of the unit square lie in the quadrilateral that a projection makes of it."""
    x_right, x_left, x_bent = x.top_right - x.bottom_right, x.bottom_left - x.bottom_right, _bent(x)
    y_right, y_left, y_bent = y.top_right - y.bottom_right, y.bottom_left - y.bottom_right, _bent(y)
    area = x_right * y_left - x_left * y_right
    g, h = (x_bent * y_left - x_left * y_bent) / area, (x_right * y_bent - x_bent * y_right) / area
    depth = g * u + h * v + 1
    return tuple(
        (
            (q.top_right - q.top_left + g * q.top_right) * u
            + (q.bottom_left - q.top_left + h * q.bottom_left) * v
            + q.top_left
        )
        / depth
        for q in (x, y)
    )


def _bent(q: Corners) -> Float[Tensor, "B 1 1"]:
    """How far a quadrilateral is from a parallelogram."""
    return q.top_left - q.top_right + q.bottom_right - q.bottom_left
