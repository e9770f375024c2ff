"""Fine-tuning: a pretrained encoder and a new linear layer, trained together.

The published robustness comparison fine-tunes at a constant share of dropped patches; `mask_ratio` does that, with
its own mask for every image. Layer-wise decay of the learning rate follows Bao et al. 2022 (arXiv 2106.08254) as in
facebookresearch/mae `util/lr_decay.py`, whose numbers the tests reproduce.

Where we differ from nyuad-cai/CXR-EHR-MSN: cosine and warm-up per step, a loss on logits, and a weight decay that
leaves biases, normalisations, class token and positions alone.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from torch import nn

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.methods._base import ParameterGroup, decays
from chexmsn.methods._classifier import AbstractClassifierMethod, ClassifierConfig
from chexmsn.models.encoder import VIT_SIZES, EncoderConfig

EMBEDDINGS = ("cls_token", "pos_embed", "patch_embed")


def layer_of(name: str, depth: int) -> int:
    """Where in a transformer a parameter belongs: 0 embeddings, 1 to `depth` blocks, `depth` + 1 what follows.

    >>> [layer_of(name, depth=12) for name in ("encoder.vit.cls_token", "encoder.vit.blocks.3.norm1.bias", "head.bias")]
    [0, 4, 13]
    """
    if block := re.search(r"\bblocks\.(\d+)\.", name):
        return int(block[1]) + 1
    return 0 if any(part in name.split(".") for part in EMBEDDINGS) else depth + 1


def layer_groups(module: nn.Module, depth: int, decay: float) -> list[ParameterGroup]:
    """Parameter groups whose learning rate shrinks by `decay` from each layer to the one below.

    Class token and positions are not decayed by weight decay, unlike in pretraining.
    """
    groups = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            shrinks = decays(name, parameter) and not name.endswith(("cls_token", "pos_embed"))
            groups[decay ** (depth + 1 - layer_of(name, depth)), shrinks].append(parameter)
    return [
        ParameterGroup(params=params, weight_decay=shrinks, lr_scale=scale)
        for (scale, shrinks), params in groups.items()
    ]


@dataclass(frozen=True, kw_only=True)
class Config(ClassifierConfig):
    """Options of fine-tuning: those of every classifier, and one more.

    Attributes:
        layer_decay: factor on the learning rate from each block to the one below; 1 trains all alike.
    """

    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, layer_decay="(0, 1]")


class Method(AbstractClassifierMethod):
    """All weights are trained, the lower ones more slowly where asked for."""

    needs_pretraining = True

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        super().check(config, encoder, size, batch_size)
        if config.layer_decay < 1 and encoder.name not in VIT_SIZES:
            raise UserError(f"layer decay follows the blocks of a transformer, which {encoder.name} lacks: set it to 1")

    def groups(self) -> list[ParameterGroup]:
        name = self.classifier.encoder.config.name
        if name not in VIT_SIZES:
            return super().groups()
        return layer_groups(self.classifier, VIT_SIZES[name].depth, self.config.layer_decay)
