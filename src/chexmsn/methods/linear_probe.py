"""Linear probing: how much a frozen encoder knows that one linear layer can read.

As in He et al. 2022 (arXiv 2111.06377, appendix A.1), features are normalised over the batch before the linear
layer, without a learned scale, so that encoders whose features differ in size are probed alike. The normalisation
is folded into the linear layer of the classifier that comes out.

Where we differ: AdamW in place of LARS, because our batches are small; several losses, one per finding.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from chexmsn.methods._base import ParameterGroup, Setting, check_batch, parameter_groups
from chexmsn.methods._classifier import AbstractClassifierMethod, ClassifierConfig
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import Encoder, EncoderConfig


@torch.no_grad()
def fold(norm: nn.BatchNorm1d, linear: nn.Linear) -> None:
    """Change `linear` to what `norm` (in evaluation mode, without scale and shift) followed by it gives."""
    weight = linear.weight * (norm.running_var + norm.eps).rsqrt()
    linear.bias -= weight @ norm.running_mean
    linear.weight.copy_(weight)


@dataclass(frozen=True, kw_only=True)
class Config(ClassifierConfig):
    """Options of linear probing: those of every classifier, and one more.

    Attributes:
        batch_norm: normalise features over the batch before the linear layer.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    batch_norm: bool = True


class Method(AbstractClassifierMethod):
    """Only the linear layer is trained; the encoder stays as it is, in evaluation mode."""

    needs_pretraining = True

    def __init__(self, config: Config, encoder: Encoder, setting: Setting) -> None:
        norm = nn.BatchNorm1d(encoder.width, affine=False, eps=1e-6) if config.batch_norm else None
        super().__init__(config, encoder.requires_grad_(False), setting, norm)
        self.train()

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        super().check(config, encoder, size, batch_size)
        if config.batch_norm:
            check_batch("a linear probe with batch_norm", batch_size)

    def train(self, mode: bool = True) -> "Method":
        super().train(mode)
        self.classifier.encoder.eval()
        return self

    def groups(self) -> list[ParameterGroup]:
        return parameter_groups(self.classifier.head.named_parameters())

    def downstream(self) -> Classifier:
        encoder = self.classifier.encoder
        classifier = copy.deepcopy(self.classifier, {id(encoder): encoder})  # the encoder is shared, not copied
        if self.config.batch_norm:
            fold(self.readout, classifier.head)
        return classifier
