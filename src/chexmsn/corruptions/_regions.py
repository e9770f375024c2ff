"""Missing regions: which patches of an image stay, and what fills those that do not.

Removing the tokens of a patch shows a transformer nothing it has not seen; filling its pixels works
for every network and is far harsher. Black means air on a radiograph and imitates a pneumothorax or
hyperinflation; a mean gray is neutral. Compare models under one mechanism only.
"""

from decimal import Decimal
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Images, Kept

Fill = Literal["black", "image-mean", "dataset-mean"]


def kept_count(patches: int, ratio: float) -> int:
    """floor(patches (1 - ratio)), exact for the ratio as it is written.

    MSN and MAE compute it in floating point, where 100 patches at 0.9 keep 9 instead of 10; a method
    that follows its authors to the patch counts for itself. At the 196 patches of 224 px both agree.
    Raises UserError for a ratio outside [0, 1) and where no patch would stay.

    >>> kept_count(196, 0.7), kept_count(100, 0.9)
    (58, 10)
    """
    if not 0 <= ratio < 1:
        raise UserError(f"the share of patches dropped must lie in [0, 1), not {ratio}: choose for example 0.5")
    kept = int(patches * (1 - Decimal(str(ratio))))
    if kept == 0:
        raise UserError(f"a share of {ratio} dropped leaves none of {patches} patches: choose a smaller share or patch")
    return kept


def kept_patches(draws: Draws, patches: int, ratio: float) -> Kept:
    """The patches that stay, `B x kept_count`, drawn per image and in random order.

    Nested: what stays at a higher ratio is among what stays at a lower one, given the same draws.
    Raises UserError as `kept_count` does.
    """
    return draws.permutation(patches)[:, : kept_count(patches, ratio)]


def fill_patches(images: Images, kept: Kept, patch: int, fill: Fill, dataset_mean: float) -> Images:
    """Replace the pixels of all patches (squares of `patch` pixels, numbered row by row) that are not kept.

    `fill` is black (0), the image's own mean, or `dataset_mean`, the mean of the training pixels, in
    [0, 1] as the image. Raises UserError where a side of the image is not a multiple of the patch.
    """
    height, width = images.shape[2:]
    if height % patch or width % patch:
        raise UserError(
            f"image sides must be multiples of the patch of {patch} px, not {height} x {width}: resize first"
        )
    return torch.where(_shown(kept, height // patch, width // patch, patch), images, _value(images, fill, dataset_mean))


def _shown(kept: Kept, rows: int, columns: int, patch: int) -> Bool[Tensor, "B 1 H W"]:
    shown = torch.zeros(len(kept), rows * columns, dtype=torch.bool, device=kept.device).scatter_(1, kept, True)
    grid = shown.view(-1, 1, rows, columns)
    return grid.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def _value(images: Images, fill: Fill, dataset_mean: float) -> Float[Tensor, "B 1 1 1"]:
    if fill == "image-mean":
        return images.mean(dim=(2, 3), keepdim=True)
    return images.new_full((len(images), 1, 1, 1), dataset_mean if fill == "dataset-mean" else 0.0)
