"""Corruptions: one file each, found by its name, batched, a level and a stream of draws per image.

A file holds `TITLE`, `CAUSE`, `SOURCE`, `UNIT`, five `LEVELS` (severities 1 to 5), `IDENTITY` (the level
of severity 0) and `corrupt(images, level, draws)`. Levels are tied to the pixel grid: they are those
of ImageNet-C at 224 px, and the same severity means something else at another size, so name the
size beside the severity. The published system names these five kinds of corruption but not their
levels; that they are ImageNet-C's is an assumption.

>>> import torch
>>> from chexmsn.core.draws import Draws, keys_of
>>> images, draws = torch.rand(2, 1, 32, 32), Draws.of(0, keys_of(["a", "b"]))
>>> apply("gaussian-noise", images, 2.5, draws).shape
torch.Size([2, 1, 32, 32])
"""

from chexmsn.corruptions._regions import fill_patches, kept_count, kept_patches
from chexmsn.corruptions._severity import LEVELS_DEFINED_AT, apply
from chexmsn.corruptions._training import CorruptionPlan, corrupt_for_training

__all__ = [
    "LEVELS_DEFINED_AT",
    "CorruptionPlan",
    "apply",
    "corrupt_for_training",
    "fill_patches",
    "kept_count",
    "kept_patches",
]
