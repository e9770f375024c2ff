"""What a classifier's linear layer reads: one vector per image, made of an encoder's features."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chexmsn.core.errors import UserError
from chexmsn.models._base import VIT_SIZES, Encoder, Features
from chexmsn.models.batch_norm import BatchNorm1d


class Pooled(nn.Module):
    """The class token or the global average, as it is."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()

    def forward(self, features: Features) -> Float[Tensor, "B D"]:
        return features.pooled


class BatchNormed(nn.Module):
    """The pooled feature normalised over the batch, without a learned scale.

    So encoders whose features differ in size are read alike: facebookresearch/mae `main_linprobe.py`.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.norm = BatchNorm1d(encoder.width, affine=False, eps=1e-6)

    def forward(self, features: Features) -> Float[Tensor, "B D"]:
        return self.norm(features.pooled)


class LayerNormed(nn.Module):
    """A new LayerNorm in place of the encoder's last one, then unit length: facebookresearch/msn `linear_eval.py`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if encoder.kind != "transformer":
            raise UserError(
                f"the readout layer-norm is of a class token, which {encoder.config.name} lacks: "
                "take pooled or batch-norm, or a transformer"
            )
        self.norm = nn.LayerNorm(encoder.width, eps=1e-5)

    def forward(self, features: Features) -> Float[Tensor, "B D"]:
        return functional.normalize(self.norm(features.before_norm), dim=1)


class Attentive(nn.Module):
    """A learned query looks at the patch tokens that there are, with as many heads as the encoder has.

    Raises UserError for a CNN.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if encoder.kind != "transformer":
            raise UserError(
                f"an attentive readout looks at patch tokens, which {encoder.config.name} lacks: "
                "take a linear probe, or a transformer"
            )
        self.query = nn.Parameter(torch.empty(1, 1, encoder.width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.attention = nn.MultiheadAttention(encoder.width, VIT_SIZES[encoder.config.name].heads, batch_first=True)

    def forward(self, features: Features) -> Float[Tensor, "B D"]:
        query = self.query.expand(len(features.tokens), -1, -1)
        seen, _ = self.attention(query, features.tokens, features.tokens, need_weights=False)
        return seen[:, 0]


READOUTS = {"pooled": Pooled, "batch-norm": BatchNormed, "layer-norm": LayerNormed, "attentive": Attentive}
