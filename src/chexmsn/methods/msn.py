"""Masked Siamese Networks.

Assran et al., Masked Siamese Networks for Label-Efficient Learning, ECCV 2022, arXiv 2204.07141. Follows the
authors' code (facebookresearch/msn, commit 4388dc1), whose numbers the tests reproduce over whole iterations.

Every image is seen as one whole target view, as random anchor views from which patches are dropped, and as focal
anchor views, small crops that are kept whole. Anchors must be assigned to the same prototypes as the target, which
passes through a slow copy of the network; the average assignment is kept close to uniform, so that not all images
end up at one prototype.

Where we differ, and why:
* every image has its own mask, a function of its key, instead of one mask for the whole batch (`mask_shared`);
* the gradient of the prototypes is averaged over processes like every other, not summed: the learning rate then
  does not depend on the number of processes;
* targets stay logarithms up to the last step, and cross-entropy takes a log-softmax: equal values, but finite at
  any temperature and in half precision;
* focal views keep their own pass through network and BatchNorm even where they are as large as the random ones;
* a ratio counts as it is written, where floating point would now and then drop one patch more (100 at 0.9);
* warm-up takes at most a share of the run (`warmup_share`), for runs much shorter than the authors' 800 epochs;
* radiographs have one channel, so jitter has no hue and no saturation and nothing is turned grey; blur is off
  unless asked for, because blurred radiographs are what the stress test shows later.
"""

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chexmsn.core.distributed import of_first_process
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.schedules import Constant, Cosine, Linear, Schedule, WarmupCosine
from chexmsn.core.shapes import Images, Kept, Labels
from chexmsn.corruptions import CorruptionPlan, kept_patches
from chexmsn.methods._base import (
    AbstractMethod,
    MethodConfig,
    Number,
    Optimiser,
    ParameterGroup,
    Setting,
    Step,
    Values,
    Views,
    agreement,
    at_least_float32,
    check_batch,
    check_patches,
    check_small_side,
    ema_update,
    parameter_groups,
    per_view,
    small_side,
)
from chexmsn.methods._distributed import global_logsumexp
from chexmsn.methods._prototypes import mean_assignment, prototypes_used, same_prototype
from chexmsn.models.encoder import Encoder, EncoderConfig
from chexmsn.models.heads import ProjectionHead
from chexmsn.views import Blur, Jitter, ViewGroup, ViewPlan

log = logging.getLogger(__name__)

# Spread evenly over K prototypes, A anchors take K / A of them each at least, and cross-entropy cannot fall below the
# logarithm of that. The published follow-up has 1024 over 64 x 11 = 704, which is 1.5; beyond 4 nothing is told apart.
MOST_PROTOTYPES_PER_ANCHOR = 4


def log_assignments(
    features: Float[Tensor, "N D"], prototypes: Float[Tensor, "K D"], temperature: float, smoothing: float = 0.0
) -> Float[Tensor, "N K"]:
    """Logarithms of the soft assignments: softmax of the cosine similarities to the prototypes over the temperature.

    `smoothing` mixes that share of the uniform distribution in (label smoothing of the prototypes).
    """
    similarities = functional.normalize(features, dim=1) @ functional.normalize(prototypes, dim=1).T
    logs = functional.log_softmax(similarities / temperature, dim=1)
    if smoothing == 0:
        return logs
    uniform = logs.new_full((), math.log(smoothing / len(prototypes)))
    return torch.logaddexp(logs + math.log1p(-smoothing), uniform)


def sharpen(logs: Float[Tensor, "B K"], temperature: Number) -> Float[Tensor, "B K"]:
    """Logarithms of p^(1/temperature), renormalised; below 1 the largest probabilities grow."""
    return functional.log_softmax(logs / temperature, dim=1)


def sinkhorn(
    logs: Float[Tensor, "B K"], iterations: int = 3, shares: Float[Tensor, "K"] | None = None
) -> Float[Tensor, "B K"]:
    """Balance assignments so that every prototype is given to about its share of the global batch; equal when None.

    In turns every prototype is scaled to its share and every image to the same; images come last, so rows of the result
    are distributions and prototypes are balanced approximately (Cuturi 2013, arXiv 1306.0895). In logarithms
    the constants of the original cancel.
    """
    for _ in range(iterations):
        logs = logs - global_logsumexp(logs) + (0.0 if shares is None else shares.log())
        logs = functional.log_softmax(logs, dim=1)
    return logs


@torch.no_grad()
def target_assignments(
    features: Float[Tensor, "B D"],
    prototypes: Float[Tensor, "K D"],
    *,
    temperature: float = 0.1,
    sharpening: Number = 0.25,
    sinkhorn_iterations: int = 3,
    smoothing: float = 0.0,
    shares: Float[Tensor, "K"] | None = None,
) -> Float[Tensor, "B K"]:
    """Where the targets say the anchors belong: assigned, sharpened, then balanced. Rows sum to 1, no gradient."""
    logs = sharpen(log_assignments(features, prototypes, temperature, smoothing), sharpening)
    return sinkhorn(logs, sinkhorn_iterations, shares).exp()


def cross_entropy(anchor_logs: Float[Tensor, "N K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the anchors, view-major, to the target of their image."""
    views = anchor_logs.unflatten(0, (-1, len(targets)))
    return -(targets * views).sum(-1).mean()


def divergence_from_uniform(probabilities: Float[Tensor, "K"]) -> Float[Tensor, ""]:
    """KL(p || uniform) = log K - entropy, at least 0."""
    probabilities = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)  # the slope at 0 is infinite
    return (probabilities * probabilities.log()).sum() + math.log(len(probabilities))


def mean_entropy(logs: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
    """Mean entropy of the rows, in nats."""
    return -(logs.exp() * logs).sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Options of MSN; the defaults are those of the authors' ViT-S/16 at a global batch of 1024.

    Attributes:
        mask_ratio: share of the patches dropped from random anchors.
        mask_focal: drop from focal anchors as well.
        mask_shared: one mask for all images of the global batch (that of its first image), as the authors do.
        random_views: random anchors per image; the target is one more.
        focal_views: focal anchors per image.
        focal_size: their side in pixels; 3/7 of the image size (96 of 224), to whole patches, when empty.
        random_scale: share of the image's area in random views and the target.
        focal_scale: share of the image's area in focal views.
        flip: probability of a horizontal flip, of every view.
        jitter: intensity jitter of every view.
        blur: Gaussian blur of every view.
        prototypes: number of prototypes; at most four per anchor of a batch.
        prototypes_trained: learn them; earlier re-implementations left them as drawn.
        head_hidden: width of the projection head's hidden layers.
        head_out: width of projections and prototypes.
        temperature: of the assignments of anchors and targets.
        sharpening: of the targets; smaller is sharper.
        sharpening_final: where sharpening goes linearly; constant when empty.
        sinkhorn: iterations of balancing; 0 turns it off.
        me_max: weight of the divergence of the mean assignment from uniform.
        entropy: weight of the mean entropy of the anchors' assignments.
        label_smoothing: share of uniform mixed into assignments.
        ema: the target's momentum grows to 1 ("scheduled") or stays ("constant").
        ema_start: momentum at the start.
        lr: largest learning rate.
        lr_start: at the start of the warm-up; a fifth of `lr` when empty.
        lr_final: where the cosine ends; a thousandth of `lr` when empty.
        warmup_epochs: length of the warm-up.
        weight_decay: at the start.
        weight_decay_final: where its cosine ends; constant when empty.
        decay_all: decay biases and normalisations too, as earlier re-implementations did.
        stretch: schedules are laid out over this many times the run and so stop short of their ends.
        clip: largest gradient norm of the encoder with its head, prototypes apart; off when empty.
        corruption: what anchors are corrupted with; targets stay clean.
    """

    mask_ratio: float = 0.15
    mask_focal: bool = False
    mask_shared: bool = False
    random_views: int = 1
    focal_views: int = 10
    focal_size: int | None = None
    random_scale: tuple[float, float] = (0.3, 1.0)
    focal_scale: tuple[float, float] = (0.05, 0.3)
    flip: float = 0.5
    jitter: Jitter | None = field(default_factory=Jitter)
    blur: Blur | None = None
    prototypes: int = 1024
    prototypes_trained: bool = True
    head_hidden: int = 2048
    head_out: int = 256
    temperature: float = 0.1
    sharpening: float = 0.25
    sharpening_final: float | None = None
    sinkhorn: int = 3
    me_max: float = 1.0
    entropy: float = 0.0
    label_smoothing: float = 0.0
    ema: Literal["scheduled", "constant"] = "scheduled"
    ema_start: float = 0.996
    lr: float = 1e-3
    lr_start: float | None = None
    lr_final: float | None = None
    warmup_epochs: float = 15.0
    weight_decay: float = 0.04
    weight_decay_final: float | None = 0.4
    decay_all: bool = False
    stretch: float = 1.25
    clip: float | None = 3.0
    corruption: CorruptionPlan | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, mask_ratio="[0, 1)", random_scale="(0, 1]", focal_scale="(0, 1]", flip="[0, 1]")
        check_limits(self, random_views="[0, inf)", focal_views="[0, inf)", focal_size="[1, inf)")
        check_limits(self, prototypes="[2, inf)", head_hidden="[1, inf)", head_out="[1, inf)", label_smoothing="[0, 1)")
        check_limits(self, temperature="[0.0001, inf)", sharpening="[0.0001, inf)", sharpening_final="[0.0001, inf)")
        check_limits(self, sinkhorn="[0, inf)", me_max="[0, inf)", entropy="[0, inf)", ema_start="[0, 1]")
        check_limits(self, lr="(0, inf)", lr_start="[0, inf)", lr_final="[0, inf)", clip="(0, inf)")
        check_limits(self, weight_decay="[0, inf)", weight_decay_final="[0, inf)")
        check_limits(self, stretch="[1, inf)")
        if self.random_views + self.focal_views == 0:
            raise UserError(
                "random_views + focal_views must be at least 1, not 0: MSN and PMSN publish 1 random and 10 focal"
            )


def focal_size(config: Config, size: int, patch: int) -> int:
    """Side of the focal views in pixels: as asked for, or 3/7 of the image's, to whole patches.

    >>> focal_size(Config(), 224, 16), focal_size(Config(), 112, 16), focal_size(Config(focal_size=64), 112, 16)
    (96, 48, 64)
    """
    return config.focal_size or small_side(size, patch)


def anchors_of(config: Config, batch_size: int) -> int:
    """Anchors in a batch."""
    return batch_size * (config.random_views + config.focal_views)


class Projected(nn.Module):
    """An encoder with its projection head: images to `B x head_out`."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, images: Images, kept: Kept | None = None) -> Float[Tensor, "B D"]:
        return self.head(self.encoder.pool(images, kept).pooled)


class Method(AbstractMethod):
    """MSN on an encoder."""

    kind = "pretraining"
    uses_mask_ratio = True
    regulariser: ClassVar[str] = "me_max"

    def __init__(self, config: Config, encoder: Encoder, setting: Setting) -> None:
        super().__init__()
        self.check(config, encoder.config, setting.size, setting.batch_size)
        self.config = config
        self.setting = setting
        self.online = Projected(encoder, ProjectionHead(encoder.width, config.head_hidden, config.head_out))
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        bound = config.head_out**-0.5
        drawn = torch.empty(config.prototypes, config.head_out).uniform_(-bound, bound)
        self.prototypes = nn.Parameter(drawn, requires_grad=config.prototypes_trained)
        if (anchors := anchors_of(config, setting.batch_size)) < config.prototypes:
            log.warning(
                "%d anchors in a batch can hardly be spread over %d prototypes: take more images or fewer prototypes",
                anchors,
                config.prototypes,
            )

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        check_batch("MSN", batch_size)
        check_patches("MSN", config.mask_ratio, encoder, size)
        if config.focal_views:
            side = focal_size(config, size, encoder.patch)
            check_small_side("focal", side, encoder.patch, size)
            check_patches("MSN", config.mask_ratio if config.mask_focal else 0.0, encoder, side)
        most = MOST_PROTOTYPES_PER_ANCHOR * anchors_of(config, batch_size)
        if config.prototypes > most:
            raise UserError(
                f"{config.prototypes} prototypes are too many for a batch of {batch_size} images, which has "
                f"{anchors_of(config, batch_size)} anchors: take at most {most} prototypes, or more images"
            )

    def views(self) -> ViewPlan:
        c, size = self.config, self.setting.size
        small = focal_size(c, size, self.online.encoder.config.patch)
        groups = (
            ("target", 1, size, c.random_scale),
            ("random", c.random_views, size, c.random_scale),
            ("focal", c.focal_views, small, c.focal_scale),
        )
        return tuple(
            ViewGroup(name=name, count=count, size=side, scale=scale, flip=c.flip, jitter=c.jitter, blur=c.blur)
            for name, count, side, scale in groups
            if count
        )

    def step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        target, *anchors = views
        groups = self.plan[1:]
        anchors = self.corrupted_views(groups, anchors, draws)
        projected = [
            self.online(images, self._kept(group, draws)) for group, images in zip(groups, anchors, strict=True)
        ]
        with torch.no_grad():
            features = self.target.encoder.pool(target).pooled
            wanted = self.target.head(features)
        with torch.autocast(target.device.type, enabled=False):
            return self._loss(torch.cat(projected), wanted, schedule["sharpening"])._replace(features=features)

    def _kept(self, group: ViewGroup, draws: Draws) -> Kept | None:
        if self.config.mask_ratio == 0 or (group.name == "focal" and not self.config.mask_focal):
            return None
        rows, columns = self.online.encoder.grid(group.size)
        views = per_view(draws, f"mask-{group.name}", group.count)
        if self.config.mask_shared:
            views = Draws(of_first_process(views.keys[:1]).expand_as(views.keys))
        return kept_patches(views, rows * columns, self.config.mask_ratio)

    def _loss(self, anchors: Float[Tensor, "N D"], targets: Float[Tensor, "B D"], sharpening: Number) -> Step:
        c = self.config
        prototypes = at_least_float32(self.prototypes)
        logs = log_assignments(at_least_float32(anchors), prototypes, c.temperature, c.label_smoothing)
        wanted = target_assignments(
            at_least_float32(targets),
            prototypes,
            temperature=c.temperature,
            sharpening=sharpening,
            sinkhorn_iterations=c.sinkhorn,
            smoothing=c.label_smoothing,
            shares=self.shares(like=prototypes),
        )
        matching = cross_entropy(logs, wanted)
        mean = mean_assignment(logs.exp())
        divergence = self.divergence(mean)
        entropy = mean_entropy(logs)
        loss = matching + c.me_max * divergence + c.entropy * entropy
        numbers = {
            "cross_entropy": matching,
            self.regulariser: divergence,
            "anchor_entropy": entropy,
            "target_entropy": torch.special.entr(wanted).sum(1).mean(),
            "prototype_entropy": torch.special.entr(mean).sum(),
            "prototypes_used": prototypes_used(logs),
            "prototype_agreement": same_prototype(logs, wanted),
            "agreement": agreement(anchors, targets),
        }
        return Step(loss, {name: value.detach() for name, value in numbers.items()})

    def shares(self, like: Tensor) -> Float[Tensor, "K"] | None:
        """What Sinkhorn gives each prototype of the batch; None for the same."""
        return None

    def divergence(self, mean: Float[Tensor, "K"]) -> Float[Tensor, ""]:
        """How far the mean assignment is from the wanted one; here, from uniform."""
        return divergence_from_uniform(mean)

    def optimiser(self) -> Optimiser:
        groups = parameter_groups(self.online.named_parameters())
        if self.config.decay_all:
            groups = [replace(group, weight_decay=True) for group in groups]
        if self.config.prototypes_trained:
            groups.append(ParameterGroup(params=[self.prototypes], weight_decay=False, clip=False))
        return Optimiser(name="adamw", groups=groups, clip=self.config.clip)

    def schedules(self) -> Mapping[str, Schedule]:
        c = self.config
        lr = WarmupCosine(
            peak=c.lr,
            start=c.lr / 5 if c.lr_start is None else c.lr_start,
            end=c.lr / 1000 if c.lr_final is None else c.lr_final,
            warmup_epochs=c.warmup_epochs,
            warmup_share=c.warmup_share,
            stretch=c.stretch,
            offset=1,
        )
        decay_end = c.weight_decay if c.weight_decay_final is None else c.weight_decay_final
        sharpening_end = c.sharpening if c.sharpening_final is None else c.sharpening_final
        return {
            "lr": lr,
            "weight_decay": Cosine(c.weight_decay, decay_end, stretch=c.stretch, offset=1),
            "sharpening": Linear(c.sharpening, sharpening_end, stretch=c.stretch),
            "ema": Constant(c.ema_start) if c.ema == "constant" else Linear(c.ema_start, 1.0, stretch=c.stretch),
        }

    def after_step(self, schedule: Mapping[str, float]) -> None:
        ema_update(self.target, self.online, schedule["ema"])

    def downstream(self) -> Encoder:
        return self.target.encoder
