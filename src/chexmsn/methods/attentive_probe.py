"""Attentive probing: what a frozen encoder's patch tokens know together.

A learned query looks at all patch tokens through multi-head cross-attention, and one linear layer per finding reads
what it saw. Encoders that are not trained to gather an image in their class token, masked auto-encoders above all,
are judged by it more fairly than by a linear probe: El-Nouby et al. 2024 (AIM, arXiv 2401.08541), Bardes et al. 2024
(V-JEPA, arXiv 2404.08471), Darcet et al. 2025 (CAPI, arXiv 2502.08769).

Where we differ: no block follows the attention (V-JEPA has an MLP with a residual connection), so that no more than
the reading is learned; there are as many heads as in the encoder; tokens come from after the encoder's last LayerNorm
and are not normalised again (AIM normalises them over the batch).
"""

from dataclasses import dataclass

from chexmsn.core.errors import UserError
from chexmsn.methods._base import Setting
from chexmsn.methods._classifier import ClassifierConfig
from chexmsn.methods._probe import AbstractProbe
from chexmsn.models.encoder import VIT_SIZES, Encoder, EncoderConfig


@dataclass(frozen=True, kw_only=True)
class Config(ClassifierConfig):
    """Options of attentive probing: those of every classifier, with values for a small network on a frozen one."""

    lr: float = 1e-3
    weight_decay: float = 0.01


class Method(AbstractProbe):
    """Query, attention and linear layer are trained."""

    def __init__(self, config: Config, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting, "attentive")

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        super().check(config, encoder, size, batch_size)
        if encoder.name not in VIT_SIZES:
            raise UserError(f"an attentive probe looks at patch tokens, which {encoder.name} lacks: take linear-probe")
