"""Missing regions: which patches of an image stay, and what fills those that do not.

Removing the tokens of a patch shows a transformer nothing it has not seen; filling its pixels works
for every network and is far harsher. Black means air on a radiograph and imitates a pneumothorax or
hyperinflation; a mean gray is neutral. Compare models under one mechanism only.

Every pattern is an order in which the patches of an image go, so masks are nested whatever the pattern. Random
dropping is that of MSN and MAE; Naseer et al. 2021 (arXiv 2105.10497) drop salient and non-salient patches.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from chexmsn.core.bands import gaussian_blur
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Images, Kept
from chexmsn.corruptions._known import NOTHING_KNOWN, Known

Fill = Literal["black", "image-mean", "dataset-mean", "noise", "blur"]
Pattern = Literal["random", "block", "salient", "non-salient", "inside", "outside"]

FILLS: tuple[Fill, ...] = get_args(Fill)
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)

Order = Int64[Tensor, "B N"]
"""The patches of each image (squares numbered row by row), the one that stays longest first."""


@torch.compiler.assume_constant_result
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


def kept_in(
    pattern: Pattern, images: Images, patch: int, ratio: float, draws: Draws, known: Known = NOTHING_KNOWN
) -> Kept:
    """The patches that stay, `B x kept_count`, where they go in a pattern:

    - random: as `kept_patches`.
    - block: one contiguous block around a place that is drawn, a square as far as the image reaches.
    - salient, non-salient: by the mean of `known.saliency` in the patch, the highest or the lowest first.
    - inside, outside: at random those that `known.anatomy` covers by half or more first, or last.

    Always the same number goes, and nested: the share is that of all patches, so what lies outside the anatomy begins
    to go once nothing inside is left. Raises UserError as `kept_count` does, for sides that are no multiple of the
    patch, and for a pattern that needs what is not known.
    """
    rows, columns = _grid(images, patch)
    count = kept_count(rows * columns, ratio)
    if pattern == "random":
        order = draws.permutation(rows * columns)
    elif pattern == "block":
        order = _far_first(draws, rows, columns)
    else:
        highest_first = pattern in ("salient", "inside")
        order = _by_value(draws, _value(pattern, images, patch, known), highest_first)
    return order[:, :count]


def _far_first(draws: Draws, rows: int, columns: int) -> Order:
    """The patches by their distance from a place, along the farther axis, then along the nearer: all blocks connect."""
    place = draws.uniform(2)
    sides = zip((rows, columns), place.T, strict=True)
    down, across = (((torch.arange(n, device=place.device) + 0.5) - n * at[:, None]).abs() for n, at in sides)
    both = torch.stack(torch.broadcast_tensors(down[:, :, None], across[:, None, :])).flatten(2)
    by_nearer = both.amin(dim=0).argsort(dim=1, descending=True, stable=True)
    by_farther = both.amax(dim=0).gather(1, by_nearer).argsort(dim=1, descending=True, stable=True)
    return by_nearer.gather(1, by_farther)


def _by_value(draws: Draws, value: Float[Tensor, "B N"], highest_first: bool) -> Order:
    """The patches by a value, of which the highest or the lowest go first; a draw decides between equal ones."""
    drawn = draws.permutation(value.shape[1])
    return drawn.gather(1, value.gather(1, drawn).argsort(dim=1, descending=not highest_first, stable=True))


def _value(pattern: Pattern, images: Images, patch: int, known: Known) -> Float[Tensor, "B N"]:
    needed = "anatomy" if pattern in ("inside", "outside") else "saliency"
    field = getattr(known, needed)
    if field is None:
        raise UserError(f"the pattern {pattern!r} needs the {needed} of each image, which is not known")
    share = torch.nn.functional.avg_pool2d(field.float(), patch).flatten(1)
    return (share >= 0.5).float() if needed == "anatomy" else share


def _grid(images: Images, patch: int) -> tuple[int, int]:
    height, width = images.shape[2:]
    if height % patch or width % patch:
        raise UserError(
            f"image sides must be multiples of the patch of {patch} px, not {height} x {width}: resize first"
        )
    return height // patch, width // patch


def fill_patches(images: Images, kept: Kept, patch: int, fill: Fill, draws: Draws, dataset_mean: float) -> Images:
    """Replace the pixels of all patches (squares of `patch` pixels, numbered row by row) that are not kept, by

    - black: 0.
    - image-mean: the image's own mean.
    - dataset-mean: `dataset_mean`, the mean of the training pixels, in [0, 1] as the image.
    - noise: normal noise per pixel with the image's own mean and standard deviation, cut to [0, 1].
    - blur: the image itself, blurred by a Gaussian whose deviation is the side of a patch: coarse shades stay.

    The noise is one field per image, the same for every share. Raises UserError where a side of the image is not a
    multiple of the patch.
    """
    rows, columns = _grid(images, patch)
    filling = _FILLINGS[fill](images, patch, draws, dataset_mean)
    return torch.where(_shown(kept, rows, columns, patch), images, filling)


def _shown(kept: Kept, rows: int, columns: int, patch: int) -> Bool[Tensor, "B 1 H W"]:
    shown = torch.zeros(len(kept), rows * columns, dtype=torch.bool, device=kept.device).scatter_(1, kept, True)
    grid = shown.view(-1, 1, rows, columns)
    return grid.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


Filling = Float[Tensor, "#B 1 #H #W"]


def _black(images: Images, patch: int, draws: Draws, dataset_mean: float) -> Filling:
    return images.new_zeros(1, 1, 1, 1)


def _image_mean(images: Images, patch: int, draws: Draws, dataset_mean: float) -> Filling:
    return images.mean(dim=(2, 3), keepdim=True)


def _dataset_mean(images: Images, patch: int, draws: Draws, dataset_mean: float) -> Filling:
    return images.new_full((1, 1, 1, 1), dataset_mean)


def _noise(images: Images, patch: int, draws: Draws, dataset_mean: float) -> Filling:
    mean, deviation = images.mean(dim=(2, 3), keepdim=True), images.std(dim=(2, 3), correction=0, keepdim=True)
    return draws.normal_field(images.shape[1:]).mul_(deviation).add_(mean).clamp_(0.0, 1.0)


def _blur(images: Images, patch: int, draws: Draws, dataset_mean: float) -> Filling:
    return gaussian_blur(images, images.new_full((1,), patch), float(patch))


_FILLINGS: Mapping[Fill, Callable[[Images, int, Draws, float], Filling]] = {
    "black": _black,
    "image-mean": _image_mean,
    "dataset-mean": _dataset_mean,
    "noise": _noise,
    "blur": _blur,
}
