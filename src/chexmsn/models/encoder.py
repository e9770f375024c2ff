"""Encoders by name.

>>> import torch
>>> encoder = build_encoder(EncoderConfig(name="vit_micro", patch=8, size=32))
>>> features = encoder(torch.rand(2, 1, 32, 32), kept=torch.tensor([[0, 5, 9], [3, 1, 2]]))
>>> features.pooled.shape, features.tokens.shape
(torch.Size([2, 128]), torch.Size([2, 3, 128]))
"""

from dataclasses import replace

from chexmsn.models._base import ENCODERS, VIT_SIZES, Encoder, EncoderConfig, Features
from chexmsn.models.resnet import ResNet
from chexmsn.models.vit import ViT

__all__ = ["ENCODERS", "VIT_SIZES", "Encoder", "EncoderConfig", "Features", "build_encoder", "with_drop_path"]


def build_encoder(config: EncoderConfig) -> Encoder:
    """A new encoder. Its weights come from torch's generator, which the caller seeds, as for any module."""
    if config.name in VIT_SIZES:
        return ViT(config, *VIT_SIZES[config.name])
    return ResNet(config)


def with_drop_path(encoder: Encoder, rate: float) -> Encoder:
    """A copy of an encoder with another rate of stochastic depth."""
    copied = build_encoder(replace(encoder.config, drop_path=rate))
    copied.load_state_dict(encoder.state_dict())
    return copied
