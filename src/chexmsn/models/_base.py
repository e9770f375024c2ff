"""What an encoder is: its description, what it returns, and what it owes to those who use it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.shapes import Images, Kept


class ViTSize(NamedTuple):
    """Width of a token, number of blocks, attention heads per block."""

    width: int
    depth: int
    heads: int


# Heads are 64 wide throughout. vit_micro is ours, for laptops, tests and the demo; the others are
# the sizes of Dosovitskiy et al. 2021 (arXiv 2010.11929) and Touvron et al. 2021 (arXiv 2012.12877).
VIT_SIZES = {
    "vit_micro": ViTSize(128, 6, 2),
    "vit_tiny": ViTSize(192, 12, 3),
    "vit_small": ViTSize(384, 12, 6),
    "vit_base": ViTSize(768, 12, 12),
    "vit_large": ViTSize(1024, 24, 16),
}
RESNETS = ("resnet18", "resnet50")
ENCODERS = (*VIT_SIZES, *RESNETS)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Everything needed to build an encoder, and all that is recorded of its architecture.

    Attributes:
        name: vit_micro, vit_tiny, vit_small, vit_base, vit_large, resnet18 or resnet50.
        patch: side of a patch in pixels (for a CNN, of the squares that pixel fills black out).
        size: side in pixels of the images it is trained on.
        channels: channels of the first convolution, 1 or 3.
        mean: what is taken off every pixel, in [0, 1]; the default is near that of any radiographs.
            One number, or one per channel for weights that were trained on colours.
        std: what the difference is divided by; one number or one per channel.
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.

    >>> EncoderConfig(name="vit_tiny", size=112).patch
    16
    >>> EncoderConfig(size=100)
    Traceback (most recent call last):
    ...
    chexmsn.core.errors.UserError: image size must be a positive multiple of the patch size 16, not 100: choose ... 112
    """

    name: str = "vit_small"
    patch: int = 16
    size: int = 224
    channels: int = 1
    mean: float | tuple[float, float, float] = 0.5
    std: float | tuple[float, float, float] = 0.25
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ENCODERS:
            raise UserError(f"there is no encoder called {self.name!r}: choose one of {', '.join(ENCODERS)}")
        check_limits(self, patch="[1, inf)", mean="[0, 1]", std="(0, inf)", drop_path="[0, 1)")
        if self.size < 1 or self.size % self.patch:
            raise UserError(f"image size must be {_whole_patches(self.size, self.patch)}")
        if self.channels not in (1, 3):
            raise UserError(f"an encoder takes 1 or 3 channels, not {self.channels}: choose 1 for radiographs")
        if self.channels != 3 and (isinstance(self.mean, tuple) or isinstance(self.std, tuple)):
            raise UserError(f"a mean or std per channel needs 3 channels, not {self.channels}: give one number")


def _whole_patches(size: int, patch: int) -> str:
    lower = size // patch * patch
    near = f"{lower} or {lower + patch}" if lower > 0 else str(patch)
    return f"a positive multiple of the patch size {patch}, not {size}: choose {near}"


class Features(NamedTuple):
    """What an encoder says of a batch of images.

    `pooled` is the class token or the global average pool, `tokens` are the patch tokens in the
    order of `kept` (row-major where the image is whole); a CNN has none. `before_norm` is the class
    token before the last LayerNorm, which MSN's evaluations read; a CNN's is `pooled`.
    """

    pooled: Float[Tensor, "B D"]
    tokens: Float[Tensor, "B N D"] | None
    before_norm: Float[Tensor, "B D"]


class Encoder(nn.Module, ABC):
    """Images in [0, 1] become features of `width` numbers. Built by `build_encoder`."""

    kind: ClassVar[Literal["transformer", "cnn"]]

    def __init__(self, config: EncoderConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width

    def grid(self, height: int, width: int | None = None) -> tuple[int, int]:
        """Rows and columns of patches of an image (a square one, where only a side is given).

        Raises UserError for a side that is no multiple of the patch size.

        >>> from chexmsn.models.encoder import build_encoder
        >>> build_encoder(EncoderConfig(name="vit_micro", size=96)).grid(224)
        (14, 14)
        """
        patch = self.config.patch
        sides = (height, height if width is None else width)
        for side in sides:
            if side < 1 or side % patch:
                raise UserError(f"the side of an image must be {_whole_patches(side, patch)}")
        return sides[0] // patch, sides[1] // patch

    def resize(self, size: int) -> None:
        """Make the encoder one for images of another size. Raises UserError for sides that are not whole patches."""
        self.config = replace(self.config, size=size)

    @abstractmethod
    def forward(self, images: Images, kept: Kept | None = None) -> Features:
        """The features of images in [0, 1], of the `kept` patches alone where these are given."""

    def pool(self, images: Images, kept: Kept | None = None) -> Features:
        """The same without `tokens`, for those who do not read them: a transformer's last block costs less so."""
        return self(images, kept)._replace(tokens=None)


class Normalise(nn.Module):
    """The first layer of every encoder: one channel in [0, 1] becomes `channels` channels around 0.

    They are equal, unless mean or std differ from channel to channel.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.mean, self.std, self.channels = config.mean, config.std, config.channels

    def forward(self, images: Images) -> Float[Tensor, "B C H W"]:
        if not images.is_floating_point():
            kind = str(images.dtype).removeprefix("torch.")
            raise UserError(f"images are numbers in [0, 1], B x 1 x H x W, not {kind}: divide those of 8 bit by 255")
        mean, std = (_per_channel(value, images) for value in (self.mean, self.std))
        return ((images - mean) / std).expand(-1, self.channels, -1, -1)

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}, channels={self.channels}"


def _per_channel(value: float | tuple[float, float, float], images: Images) -> float | Float[Tensor, "3 1 1"]:
    return images.new_tensor(value).view(3, 1, 1) if isinstance(value, tuple) else value
