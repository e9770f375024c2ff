"""What every method is: views in, a loss out, and a plain description of how to optimise it.

A method owns its networks, its equations and its schedules, and knows nothing of loops, devices or files.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.schedules import Schedule
from chexmsn.core.shapes import Images, Labels
from chexmsn.corruptions import CorruptionPlan, corrupt_for_training, kept_count
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import VIT_SIZES, Encoder, EncoderConfig
from chexmsn.views import ViewPlan

Views = list[Float[Tensor, "_ 1 _ _"]]
"""One tensor of images per group of the plan, each with its own batch and side."""


Number = float | Float[Tensor, ""]

Values = Mapping[str, Number]
"""What the schedules say of a step, by name. Where steps are compiled these are tensors, and not to be asked."""


class Step(NamedTuple):
    """What one batch gave.

    Attributes:
        loss: what is to go down.
        log: other numbers to log, without gradient. A method that has them calls them so: `agreement` (mean cosine of
            a student's projection to its teacher's), and with prototypes `prototype_agreement` (share of the anchors
            whose most likely prototype is their target's), `prototypes_used` and `prototype_entropy` (in nats).
        features: what the encoder that is used downstream gave for one view of each image, pooled, without gradient:
            the health of pretraining is read off it. Every pretraining method has them.
    """

    loss: Float[Tensor, ""]
    log: dict[str, Tensor]
    features: Float[Tensor, "B D"] | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a method may know of the run it is part of.

    Attributes:
        size: side of the network's input in pixels.
        batch_size: images per optimiser step, over all processes.
        findings: what a classifier tells apart.
        positives: share of the training labels that is positive, per finding.
    """

    size: int
    batch_size: int
    findings: tuple[str, ...] = ()
    positives: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that are treated alike.

    Attributes:
        params: the parameters.
        weight_decay: whether the "weight_decay" schedule applies; 0 otherwise.
        lr_scale: factor on the learning rate.
        lr: name of the schedule that gives the learning rate.
        clip: whether their gradients count for, and are scaled by, `Optimiser.clip`.
    """

    params: list[nn.Parameter]
    weight_decay: bool = True
    lr_scale: float = 1.0
    lr: str = "lr"
    clip: bool = True


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """An optimiser in words: the training loop builds it and sets its values before every step.

    Attributes:
        name: AdamW; stochastic gradient descent with momentum, or with MSN's Nesterov momentum; or LARS.
        groups: every trainable parameter, once.
        betas: AdamW's decay rates.
        momentum: that of all but AdamW.
        clip: largest global gradient norm over the groups with `clip`; None leaves gradients alone.
        clip_each: largest gradient norm of each parameter tensor of these groups by itself; None likewise.
    """

    name: Literal["adamw", "sgd", "nesterov-sgd", "lars"]
    groups: list[ParameterGroup]
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    clip: float | None = None
    clip_each: float | None = None


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Options that a run looks for in every method's configuration, which sets defaults of its own.

    A method with `uses_mask_ratio` has a `mask_ratio` besides: the share of the patches that training drops, in [0, 1).

    Attributes:
        warmup_epochs: length of the learning rate's warm-up.
        warmup_share: the warm-up takes at most this share of the run.
        corruption: what anchors (a classifier's inputs) are corrupted with while training.
    """

    warmup_epochs: float = 0.0
    warmup_share: float = 0.1
    corruption: CorruptionPlan | None = None

    def __post_init__(self) -> None:
        check_limits(self, warmup_epochs="[0, inf)", warmup_share="(0, 1]")


class AbstractMethod(nn.Module, ABC):
    """A way to train a network.

    `kind` says what comes out, `uses_mask_ratio` whether its configuration has one, `needs_pretraining` whether the
    encoder must have been trained before.

    `schedule` is what `schedules()` gives at the optimiser step at hand, by name. Views come as
    `make_views` cuts them from `views()`: one tensor per group, view-major. A classifier is validated on one
    group with one view, the published evaluation view.
    """

    kind: ClassVar[Literal["pretraining", "classifier"]]
    uses_mask_ratio: ClassVar[bool]
    needs_pretraining: ClassVar[bool] = False
    config: MethodConfig

    @classmethod
    def check(cls, config: Any, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        """Raise UserError where the method cannot work with this encoder, image size or batch."""

    @abstractmethod
    def views(self) -> ViewPlan:
        """What each image becomes."""

    @cached_property
    def plan(self) -> ViewPlan:
        """The same, made once and checked once: a step asks for it several times."""
        return self.views()

    def corruption(self) -> CorruptionPlan | None:
        """What anchors (a classifier's inputs) are corrupted with while training."""
        return self.config.corruption

    def corruptions_seen(self) -> list[dict[str, object]]:
        """Every corruption that training shows, ready for JSON: those asked for, dropped patches, changes of views."""
        plan = self.corruption()
        seen = [] if plan is None else plan.describe()
        if self.uses_mask_ratio and self.config.mask_ratio > 0:
            seen.append({"corruption": "tokens-removed", "share": self.config.mask_ratio})
        return seen + [entry for group in self.views() for entry in group.corruptions()]

    def corrupted(self, images: Images, draws: Draws) -> Images:
        """The images as training shows them: corrupted where that was asked for. `draws` has a key per image."""
        plan = self.corruption()
        return images if plan is None else corrupt_for_training(images, plan, draws)

    def corrupted_views(self, plan: ViewPlan, views: Views, draws: Draws) -> Views:
        """The views of these groups as training shows them. `draws` has a key per image, each view its own draws."""
        return [
            self.corrupted(images, per_view(draws, f"corruption-{group.name}", group.count))
            for group, images in zip(plan, views, strict=True)
        ]

    @abstractmethod
    def step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        """The loss of one batch, with gradient."""

    @torch.no_grad()
    def validation_step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        """The loss of one batch without gradient; the same for the same draws."""
        return self.step(views, labels, draws, schedule)

    @abstractmethod
    def optimiser(self) -> Optimiser:
        """How to go down."""

    @abstractmethod
    def schedules(self) -> Mapping[str, Schedule]:
        """Values that change from step to step: "lr", "weight_decay" and the method's own."""

    @torch.no_grad()
    def before_step(self, schedule: Mapping[str, float]) -> None:
        """What comes between clipped gradients and the optimiser step, such as dropping those of a frozen part."""

    @torch.no_grad()
    def after_step(self, schedule: Mapping[str, float]) -> None:
        """What follows the optimiser step, such as moving a target network."""

    @abstractmethod
    def downstream(self) -> Encoder | Classifier:
        """The part that is used afterwards."""


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies, as in MSN and MAE: not to biases and not to one-dimensional parameters.

    The class token and a learned position embedding are decayed (facebookresearch/msn `init_opt`).
    """
    return parameter.ndim > 1 and not name.endswith("bias")


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], **common: Any) -> list[ParameterGroup]:
    """The trainable parameters in two groups, decayed and not; `common` goes to both."""
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    split = {decay: [p for name, p in trainable if decays(name, p) is decay] for decay in (True, False)}
    return [ParameterGroup(params=params, weight_decay=decay, **common) for decay, params in split.items() if params]


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * online, parameters only: buffers stay the target's own."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1.0 - momentum)


def at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half precision raised to float32; float64 stays what it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def agreement(students: Float[Tensor, "N D"], teachers: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean cosine similarity of the students' vectors, view-major, to the teacher's of their image."""
    views = at_least_float32(students).unflatten(0, (-1, len(teachers)))
    return functional.cosine_similarity(views, at_least_float32(teachers), dim=-1).mean()


def per_view(draws: Draws, name: str, count: int) -> Draws:
    """Draws for `count` views of each image, view-major like the views."""
    return Draws(draws.streams(name, count).T.flatten())


def check_patches(method: str, ratio: float, encoder: EncoderConfig, size: int) -> None:
    """Raises UserError where images of this size have no whole patches, or none that stay, or must not lose any."""
    if size % encoder.patch:
        raise UserError(f"{method} cuts images into patches of {encoder.patch} pixels: {size} is no multiple of it")
    if ratio and encoder.name not in VIT_SIZES:
        raise UserError(
            f"{method} drops patches (mask ratio {ratio}), which {encoder.name} cannot do without: "
            "set the mask ratio to 0 or take a transformer"
        )
    kept_count((size // encoder.patch) ** 2, ratio)


def small_side(size: int, patch: int) -> int:
    """Side in pixels of the small views of a multi-crop: 3/7 of the image's (96 of 224), to whole patches.

    >>> small_side(224, 16), small_side(112, 16)
    (96, 48)
    """
    return max(1, round(size * 3 / 7 / patch)) * patch


def check_small_side(kind: str, side: int, patch: int, size: int) -> None:
    """Raises UserError where small views of this kind are not made of whole patches, or larger than the image."""
    if side > size:
        raise UserError(
            f"the {kind} size must be at most the image size {size}, not {side}: leave it out for 3/7 of it"
        )
    if side < patch or side % patch:
        raise UserError(
            f"the {kind} size must be a multiple of the patch size {patch}, not {side}: "
            "leave it out for 3/7 of the image size"
        )


def check_batch(method: str, batch_size: int) -> None:
    """Raises UserError where a batch has no statistics."""
    if batch_size < 2:
        raise UserError(f"{method} normalises over the batch, which needs 2 images or more, not {batch_size}")
