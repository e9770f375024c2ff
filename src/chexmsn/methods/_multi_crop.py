"""What methods with two sizes of views share: a few views of most of an image, and small crops of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.corruptions import CorruptionPlan
from chexmsn.methods._base import MethodConfig, check_patches, check_small_side, small_side
from chexmsn.models.encoder import Encoder, EncoderConfig
from chexmsn.views import Blur, Jitter, ViewGroup, ViewPlan


@dataclass(frozen=True, kw_only=True)
class MultiCropConfig(MethodConfig):
    """Which views are cut from an image.

    Attributes:
        global_views: large views per image.
        local_views: small views per image.
        local_size: side of the small ones in pixels; 3/7 of the image size (96 of 224), to whole patches, when empty.
        global_scale: share of the image's area in large views.
        local_scale: share of the image's area in small views.
        flip: probability of a horizontal flip, of every view.
        jitter: intensity jitter of every view.
        blur: Gaussian blur of every view.
        corruption: what the views of the network that is trained are corrupted with.
    """

    global_views: int = 2
    local_views: int = 8
    local_size: int | None = None
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    flip: float = 0.5
    jitter: Jitter | None = field(default_factory=Jitter)
    blur: Blur | None = None
    corruption: CorruptionPlan | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, global_views="[1, inf)", local_views="[0, inf)", local_size="[1, inf)")
        check_limits(self, global_scale="(0, 1]", local_scale="(0, 1]", flip="[0, 1]")
        if self.global_views + self.local_views < 2:
            raise UserError(
                "an image needs a global view and one more to compare it with, "
                f"not {self.global_views} global and {self.local_views} local views: 2 and 8 are usual"
            )

    def plan(self, size: int, patch: int) -> ViewPlan:
        """The views, in groups `global` and `local`. Raises UserError for scales, flips or sizes that make no sense."""
        small = self.local_size or small_side(size, patch)
        groups = (
            ("global", self.global_views, size, self.global_scale),
            ("local", self.local_views, small, self.local_scale),
        )
        return tuple(
            ViewGroup(
                name=name, count=count, size=side, scale=scale, flip=self.flip, jitter=self.jitter, blur=self.blur
            )
            for name, count, side, scale in groups
            if count
        )


def check_multi_crop(method: str, config: MultiCropConfig, encoder: EncoderConfig, size: int) -> None:
    """Raises UserError where the views of an image of this size are not made of whole patches, or cannot be cut."""
    check_patches(method, 0.0, encoder, size)
    for group in config.plan(size, encoder.patch):
        check_small_side(group.name, group.size, encoder.patch, size)


class MultiCropNetwork(nn.Module):
    """An encoder and a head for views of several sizes: one pass of the encoder per size, one of the head for all."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, views: Sequence[Float[Tensor, "_ 1 _ _"]]) -> tuple[Float[Tensor, "N W"], Float[Tensor, "N D"]]:
        """Pooled features of all views in their order, and what the head makes of them."""
        pooled = torch.cat([self.encoder.pool(images).pooled for images in views])
        return pooled, self.head(pooled)
