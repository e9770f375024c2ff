"""Edges that need not lie between pixels: what is covered of a pixel, so that areas are exact and levels continuous."""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.shapes import Images


def covered(low: Float[Tensor, "*n"], high: Float[Tensor, "*n"], side: int) -> Float[Tensor, "*n {side}"]:
    """The share of each pixel of an axis that lies between two places; pixel i covers [i, i + 1).

    >>> covered(torch.tensor([0.5]), torch.tensor([2.25]), 4)
    tensor([[0.5000, 1.0000, 0.2500, 0.0000]])
    """
    pixel = torch.arange(side, device=low.device)
    return (torch.minimum(high[..., None], pixel + 1) - torch.maximum(low[..., None], pixel)).clamp(min=0.0)


def present(count: Float[Tensor, "B"], order: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    """Which things are there when `count` of them are, the first in `order` first; of a broken count the last in part.

    >>> present(torch.tensor([1.25]), torch.tensor([[2.0, 0.0, 1.0]]))
    tensor([[0.0000, 1.0000, 0.2500]])
    """
    return (count[:, None] - order).clamp(0.0, 1.0)


def painted(images: Images, cover: Float[Tensor, "B 1 #H #W"], value: Float[Tensor, "B 1 1 1"] | float) -> Images:
    """A gray level laid over each image as far as a pixel is covered."""
    return images + cover * (value - images)
