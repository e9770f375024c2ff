"""SimSiam.

Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566. Follows the authors'
code (facebookresearch/simsiam, commit a7bc177), whose numbers the tests reproduce.

Two views of an image go through the same network; a predictor on top of one has to give the projection of the
other, through which no gradient flows.

With `--encoder.name resnet50` the defaults are the authors': SGD at 0.05 per 256 images, weight decay on everything, a
predictor that keeps its rate, no warm-up. They say nothing of transformers, which rarely take to plain SGD: give these
`optimiser: adamw`, `lr: 0.0005` and `warmup_epochs: 15`, as recipes/real-gpu.yaml does.

Where we differ, and why:
* any encoder, transformers included: methods are compared, not encoders;
* the learning rate follows its cosine per step, not per epoch;
* radiographs have one channel: jitter has no hue and no saturation and nothing is turned grey; blur is off unless
  asked for, because blurred radiographs are what the stress test shows later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chexmsn.core.draws import Draws
from chexmsn.core.limits import check_limits
from chexmsn.core.schedules import Constant, Schedule, WarmupCosine
from chexmsn.core.shapes import Labels
from chexmsn.corruptions import CorruptionPlan
from chexmsn.methods._base import (
    AbstractMethod,
    MethodConfig,
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
    per_view,
)
from chexmsn.models.encoder import Encoder, EncoderConfig
from chexmsn.models.heads import SimSiamPredictor, SimSiamProjector
from chexmsn.views import Blur, Jitter, ViewGroup, ViewPlan

Vectors = Float[Tensor, "B D"]


def negative_cosine(a: Vectors, b: Vectors) -> Float[Tensor, ""]:
    """Minus the mean cosine similarity of the rows, in [-1, 1]."""
    return -functional.cosine_similarity(a, b, dim=1).mean()


def symmetric_loss(p1: Vectors, p2: Vectors, z1: Vectors, z2: Vectors) -> Float[Tensor, ""]:
    """Each prediction against the projection of the other view, which gets no gradient."""
    return (negative_cosine(p1, z2.detach()) + negative_cosine(p2, z1.detach())) / 2


def spread(z: Vectors) -> Float[Tensor, ""]:
    """Standard deviation of the directions over the batch, times the root of their width: 1 healthy, 0 collapsed."""
    return functional.normalize(z, dim=1).std(0, correction=0).mean() * z.shape[1] ** 0.5


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Options of SimSiam; the defaults are the authors'.

    Attributes:
        scale: share of the image's area in the two crops.
        flip: probability of a horizontal flip.
        jitter: intensity jitter.
        blur: Gaussian blur.
        projection: width of the projections.
        bottleneck: hidden width of the predictor.
        optimiser: SGD with momentum, or AdamW.
        momentum: that of SGD.
        lr: learning rate; `base_lr` times batch size / 256 when empty.
        base_lr: learning rate per 256 images.
        fix_predictor_lr: the predictor keeps the first learning rate to the end.
        warmup_epochs: length of a warm-up from 0; the authors have none.
        weight_decay: on every parameter.
        corruption: what both views are corrupted with.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    flip: float = 0.5
    jitter: Jitter | None = field(default_factory=Jitter)
    blur: Blur | None = None
    projection: int = 2048
    bottleneck: int = 512
    optimiser: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    lr: float | None = None
    base_lr: float = 0.05
    fix_predictor_lr: bool = True
    warmup_epochs: float = 0.0
    weight_decay: float = 1e-4
    corruption: CorruptionPlan | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, scale="(0, 1]", flip="[0, 1]", projection="[1, inf)", bottleneck="[1, inf)")
        check_limits(self, momentum="[0, 1)", lr="(0, inf)", base_lr="(0, inf)", weight_decay="[0, inf)")


class Method(AbstractMethod):
    """SimSiam on an encoder."""

    kind = "pretraining"
    uses_mask_ratio = False

    def __init__(self, config: Config, encoder: Encoder, setting: Setting) -> None:
        super().__init__()
        self.check(config, encoder.config, setting.size, setting.batch_size)
        self.config = config
        self.setting = setting
        self.encoder = encoder
        self.projector = SimSiamProjector(encoder.width, config.projection)
        self.predictor = SimSiamPredictor(config.projection, config.bottleneck)

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        check_batch("SimSiam", batch_size)
        check_patches("SimSiam", 0.0, encoder, size)

    def views(self) -> ViewPlan:
        c = self.config
        return (
            ViewGroup(
                name="crop", count=2, size=self.setting.size, scale=c.scale, flip=c.flip, jitter=c.jitter, blur=c.blur
            ),
        )

    def step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        (images,) = views
        images = self.corrupted(images, per_view(draws, "corruption", 2))
        h1, h2 = (self.encoder.pool(view).pooled for view in images.chunk(2))
        z1, z2 = self.projector(h1), self.projector(h2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        with torch.autocast(images.device.type, enabled=False):
            loss = symmetric_loss(*map(at_least_float32, (p1, p2, z1, z2)))
            log = {"agreement": agreement(z1, z2), "projection_spread": spread(at_least_float32(z1.detach()))}
            return Step(loss, log, h1.detach())

    def optimiser(self) -> Optimiser:
        c = self.config
        body = [p for part in (self.encoder, self.projector) for p in part.parameters() if p.requires_grad]
        predictor = ParameterGroup(
            params=list(self.predictor.parameters()), lr="predictor_lr" if c.fix_predictor_lr else "lr"
        )
        return Optimiser(name=c.optimiser, groups=[ParameterGroup(params=body), predictor], momentum=c.momentum)

    def schedules(self) -> Mapping[str, Schedule]:
        c = self.config
        lr = c.base_lr * self.setting.batch_size / 256 if c.lr is None else c.lr
        return {
            "lr": WarmupCosine(peak=lr, warmup_epochs=c.warmup_epochs, warmup_share=c.warmup_share),
            "predictor_lr": Constant(lr),
            "weight_decay": Constant(c.weight_decay),
        }

    def downstream(self) -> Encoder:
        return self.encoder
