"""A classifier trained from scratch: what pretraining has to beat.

AdamW with warm-up and cosine, random resized crops and flips, as is usual for transformers (Touvron et al. 2021,
arXiv 2012.12877) without its mixing of images, which has no meaning for findings that do not exclude each other.
The encoder it is given should be a new one.
"""

from dataclasses import dataclass

from chexmsn.methods._classifier import AbstractClassifierMethod, ClassifierConfig


@dataclass(frozen=True, kw_only=True)
class Config(ClassifierConfig):
    """Options of training from scratch: those of every classifier, with a larger learning rate."""

    lr: float = 5e-4


class Method(AbstractClassifierMethod):
    """All weights are trained, all at the same rate."""
