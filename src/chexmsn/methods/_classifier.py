"""What all ways to train a classifier share: inputs, loss, learning rate. They differ in what is trained."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chexmsn.core.distributed import processes
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.schedules import Constant, Schedule, WarmupCosine
from chexmsn.core.shapes import Kept, Labels
from chexmsn.corruptions import CorruptionPlan, kept_patches
from chexmsn.methods._base import (
    AbstractMethod,
    MethodConfig,
    Optimiser,
    ParameterGroup,
    Setting,
    Step,
    Values,
    Views,
    at_least_float32,
    check_patches,
    parameter_groups,
    per_view,
)
from chexmsn.methods._distributed import mean_over_processes
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import Encoder, EncoderConfig
from chexmsn.views import Affine, Jitter, ViewGroup, ViewPlan

LARGEST_POSITIVE_WEIGHT = 100.0  # a finding with one positive in a thousand must not drown the others


def masked_bce(
    logits: Float[Tensor, "B C"], labels: Labels, positive_weight: Float[Tensor, "C"] | None = None
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of the labels that are there (not NaN); 0 where none is.

    With several processes the mean over their losses is the mean over all labels that are there, however these are
    spread: every process divides its sum by the average number that a process has.

    >>> nan = float("nan")
    >>> masked_bce(torch.zeros(2, 2), torch.tensor([[1.0, nan], [nan, 0.0]]))
    tensor(0.6931)
    """
    known = ~labels.isnan()
    wanted = labels.nan_to_num(0.0).to(logits.dtype)
    loss = functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=positive_weight, reduction="none")
    labels_per_process = mean_over_processes(known.sum().to(loss.dtype))
    return (loss * known).sum() / labels_per_process.clamp(min=1 / processes())


def positive_weights(positives: tuple[float, ...]) -> Float[Tensor, "C"]:
    """Negatives per positive for each finding, so that both weigh the same; at most 100.

    >>> positive_weights((0.5, 0.2, 0.0))
    tensor([  1.,   4., 100.])
    """
    share = torch.tensor(positives)
    return ((1 - share) / share).clamp(max=LARGEST_POSITIVE_WEIGHT)


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(MethodConfig):
    """Options every classifier has.

    Attributes:
        mask_ratio: share of the patches dropped from each image while training; transformers only.
        scale: share of the image's area in the crop; what evaluation sees when empty.
        affine: rotation, scaling and shift before the crop; with an empty `scale` the published augmentation.
        flip: probability of a horizontal flip.
        jitter: intensity jitter.
        balanced: weigh positives so that every finding has as much positive as negative weight.
        lr: largest learning rate.
        lr_final: where its cosine ends.
        warmup_epochs: length of the warm-up from 0.
        weight_decay: not applied to biases and one-dimensional parameters.
        corruption: what inputs are corrupted with while training.
    """

    mask_ratio: float = 0.0
    scale: tuple[float, float] | None = (0.5, 1.0)
    affine: Affine | None = None
    flip: float = 0.5
    jitter: Jitter | None = None
    balanced: bool = False
    lr: float = 1e-4
    lr_final: float = 0.0
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    corruption: CorruptionPlan | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, mask_ratio="[0, 1)", scale="(0, 1]", flip="[0, 1]")
        check_limits(self, lr="(0, inf)", lr_final="[0, inf)", weight_decay="[0, inf)")


class AbstractClassifierMethod(AbstractMethod):
    """Binary cross-entropy on one view of each image, AdamW with warm-up and cosine.

    Args:
        readout: what the linear layer reads of the features, by its name in `models/readout.py`.
    """

    kind = "classifier"
    uses_mask_ratio = True

    def __init__(self, config: ClassifierConfig, encoder: Encoder, setting: Setting, readout: str = "pooled") -> None:
        super().__init__()
        self.check(config, encoder.config, setting.size, setting.batch_size)
        if config.balanced and setting.positives is None:
            raise UserError("balanced weights need the share of positives per finding, which this run does not have")
        self.config = config
        self.setting = setting
        self.classifier = Classifier(encoder, setting.findings, readout)
        weights = positive_weights(setting.positives) if config.balanced else None
        self.register_buffer("positive_weight", weights, persistent=False)

    @classmethod
    def check(cls, config: ClassifierConfig, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        check_patches("the classifier", config.mask_ratio, encoder, size)

    def views(self) -> ViewPlan:
        c, size = self.config, self.setting.size
        return (
            ViewGroup(name="input", count=1, size=size, scale=c.scale, flip=c.flip, affine=c.affine, jitter=c.jitter),
        )

    def step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        (images,) = views
        images = self.corrupted(images, per_view(draws, "corruption", 1))
        return Step(self.loss(self.classifier(images, self._kept(draws)), labels), {})

    def loss(self, logits: Float[Tensor, "B C"], labels: Labels) -> Float[Tensor, ""]:
        """The training loss of given logits, in at least float32."""
        with torch.autocast(logits.device.type, enabled=False):
            return masked_bce(at_least_float32(logits), labels, self.positive_weight)

    def _kept(self, draws: Draws) -> Kept | None:
        if self.config.mask_ratio == 0:
            return None
        rows, columns = self.classifier.encoder.grid(self.setting.size)
        return kept_patches(draws.stream("mask"), rows * columns, self.config.mask_ratio)

    def groups(self) -> list[ParameterGroup]:
        """What is trained: all that is not frozen, at one rate."""
        return parameter_groups(self.classifier.named_parameters())

    def optimiser(self) -> Optimiser:
        return Optimiser(name="adamw", groups=self.groups())

    def schedules(self) -> Mapping[str, Schedule]:
        c = self.config
        lr = WarmupCosine(peak=c.lr, end=c.lr_final, warmup_epochs=c.warmup_epochs, warmup_share=c.warmup_share)
        return {"lr": lr, "weight_decay": Constant(c.weight_decay)}

    def downstream(self) -> Classifier:
        return self.classifier
