"""Markers: letters and words in white near the image's border.

Cause: lead letters for the side, words burned in by the modality or at export; every department has its own, and
models learn them.
Source: confounding by site, Zech et al. 2018, PLoS Med, and shortcuts of COVID models, DeGrave et al. 2021 (both
general knowledge). Ladder: ours. Word, height (2 to 6 % of the long side; long words less), one of eight places and
its surroundings are drawn; the letter says nothing of the true side.
Level: how many; of a broken number the last is faint. What is there at a mild level is there at a stronger one. At
224 px, letters are up to 13 pixels high, 26 mm of a 430 mm field.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.bands import filter_images
from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._coverage import covered, painted, present
from chexmsn.corruptions._lettering import HEIGHT, word_pictures

TITLE = "Markers and text"
CAUSE = "lead letters and burned-in words, each department's own"
SOURCE = "Zech et al. 2018, DeGrave et al. 2021 (general knowledge); ladder ours"
FAMILY = "radiographic"
UNIT = "number of markers"
LEVELS = (1.0, 2.0, 4.0, 6.0, 8.0)
IDENTITY = 0.0
WORDS = ("L", "R", "AP", "PA", "ERECT", "SUPINE", "PORTABLE", "12:47", "L 2", "R 10")
_PLACES = 8
_WIDEST = 0.2  # share of the long side


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Write `level` markers on each image."""
    order = torch.arange(_PLACES, device=level.device).float().expand(len(level), -1)
    there = present(level, order)[:, :, None, None]
    return painted(images, (written(images, draws) * there).amax(dim=1, keepdim=True), 1.0)


def written(images: Images, draws: Draws) -> Float[Tensor, "B 8 H W"]:
    """The ink of eight markers in the order in which they come, each in a place of its own."""
    height, width = images.shape[2:]
    long = max(height, width)
    which, tall, right, down = draws.uniform(4 * _PLACES).view(-1, 4, _PLACES).transpose(0, 1).flatten(1)
    words = word_pictures(WORDS, images.device)[(which * len(WORDS)).long()]
    dots = torch.arange(words.shape[3], device=images.device)
    length = (words.amax(dim=2)[:, 0] * (dots + 1)).amax(dim=1)
    dot = torch.minimum((0.02 + 0.04 * tall) * long / HEIGHT, _WIDEST * long / length)
    across, along = _border(draws.stream("places"))
    x = width * (0.12 + 0.76 * across + 0.03 * (right - 0.5))
    y = height * (0.06 + 0.88 * along + 0.04 * (down - 0.5))
    columns = _pixels_of_dots(x, length, dot, len(dots), width)
    rows = _pixels_of_dots(y, torch.full_like(y, HEIGHT), dot, HEIGHT, height)
    return filter_images(rows, words, columns).view(-1, _PLACES, height, width).clamp_(0.0, 1.0)


def _border(draws: Draws) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Corners and middles of the edges in random order, one per marker: shares of width and height."""
    place = draws.permutation(_PLACES).flatten()
    place = place + (place >= _PLACES // 2)  # of nine fields the one in the middle stays free
    return place % 3 / 2, place // 3 / 2


def _pixels_of_dots(
    centre: Float[Tensor, "R"], length: Float[Tensor, "R"], dot: Float[Tensor, "R"], dots: int, side: int
) -> Float[Tensor, "R side dots"]:
    """Matrices that place dots, `length` of them about a centre, upon the pixels of an axis."""
    start = (centre - length * dot / 2)[:, None] + torch.arange(dots, device=centre.device) * dot[:, None]
    return covered(start, start + dot[:, None], side).mT
