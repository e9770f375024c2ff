"""The vision transformer: timm's blocks, our own positions and our own removal of patches.

Dosovitskiy et al. 2021 (arXiv 2010.11929) in the form of facebookresearch/msn `src/deit.py`:
pre-norm, class token, learned positions for class token and patches, exact GELU, LayerNorm eps
1e-6. Parameter names inside `vit` are timm's, which are also those of facebookresearch/msn.
"""

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from chexmsn.core.shapes import Images, Kept
from chexmsn.models._base import Encoder, EncoderConfig, Features, Normalise
from chexmsn.models.initialisation import initialise
from chexmsn.models.linear import linear, with_onednn


def interpolate_positions(positions: Float[Tensor, "1 P D"], grid: tuple[int, int]) -> Float[Tensor, "1 Q D"]:
    """Position embeddings (class token first, then a square grid, row-major) for another grid of patches.

    Bicubic, corners not aligned, not antialiased; the class token's stays. We name the size of the
    new grid, as facebookresearch/mae does. facebookresearch/msn gives a scale factor instead, with
    the same numbers wherever the rounded size comes out right, and loses a row where it does not
    (14 to 29, for example).

    >>> interpolate_positions(torch.zeros(1, 1 + 14 * 14, 8), (6, 9)).shape
    torch.Size([1, 55, 8])
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return positions
    square = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = functional.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def cut_to_patches(pixels: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B P K"]:
    """The pixels of each patch in a row, patches row-major.

    A convolution by whole patches is one product of matrices with these, which GPUs do several times as fast (LOG.md).

    >>> cut_to_patches(torch.arange(16.0).view(1, 1, 4, 4), 2)[0].long().tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    """
    rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
    lattice = pixels.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    return lattice.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def keep_patches(tokens: Float[Tensor, "B T D"], kept: Kept) -> Float[Tensor, "B S D"]:
    """The class token and the kept patches, in the order of `kept`; each image has its own."""
    index = kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    return torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, index)], dim=1)


class FirstTokenBlock(Block):
    """timm's block, which can also be asked for the first token alone."""

    def first_token(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B 1 D"]:
        """What `forward` makes of the first token: it asks all of them, and no other is answered.

        Ten of the block's twelve D x D products are then of one token instead of T.
        """
        first = x[:, :1] + self.drop_path1(self.ls1(self._attend_to(self.norm1(x))))
        return first + self.drop_path2(self.ls2(self.mlp(self.norm2(first))))

    def _attend_to(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B 1 D"]:
        width, heads = x.shape[2], self.attn.num_heads
        (q, kv), (q_bias, kv_bias) = (part.split((width, 2 * width)) for part in self.attn.qkv.parameters())
        query = linear(x[:, :1], q, q_bias).unflatten(2, (heads, -1)).transpose(1, 2)
        key, value = linear(x, kv, kv_bias).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        return self.attn.proj(seen.transpose(1, 2).flatten(2))


class ViT(Encoder):
    """A vision transformer whose patches can be left out.

    Takes images of any size made of whole patches; their sides may differ from each other and from
    those it was trained on. `pooled` is the class token after the last LayerNorm.
    """

    kind = "transformer"

    def __init__(self, config: EncoderConfig, width: int, depth: int, heads: int) -> None:
        super().__init__(config, width)
        self.normalise = Normalise(config)
        self.vit = VisionTransformer(
            img_size=config.size,
            patch_size=config.patch,
            in_chans=config.channels,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            drop_path_rate=config.drop_path,
            weight_init="skip",
            block_fn=FirstTokenBlock,
        )
        initialise(self.vit)
        with_onednn(self.vit)
        nn.init.trunc_normal_(self.vit.cls_token, std=0.02)
        nn.init.trunc_normal_(self.vit.pos_embed, std=0.02)

    def resize(self, size: int) -> None:
        super().resize(size)
        positions = interpolate_positions(self.vit.pos_embed.detach(), self.grid(size))
        self.vit.pos_embed = nn.Parameter(positions, requires_grad=self.vit.pos_embed.requires_grad)

    def forward(self, images: Images, kept: Kept | None = None) -> Features:
        last = self.last_block(self.normalise(images), kept)
        tokens = self.vit.norm(last)
        return Features(tokens[:, 0], tokens[:, 1:], last[:, 0])

    def pool(self, images: Images, kept: Kept | None = None) -> Features:
        *blocks, last = self.vit.blocks
        tokens = self._entering(self.normalise(images), kept)
        for block in blocks:
            tokens = block(tokens)
        first = last.first_token(tokens)[:, 0]
        return Features(self.vit.norm(first), None, first)

    def tokens(self, pixels: Float[Tensor, "B C H W"], kept: Kept | None = None) -> Float[Tensor, "B T D"]:
        """Class token and patch tokens after the last LayerNorm, from pixels already normalised."""
        return self.vit.norm(self.last_block(pixels, kept))

    def last_block(self, pixels: Float[Tensor, "B C H W"], kept: Kept | None = None) -> Float[Tensor, "B T D"]:
        """The same before the last LayerNorm."""
        return self.vit.blocks(self._entering(pixels, kept))

    def _entering(self, pixels: Float[Tensor, "B C H W"], kept: Kept | None) -> Float[Tensor, "B T D"]:
        tokens = self.embed(pixels)
        return tokens if kept is None else keep_patches(tokens, kept)

    def embed(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B T D"]:
        """Class token and patches with their positions, before the first block.

        Raises UserError for a side that is no multiple of the patch size.
        """
        grid, convolution = self.grid(*pixels.shape[2:]), self.vit.patch_embed.proj
        cut = cut_to_patches(pixels, self.config.patch)
        patches = linear(cut, convolution.weight.flatten(1), convolution.bias)
        tokens = torch.cat([self.vit.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        return tokens + interpolate_positions(self.vit.pos_embed, grid)
