"""Resampling and blurring as matrix products.

A separable filter is `rows @ image @ columns.T`. Each output pixel weighs a band of input pixels, so
every image of a batch can have its own crop, flip or blur while the whole batch is two batched
products, on any device. Matrices are `R x out x in` with rows that sum to 1: values stay in range
and a constant image stays constant.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def filter_images(
    rows: Float[Tensor, "R P H"], images: Float[Tensor, "B 1 H W"], columns: Float[Tensor, "R Q W"]
) -> Float[Tensor, "_ 1 P Q"]:
    """Filter each image by its matrices: R = B, or R = B V for V results per image, row b V + v from image b.

    With R = 1 all images have the same. Computed in full precision also under autocast: 8 bits of a radiograph do not
    survive bfloat16.
    """
    results, (height, width) = max(len(rows), len(images)), images.shape[2:]
    with torch.autocast(images.device.type, enabled=False):
        tall = rows.reshape(min(len(rows), len(images)), -1, height)  # the V matrices of an image as one
        return ((tall @ images[:, 0]).reshape(results, -1, width) @ columns.mT).unsqueeze(1)


class Stretch(NamedTuple):
    """A stretch of an axis per image, in pixels; fractions allowed.

    Attributes:
        start: where it begins; pixel i covers [i, i + 1).
        length: how long it is; a negative length runs backwards from `start`: a flip.
        first: the first pixel that may count.
        last: one past the last pixel that may count.
    """

    start: Float[Tensor, "R"]
    length: Float[Tensor, "R"]
    first: Float[Tensor, "R"]
    last: Float[Tensor, "R"]


def triangle_bands(stretch: Stretch, *, side: int, size: int) -> Float[Tensor, "R size side"]:
    """Matrices that resample a stretch of an axis of `side` pixels to `size` pixels.

    The triangle filter, widened to the input's pixels where the axis shrinks: the antialiased
    bilinear resizing of Pillow and torchvision. To resize a crop as torchvision does, the pixels of
    the crop alone count; with all pixels of the axis the filter reaches beyond the stretch, as in
    Pillow's `Image.resize(box=...)`.
    """
    start, length, first, last = (part[:, None, None] for part in stretch)
    step = (length / size).float()
    out = torch.arange(size, device=step.device)[:, None] + 0.5
    pixel = torch.arange(side, device=step.device)
    distance = (pixel + 0.5) - (start.float() + step * out)
    weights = distance.abs_().div_(-step.abs().clamp(min=1.0)).add_(1.0).clamp_(min=0.0)
    weights.mul_((pixel >= first) & (pixel < last))
    return weights.div_(weights.sum(dim=2, keepdim=True))


def gaussian_bands(sigma: Float[Tensor, "R"], *, side: int, largest: float) -> Float[Tensor, "R side side"]:
    """Matrices that blur an axis of `side` pixels by a Gaussian of `sigma` pixels; sigma 0 is the identity.

    No sigma may exceed `largest`, which is told so that no device has to be asked. The kernel is cut at
    four sigmas, rounded to whole pixels, and the edge pixel is repeated, as scipy.ndimage does in mode "nearest".
    """
    radius = (4 * sigma + 0.5).floor()
    reach = int(4 * largest + 0.5)
    tap = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (tap / sigma.clamp(min=1e-6)[:, None]) ** 2) * (tap.abs() <= radius[:, None])
    below = torch.nn.functional.pad(kernel.cumsum(1), (1, 0))  # mass before each tap, the whole at the end
    below = below / below[:, -1:]
    pixel = torch.arange(side, device=sigma.device)
    upper_edge = (pixel[:-1] - pixel[:, None] + reach + 1).clamp(0, 2 * reach + 1)
    # A pixel's weight is the mass between its edges; the outermost pixels take all that lies beyond them.
    return torch.nn.functional.pad(below[:, upper_edge], (1, 0)).diff(dim=2, append=sigma.new_ones(len(sigma), side, 1))


def gaussian_blur(
    images: Float[Tensor, "B 1 H W"], sigma: Float[Tensor, "R"], largest: float
) -> Float[Tensor, "B 1 H W"]:
    """Blur each image in [0, 1] by its own sigma in pixels (R = B) or all by one (R = 1), at most `largest`.

    See `gaussian_bands`.
    """
    bands = {side: gaussian_bands(sigma, side=side, largest=largest) for side in set(images.shape[2:])}
    rows, columns = (bands[side] for side in images.shape[2:])
    return filter_images(rows, images, columns).clamp_(0.0, 1.0)
