"""Corruptions: one file each, found by its name, batched, a level and a stream of draws per image.

A file holds `TITLE`, `CAUSE`, `SOURCE`, `FAMILY`, `UNIT`, five `LEVELS` (severities 1 to 5; all the same
where there is one level only), `IDENTITY` (the level of severity 0) and `corrupt(images, level, draws)`,
which takes `known` besides where pixel size, anatomy or saliency matter to it.

Levels are tied to the pixel grid where they are not in mm: they are defined at 224 px, and the same
severity means something else at another size, so name the size beside the severity. The published
system names five kinds of corruption but not their levels; that they are ImageNet-C's is an assumption.

>>> import torch
>>> from chexmsn.core.draws import Draws, keys_of
>>> images, draws = torch.rand(2, 1, 32, 32), Draws.of(0, keys_of(["a", "b"]))
>>> apply("gaussian-noise", images, 2.5, draws).shape
torch.Size([2, 1, 32, 32])
"""

from chexmsn.corruptions._known import FIELD_OF_VIEW_MM, NOTHING_KNOWN, Known
from chexmsn.corruptions._reference import MEDMNIST_C, as_imagecorruptions, as_medmnist_c
from chexmsn.corruptions._regions import FILLS, PATTERNS, Fill, Pattern, fill_patches, kept_count, kept_in, kept_patches
from chexmsn.corruptions._severity import LEVELS_DEFINED_AT, apply, takes_known
from chexmsn.corruptions._training import CorruptionPlan, corrupt_for_training

__all__ = [
    "FIELD_OF_VIEW_MM",
    "FILLS",
    "LEVELS_DEFINED_AT",
    "MEDMNIST_C",
    "NOTHING_KNOWN",
    "PATTERNS",
    "CorruptionPlan",
    "Fill",
    "Known",
    "Pattern",
    "apply",
    "as_imagecorruptions",
    "as_medmnist_c",
    "corrupt_for_training",
    "fill_patches",
    "kept_count",
    "kept_in",
    "kept_patches",
    "takes_known",
]
