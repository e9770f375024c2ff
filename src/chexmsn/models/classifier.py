"""An encoder with one linear layer on top."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Images, Kept
from chexmsn.models._base import Encoder


class Classifier(nn.Module):
    """One logit per finding from the pooled features of an encoder.

    The linear layer starts at normal with standard deviation 0.01 and bias 0, as the linear
    evaluations of facebookresearch/msn and facebookresearch/mae do.

    Raises UserError where a finding is named twice or none is.
    """

    def __init__(self, encoder: Encoder, findings: Sequence[str]) -> None:
        super().__init__()
        if not findings or len(set(findings)) < len(findings):
            raise UserError(f"a classifier needs one or more different findings, not {list(findings)}")
        self.encoder = encoder
        self.findings = tuple(findings)
        self.head = nn.Linear(encoder.width, len(findings))
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    @property
    def size(self) -> int:
        """The side in pixels of the images it is made for."""
        return self.encoder.config.size

    def forward(self, images: Images, kept: Kept | None = None) -> Float[Tensor, "B C"]:
        """Logits, from the `kept` patches alone where these are given (a CNN refuses them, UserError)."""
        return self.head(self.encoder(images, kept).pooled)

    def probabilities(self, images: Images, kept: Kept | None = None) -> Float[Tensor, "B C"]:
        """The probability of each finding, in [0, 1]; findings do not exclude each other."""
        return self(images, kept).float().sigmoid()
