"""What probes share: the encoder stays as it is, in evaluation mode, and only what reads it is trained."""

from chexmsn.methods._base import Setting
from chexmsn.methods._classifier import AbstractClassifierMethod, ClassifierConfig
from chexmsn.models.encoder import Encoder


class AbstractProbe(AbstractClassifierMethod):
    """A readout and a linear layer on a frozen encoder."""

    needs_pretraining = True

    def __init__(self, config: ClassifierConfig, encoder: Encoder, setting: Setting, readout: str) -> None:
        super().__init__(config, encoder.requires_grad_(False), setting, readout)
        self.train()

    def train(self, mode: bool = True) -> "AbstractProbe":
        super().train(mode)
        self.classifier.encoder.eval()
        return self
