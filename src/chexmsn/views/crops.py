"""Where a view is cut from its image, and its resizing."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from chexmsn.core.bands import Stretch, filter_images, triangle_bands
from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TRIES = 10


class Boxes(NamedTuple):
    """One box per view: the rows and the columns it takes from the image."""

    rows: Stretch
    columns: Stretch


def random_boxes(
    draws: Draws, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Boxes:
    """Boxes of whole pixels, drawn as torchvision's RandomResizedCrop draws them.

    Area uniform in `scale` (shares of the image), width over height log-uniform in `ratio`, position
    uniform. Of ten tries the first that fits the image is taken, else the largest central box with
    an aspect ratio in range.
    """
    numbers = draws.uniform(2 * TRIES + 2).double()  # float64: rounding to pixels falls alike in every batch
    area = height * width * (scale[0] + (scale[1] - scale[0]) * numbers[:, :TRIES])
    aspect = ratio[0] * (ratio[1] / ratio[0]) ** numbers[:, TRIES : 2 * TRIES]
    heights, widths = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    largest_height, largest_width = _largest(height, width, ratio)
    return Boxes(
        _place(heights, fits, numbers[:, -2], height, largest_height),
        _place(widths, fits, numbers[:, -1], width, largest_width),
    )


def _place(
    lengths: Float64[Tensor, "R T"], fits: Bool[Tensor, "R T"], position: Float64[Tensor, "R"], side: int, fallback: int
) -> Stretch:
    first_fit = fits.int().argmax(dim=1, keepdim=True)
    length = torch.where(fits.any(dim=1), lengths.gather(1, first_fit)[:, 0], float(fallback))
    free = side - length
    start = torch.where(fits.any(dim=1), position * (free + 1), free / 2).floor()
    return Stretch(start, length, first=start, last=start + length)


def _largest(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def central_boxes(count: int, height: int, width: int, share: float, device: torch.device) -> Boxes:
    """The central square whose side is a share of the shorter side; fractions of a pixel allowed."""
    length = torch.full((count,), share * min(height, width), dtype=torch.float64, device=device)
    zero = torch.zeros_like(length)
    return Boxes(*(Stretch((side - length) / 2, length, zero, zero + side) for side in (height, width)))


def flip(columns: Stretch, flipped: Bool[Tensor, "R"]) -> Stretch:
    """The same columns, read from right to left where `flipped`."""
    start, length, first, last = columns
    return Stretch(torch.where(flipped, start + length, start), torch.where(flipped, -length, length), first, last)


def resize_boxes(images: Images, boxes: Boxes, size: int) -> Float[Tensor, "R 1 size size"]:
    """Cut R boxes out of B images and resize them, antialiased, to `size`; R = B V, row b V + v from image b."""
    rows = triangle_bands(boxes.rows, side=images.shape[2], size=size)
    columns = triangle_bands(boxes.columns, side=images.shape[3], size=size)
    return filter_images(rows, images, columns).clamp_(0.0, 1.0)
