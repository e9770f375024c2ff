"""Masked auto-encoders.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv 2111.06377. Follows the authors' code
(facebookresearch/mae, commit efb2a80), whose numbers the tests reproduce.

Most patches of an image are removed; the encoder sees the rest, and a small decoder has to paint what is missing.

The authors' command is `--encoder.name vit_base --batch_size 4096 --epochs 800` with the defaults below.

Where we differ, and why:
* the encoder starts from the weights every method here starts from (MSN's initialisation), so that methods are
  compared and not their first weights; only its position embedding becomes the fixed sine-cosine table;
* the decoder is scaled down with the encoder: two thirds of its width, at most the published 512;
* the learning rate is `lr`, or `blr` times the batch size over 256 as published;
* a ratio counts as it is written, where floating point would now and then remove one patch more (100 at 0.9);
* warm-up takes at most a share of the run (`warmup_share`), for runs shorter than the authors' 400 to 1600 epochs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Float64
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.schedules import Constant, Schedule, WarmupCosine
from chexmsn.core.shapes import Images, Kept, Labels
from chexmsn.corruptions import CorruptionPlan, kept_count, kept_patches
from chexmsn.methods._base import (
    AbstractMethod,
    MethodConfig,
    Optimiser,
    Setting,
    Step,
    Values,
    Views,
    at_least_float32,
    check_patches,
    parameter_groups,
    per_view,
)
from chexmsn.models.encoder import VIT_SIZES, Encoder, EncoderConfig
from chexmsn.models.linear import with_onednn
from chexmsn.views import ViewGroup, ViewPlan


def patchify(pixels: Float[Tensor, "B C H W"], patch: int) -> Float[Tensor, "B N P"]:
    """Images as rows of patches; inside a patch pixels run by row, column, channel.

    >>> patchify(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 1]
    tensor([2., 3., 6., 7.])
    """
    tiles = pixels.unflatten(2, (-1, patch)).unflatten(4, (-1, patch))  # B C rows p columns p
    return tiles.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2)


def normalise_patches(patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """Every patch minus its mean, divided by its standard deviation (unbiased variance plus 1e-6)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def removed_patches(kept: Kept, patches: int) -> Bool[Tensor, "B N"]:
    """Which of the patches are not kept."""
    everything = torch.ones(len(kept), patches, dtype=torch.bool, device=kept.device)
    return everything.scatter(1, kept, False)


def reconstruction_loss(
    predicted: Float[Tensor, "B N P"], wanted: Float[Tensor, "B N P"], removed: Bool[Tensor, "B N"]
) -> Float[Tensor, ""]:
    """Squared error: mean over a patch, then over the removed patches of the batch."""
    error = (predicted - wanted).square().mean(-1)
    return (error * removed).sum() / removed.sum()


def sine_cosine_positions(width: int, grid: tuple[int, int]) -> Float64[Tensor, "1 T D"]:
    """The fixed position table of a grid of patches, a row of zeros first, for the class token.

    The first half of the channels tells the column, the second the row; each half is all sines, then all cosines, of
    the position times 10000^(-i / (width / 4)).

    Raises UserError where the width is no multiple of 4.
    """
    if width % 4:
        raise UserError(f"a sine-cosine position table needs a width that is a multiple of 4, not {width}")
    frequency = 10000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    angles = [position.flatten()[:, None] * frequency for position in (column, row)]
    table = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([table.new_zeros(1, width), table])[None]


class Decoder(nn.Module):
    """A small transformer that predicts all patches from the tokens of some.

    Args:
        encoder_width: width of the tokens that come in.
        grid: rows and columns of patches.
        pixels: numbers per patch that go out.
        width, depth, heads: of the decoder's own blocks.
    """

    def __init__(
        self, encoder_width: int, grid: tuple[int, int], pixels: int, *, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.register_buffer("positions", sine_cosine_positions(width, grid).float(), persistent=False)
        layer_norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True, norm_layer=layer_norm) for _ in range(depth)))
        self.norm = layer_norm(width)
        self.predict = nn.Linear(width, pixels)
        self.apply(_xavier)
        with_onednn(self)

    def forward(self, tokens: Float[Tensor, "B S D"], kept: Kept) -> Float[Tensor, "B N P"]:
        """Predicted patches, all of them in order, from the class token and the tokens of the kept patches."""
        tokens = self.embed(tokens)
        patches = self.mask_token.to(tokens.dtype).expand(len(tokens), self.positions.shape[1] - 1, -1)
        patches = patches.scatter(1, kept[..., None].expand(-1, -1, tokens.shape[-1]), tokens[:, 1:])
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + self.positions
        return self.predict(self.norm(self.blocks(tokens)))[:, 1:]


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Options of MAE; the defaults are those of the authors' pretraining command.

    Attributes:
        mask_ratio: share of the patches that is removed.
        norm_pix: predict patches normalised one by one.
        scale: share of the image's area in the crop.
        flip: probability of a horizontal flip.
        decoder_width: two thirds of the encoder's to a multiple of 32, at most 512, when empty.
        decoder_depth: 8 for encoders of width 768 and more, 4 below, when empty. Heads are 32 wide.
        lr: largest learning rate; `blr` times batch size / 256 when empty.
        blr: learning rate per 256 images.
        warmup_epochs: length of the warm-up from 0.
        weight_decay: not applied to biases and one-dimensional parameters.
        corruption: what the encoder's input is corrupted with; what it has to paint stays clean.
    """

    mask_ratio: float = 0.75
    norm_pix: bool = True
    scale: tuple[float, float] = (0.2, 1.0)
    flip: float = 0.5
    decoder_width: int | None = None
    decoder_depth: int | None = None
    lr: float | None = None
    blr: float = 1.5e-4
    warmup_epochs: float = 40.0
    weight_decay: float = 0.05
    corruption: CorruptionPlan | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, mask_ratio="[0, 1)", scale="(0, 1]", flip="[0, 1]")
        check_limits(self, decoder_width="[1, inf)", decoder_depth="[1, inf)", weight_decay="[0, inf)")
        check_limits(self, lr="(0, inf)", blr="(0, inf)")
        if (self.decoder_width or 32) % 32:
            raise UserError(
                f"the decoder's width must be a multiple of 32 (its heads are 32 wide), not {self.decoder_width}"
            )


def decoder_shape(config: Config, encoder_width: int) -> dict[str, int]:
    """Width, depth and heads of the decoder.

    >>> decoder_shape(Config(), 768), decoder_shape(Config(), 384)
    ({'width': 512, 'depth': 8, 'heads': 16}, {'width': 256, 'depth': 4, 'heads': 8})
    """
    width = config.decoder_width or min(512, max(1, round(encoder_width * 2 / 3 / 32)) * 32)
    depth = config.decoder_depth or (8 if encoder_width >= 768 else 4)
    return {"width": width, "depth": depth, "heads": width // 32}


class Method(AbstractMethod):
    """MAE on a transformer."""

    kind = "pretraining"
    uses_mask_ratio = True

    def __init__(self, config: Config, encoder: Encoder, setting: Setting) -> None:
        super().__init__()
        self.check(config, encoder.config, setting.size, setting.batch_size)
        self.config = config
        self.setting = setting
        self.encoder = encoder
        positions = encoder.vit.pos_embed.requires_grad_(False)
        positions.copy_(sine_cosine_positions(encoder.width, encoder.grid(encoder.config.size)))
        self.grid = encoder.grid(setting.size)
        pixels = encoder.config.patch**2 * encoder.config.channels
        self.decoder = Decoder(encoder.width, self.grid, pixels, **decoder_shape(config, encoder.width))

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        if encoder.name not in VIT_SIZES:
            raise UserError(
                f"MAE needs an encoder that can leave out patches, not {encoder.name}: take for example vit_small"
            )
        check_patches("MAE", config.mask_ratio, encoder, size)
        patches = (size // encoder.patch) ** 2
        if kept_count(patches, config.mask_ratio) == patches:
            raise UserError(
                f"a mask ratio of {config.mask_ratio} removes none of the {patches} patches, and MAE learns "
                "from nothing else: 0.75 is published"
            )

    def views(self) -> ViewPlan:
        c = self.config
        return (ViewGroup(name="crop", count=1, size=self.setting.size, scale=c.scale, flip=c.flip),)

    def step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        (images,) = views
        patches = self.grid[0] * self.grid[1]
        kept = kept_patches(draws.stream("mask"), patches, self.config.mask_ratio)
        features = self.encoder(self.corrupted(images, per_view(draws, "corruption", 1)), kept)
        predicted = self.decoder(torch.cat([features.pooled[:, None], features.tokens], dim=1), kept)
        with torch.autocast(images.device.type, enabled=False):
            wanted = self._wanted(images)
            loss = reconstruction_loss(at_least_float32(predicted), wanted, removed_patches(kept, patches))
            return Step(loss, {}, features.pooled.detach())

    def _wanted(self, images: Images) -> Float[Tensor, "B N P"]:
        patches = patchify(self.encoder.normalise(images), self.encoder.config.patch)
        return normalise_patches(patches) if self.config.norm_pix else patches

    def optimiser(self) -> Optimiser:
        return Optimiser(name="adamw", groups=parameter_groups(self.named_parameters()), betas=(0.9, 0.95))

    def schedules(self) -> Mapping[str, Schedule]:
        c = self.config
        lr = c.blr * self.setting.batch_size / 256 if c.lr is None else c.lr
        return {
            "lr": WarmupCosine(peak=lr, warmup_epochs=c.warmup_epochs, warmup_share=c.warmup_share),
            "weight_decay": Constant(c.weight_decay),
        }

    def downstream(self) -> Encoder:
        return self.encoder
