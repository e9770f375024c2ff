"""An encoder, what is read of its features, and one linear layer on top."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Images, Kept
from chexmsn.models._base import Encoder
from chexmsn.models.readout import READOUTS


class Classifier(nn.Module):
    """One logit per finding from the features of an encoder.

    The linear layer starts at normal with standard deviation 0.01 and bias 0, as the linear
    evaluations of facebookresearch/msn and facebookresearch/mae do.

    Args:
        encoder: the encoder.
        findings: names of the outputs.
        readout: what the linear layer reads: pooled, batch-norm, layer-norm or attentive (`models/readout.py`).

    Raises:
        UserError: a finding is named twice or none is; an unknown readout, or one that this encoder cannot serve.
    """

    def __init__(self, encoder: Encoder, findings: Sequence[str], readout: str = "pooled") -> None:
        super().__init__()
        if not findings or len(set(findings)) < len(findings):
            raise UserError(f"a classifier needs one or more different findings, not {list(findings)}")
        if readout not in READOUTS:
            raise UserError(f"there is no readout called {readout!r}: choose one of {', '.join(READOUTS)}")
        self.encoder = encoder
        self.findings = tuple(findings)
        self.reads = readout
        self.readout = READOUTS[readout](encoder)
        self.head = nn.Linear(encoder.width, len(findings))
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    @property
    def size(self) -> int:
        """The side in pixels of the images it is made for."""
        return self.encoder.config.size

    def forward(self, images: Images, kept: Kept | None = None) -> Float[Tensor, "B C"]:
        """Logits, from the `kept` patches alone where these are given (a CNN refuses them, UserError)."""
        return self.head(self.readout(self.encoder(images, kept)))

    def probabilities(self, images: Images, kept: Kept | None = None) -> Float[Tensor, "B C"]:
        """The probability of each finding, in [0, 1]; findings do not exclude each other."""
        return self(images, kept).float().sigmoid()
