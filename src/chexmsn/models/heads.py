"""What sits between an encoder and a pretraining loss."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chexmsn.models.batch_norm import BatchNorm1d
from chexmsn.models.initialisation import initialise
from chexmsn.models.linear import Linear


class ProjectionHead(nn.Sequential):
    """MSN's projection head: `B x width` to `B x out`, three linear layers, BatchNorm and GELU between them.

    facebookresearch/msn `src/msn_train.py`: linear layers have biases and start like the backbone.
    BatchNorm sees one resolution at a time if each group of views is passed through on its own.
    """

    def __init__(self, width: int, hidden: int = 2048, out: int = 256) -> None:
        super().__init__(
            Linear(width, hidden),
            BatchNorm1d(hidden),
            nn.GELU(),
            Linear(hidden, hidden),
            BatchNorm1d(hidden),
            nn.GELU(),
            Linear(hidden, out),
        )
        initialise(self)


class SimSiamProjector(nn.Sequential):
    """SimSiam's projector: `B x width` to `B x out`, hidden layers as wide as the input.

    facebookresearch/simsiam `simsiam/builder.py`: the last BatchNorm has no scale or shift, and the
    bias before it, which it would cancel, is frozen.
    """

    def __init__(self, width: int, out: int = 2048) -> None:
        super().__init__(
            Linear(width, width, bias=False),
            BatchNorm1d(width),
            nn.ReLU(),
            Linear(width, width, bias=False),
            BatchNorm1d(width),
            nn.ReLU(),
            Linear(width, out),
            BatchNorm1d(out, affine=False),
        )
        self[6].bias.requires_grad_(False)


class SimSiamPredictor(nn.Sequential):
    """SimSiam's predictor: `B x dim` to `B x dim` through a bottleneck of `hidden`, nothing after the last layer."""

    def __init__(self, dim: int = 2048, hidden: int = 512) -> None:
        super().__init__(
            Linear(dim, hidden, bias=False),
            BatchNorm1d(hidden),
            nn.ReLU(),
            Linear(hidden, dim),
        )


class DINOHead(nn.Module):
    """DINO's head: `B x width` to `B x out` similarities with learned directions.

    Three linear layers with GELU between them and no BatchNorm, directions of length 1, then a linear layer without
    bias whose rows have length `gain`: fixed at 1, or trained from there (`gain_trained`). facebookresearch/dino
    `vision_transformer.py`, DINOHead.
    """

    def __init__(
        self, width: int, hidden: int = 2048, bottleneck: int = 256, out: int = 65536, *, gain_trained: bool = False
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            Linear(width, hidden), nn.GELU(), Linear(hidden, hidden), nn.GELU(), Linear(hidden, bottleneck)
        )
        initialise(self.mlp)
        self.last_layer = nn.utils.parametrizations.weight_norm(Linear(bottleneck, out, bias=False))
        gain = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(gain).requires_grad_(gain_trained)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        return self.last_layer(functional.normalize(self.mlp(features), dim=1))
