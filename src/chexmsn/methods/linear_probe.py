"""Linear probing: how much a frozen encoder knows that one linear layer can read.

Features are normalised before the linear layer, so that encoders whose features differ in size are probed alike. The
two published evaluations, whose numbers the tests reproduce, are settings (learning rates for a batch of n images):

    He et al. 2022 (arXiv 2111.06377, appendix A.1), facebookresearch/mae `main_linprobe.py`:
        readout: batch-norm, optimiser: lars, lr: 0.1 n / 256, warmup_epochs: 10, 90 epochs
    Assran et al. 2022 (arXiv 2204.07141), facebookresearch/msn `linear_eval.py`:
        readout: layer-norm, optimiser: nesterov-sgd, lr: 6.4 n / 8192, warmup_epochs: 0, 100 epochs
    both: weight_decay: 0, scale: [0.08, 1.0], flip: 0.5

Where we differ: by default AdamW, because our batches are small; several losses, one per finding, where theirs is a
softmax over classes; the classifier of the best validation AUROC is kept, where MSN's keeps the best on its test set.
"""

from dataclasses import dataclass
from typing import Literal

from chexmsn.methods._base import Optimiser, Setting, check_batch
from chexmsn.methods._classifier import ClassifierConfig
from chexmsn.methods._probe import AbstractProbe
from chexmsn.models.encoder import Encoder, EncoderConfig


@dataclass(frozen=True, kw_only=True)
class Config(ClassifierConfig):
    """Options of linear probing: those of every classifier, and two more.

    Attributes:
        readout: what the linear layer reads: the pooled feature as it is (pooled) or normalised over the batch
            (batch-norm), or the class token through a new LayerNorm and scaled to unit length (layer-norm).
        optimiser: adamw; nesterov-sgd, MSN's, or lars, MAE's, both with momentum 0.9.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    readout: Literal["pooled", "batch-norm", "layer-norm"] = "batch-norm"
    optimiser: Literal["adamw", "nesterov-sgd", "lars"] = "adamw"


class Method(AbstractProbe):
    """The linear layer is trained, and what normalises its input."""

    def __init__(self, config: Config, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting, config.readout)

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        super().check(config, encoder, size, batch_size)
        if config.readout == "batch-norm":
            check_batch("a linear probe with batch-norm", batch_size)

    def optimiser(self) -> Optimiser:
        return Optimiser(name=self.config.optimiser, groups=self.groups())
