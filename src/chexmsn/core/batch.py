"""What the loader hands to the training loop and to the stress test."""

from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from chexmsn.core.shapes import Images, Keys, Labels, Pixels


class Batch(NamedTuple):
    """A batch of pack rows. A tuple, so that pinning and moving to a device need no code of ours."""

    pixels: Pixels
    keys: Keys
    labels: Labels
    rows: Int64[Tensor, "B"]


def to_images(pixels: Pixels) -> Images:
    """Pack pixels (uint8 or uint16, B x S x S) as one-channel float images in [0, 1] (B x 1 x S x S).

    >>> to_images(torch.tensor([[[65535]]], dtype=torch.uint16))
    tensor([[[[1.]]]])
    """
    return pixels.unsqueeze(1).float().div_(torch.iinfo(pixels.dtype).max)
