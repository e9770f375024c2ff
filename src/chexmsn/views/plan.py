"""The plan of views: which crops of an image a method is shown, and how they are changed.

MSN's plan is one target and one anchor of 224 px that show 0.3 to 1.0 of the image, and ten focal
anchors of 96 px that show 0.05 to 0.3 (facebookresearch/msn `make_transforms`). Every decision
about a view depends on its image's key, its group's name and its number alone.
"""

from collections import Counter
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.shapes import Images
from chexmsn.views.affine import Affine, move
from chexmsn.views.crops import Boxes, central_boxes, flip, random_boxes, resize_boxes
from chexmsn.views.intensity import Blur, Jitter, blur, jitter

EVALUATED_SHARE = 224 / 256
"""The share of the side that the published evaluation sees: 256 px on the short side, of which the central 224."""


@dataclass(frozen=True, kw_only=True)
class ViewGroup:
    """Equally sized views of one image.

    Attributes:
        name: names the draws: the same name gives the same views in every plan.
        count: how many views.
        size: their side in pixels.
        scale: range of the area shown, as shares of the image; None shows the part that evaluation sees.
        ratio: range of the aspect ratio (width over height) of the area shown.
        flip: probability of a horizontal flip.
        affine: rotation, scaling and shift of the image before it is cropped.
        jitter: change of intensities.
        blur: Gaussian blur, last.
    """

    name: str
    count: int
    size: int
    scale: tuple[float, float] | None = (0.3, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    affine: Affine | None = None
    jitter: Jitter | None = None
    blur: Blur | None = None

    def __post_init__(self) -> None:
        of = f"view group {self.name!r}"
        check_limits(self, of, count="[1, inf)", size="[1, inf)", scale="(0, 1]", ratio="(0, inf)", flip="[0, 1]")

    def corruptions(self) -> list[dict[str, object]]:
        """Which corruptions of a stress test these views show, by the names of `chexmsn.corruptions`; ready for JSON.

        >>> ViewGroup(name="crop", count=1, size=224, flip=0.5).corruptions()
        [{'corruption': 'flip', 'views': 'crop', 'probability': 0.5}]
        """
        shown = {"flip": {"probability": self.flip}} if self.flip else {}
        for change in filter(None, (self.affine, self.jitter, self.blur)):
            shown |= change.corruptions()
        return [{"corruption": name, "views": self.name, **how} for name, how in shown.items()]


ViewPlan = tuple[ViewGroup, ...]
Views = Float[Tensor, "_ 1 _ _"]
"""Images of a size of their own."""


def make_views(images: Images, plan: ViewPlan, draws: Draws) -> list[Views]:
    """Cut and change the views of a plan.

    Returns one tensor per group, view-major: row `v * B + i` is view v of image i, in [0, 1]. An image
    gets the same views in whatever batch it comes. Raises UserError for a plan with two groups of one name.
    """
    twice = [name for name, times in Counter(group.name for group in plan).items() if times > 1]
    if twice:
        raise UserError(
            f"groups of views need names of their own, not {twice[0]!r} twice: they would be the same views"
        )
    return [_group_views(images, group, draws) for group in plan]


def _group_views(images: Images, group: ViewGroup, draws: Draws) -> Views:
    each = Draws(draws.streams(f"view {group.name}", group.count).flatten())  # row b * V + v, as the crops take it
    if group.affine:
        images = move(images.repeat_interleave(group.count, dim=0), group.affine, each.stream("affine"))
    views = resize_boxes(images, _boxes(images, group, each), group.size)
    if group.jitter:
        views = jitter(views, group.jitter, each.stream("jitter"))
    if group.blur:
        views = blur(views, group.blur, each.stream("blur"))
    return views.unflatten(0, (-1, group.count)).transpose(0, 1).flatten(0, 1)


def _boxes(images: Images, group: ViewGroup, each: Draws) -> Boxes:
    height, width = images.shape[2:]
    if group.scale is None:
        boxes = central_boxes(len(each.keys), height, width, EVALUATED_SHARE, images.device)
    else:
        boxes = random_boxes(each.stream("crop"), height, width, group.scale, group.ratio)
    flipped = each.stream("flip").uniform(1)[:, 0] < group.flip
    return Boxes(boxes.rows, flip(boxes.columns, flipped))


def evaluation_view(images: Images, size: int, shown: float = EVALUATED_SHARE) -> Float[Tensor, "B 1 size size"]:
    """The central 224/256 of the side, or another share, resized to `size`: what the published evaluation sees.

    Where that is a slice of the image (256 to 224, 128 to 112), it is exactly that slice. Raises
    UserError for a size below 1.

    >>> import torch
    >>> evaluation_view(torch.rand(2, 1, 256, 256), 224).shape
    torch.Size([2, 1, 224, 224])
    """
    if size < 1:
        raise UserError(f"the size of a view must be at least 1, not {size}: choose for example 224")
    height, width = images.shape[2:]
    if min(height, width) * shown == size and (height - size) % 2 == (width - size) % 2 == 0:
        top, left = (height - size) // 2, (width - size) // 2
        return images[:, :, top : top + size, left : left + size]
    return resize_boxes(images, central_boxes(len(images), height, width, shown, images.device), size)
