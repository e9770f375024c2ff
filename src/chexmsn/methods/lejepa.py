"""LeJEPA: prediction between views, and embeddings kept isotropically Gaussian.

Balestriero and LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics, 2025,
arXiv 2511.08544. Written from the paper's equations.

There is no teacher, no stopped gradient and no schedule but the learning rate's. The embedding of every view has to
be near the mean embedding of the large views of its image. That alone would collapse; SIGReg (sketched isotropic
Gaussian regularisation) keeps the embeddings of a batch distributed like standard normal vectors, because all their
projections on random directions have to be standard normal. The distance of a projection from that is the statistic
of Epps and Pulley (Biometrika 1983, doi 10.1093/biomet/70.3.723): N times the weighted integral of the squared
difference between the empirical characteristic function and exp(-t^2/2). Its expectation is 1.06 for standard normal
samples of any number, and 0.41 N for N equal ones at the origin.

Decisions where the paper leaves a choice, and why:
* squared distances are averaged over the coordinates of the embedding, not summed: the statistic of a projection does
  not depend on the width, and so their trade-off, lambda, does not either;
* the weight of the integral is exp(-t^2/2) and its range [-5, 5] at 17 points, the paper's setting. The integrand is
  even, so half the points are computed;
* the embedding is what MSN's projection head makes of the pooled features, 128 wide; downstream takes the encoder;
* the random directions follow from the draws of the first image of the global batch: new at each step, the same on
  all processes, and the same again when a run resumes;
* the characteristic function is averaged over the global batch, and gradients through it are exact;
* radiographs have one channel: jitter has no hue and no saturation and nothing is turned grey or solarised; blur is
  off unless asked for, because blurred radiographs are what the stress test shows later.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chexmsn.core.distributed import of_first_process, processes
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.schedules import Constant, Schedule, WarmupCosine
from chexmsn.core.shapes import Labels
from chexmsn.methods._base import (
    AbstractMethod,
    Optimiser,
    Setting,
    Step,
    Values,
    Views,
    at_least_float32,
    check_batch,
    parameter_groups,
)
from chexmsn.methods._distributed import mean_over_processes
from chexmsn.methods._multi_crop import MultiCropConfig, MultiCropNetwork, check_multi_crop
from chexmsn.models.encoder import Encoder, EncoderConfig
from chexmsn.models.heads import ProjectionHead
from chexmsn.views import ViewPlan


def random_directions(draws: Draws, width: int, count: int, like: Tensor) -> Float[Tensor, "D M"]:
    """Unit vectors, uniform on the sphere, in columns; those of the first image of the global batch, for all."""
    first = Draws(of_first_process(draws.keys[:1])).stream("directions")
    return functional.normalize(first.normal_field((width, count))[0].to(like), dim=0)


def epps_pulley(samples: Float[Tensor, "*V N M"], limit: float = 5.0, points: int = 17) -> Float[Tensor, "*V M"]:
    """The statistic of Epps and Pulley against the standard normal distribution, of each column.

    The integral over [-limit, limit] is taken by the trapezoid rule at `points` (an odd number of) points, the
    samples are those of all processes. At the default spacing of 0.625 the rule is exact to about 1e-3 for samples
    within 5 of each other; those 10 (2 pi / spacing) apart it takes for equal.
    """
    t = torch.linspace(0.0, limit, points // 2 + 1, dtype=samples.dtype, device=samples.device)
    normal = torch.exp(-t.square() / 2)
    angles = samples.unsqueeze(-1) * t
    real, imaginary = mean_over_processes(torch.stack([angles.cos().mean(-3), angles.sin().mean(-3)]))
    squared = (real - normal).square() + imaginary.square()
    return 2 * samples.shape[-2] * processes() * torch.trapezoid(squared * normal, t)


def sigreg(
    embeddings: Float[Tensor, "V B D"], directions: Float[Tensor, "D M"], limit: float = 5.0, points: int = 17
) -> Float[Tensor, ""]:
    """Mean statistic over views and directions: each view's embeddings of the batch are a sample of their own."""
    return epps_pulley(embeddings @ directions, limit, points).mean()


def prediction_loss(embeddings: Float[Tensor, "V B D"], global_views: int) -> Float[Tensor, ""]:
    """Mean squared distance, per coordinate, of every view's embedding from the mean of the first, large views'."""
    return (embeddings - embeddings[:global_views].mean(0)).square().mean()


@dataclass(frozen=True, kw_only=True)
class Config(MultiCropConfig):
    """Options of LeJEPA; the defaults are the paper's for vision transformers.

    Attributes:
        trade_off: the paper's lambda: weight of SIGReg; prediction has the rest of 1.
        slices: number of random directions at each step.
        integration_limit: the characteristic function is compared on [-limit, limit].
        integration_points: at so many points, an odd number.
        head_hidden: width of the projection head's hidden layers.
        head_out: width of the embeddings.
        lr: largest learning rate.
        lr_final: where the cosine ends; a thousandth of `lr` when empty.
        warmup_epochs: length of the warm-up from 0.
        weight_decay: on weights, not on biases and other vectors.
    """

    local_scale: tuple[float, float] = (0.05, 0.3)
    global_scale: tuple[float, float] = (0.3, 1.0)
    trade_off: float = 0.05
    slices: int = 1024
    integration_limit: float = 5.0
    integration_points: int = 17
    head_hidden: int = 2048
    head_out: int = 128
    lr: float = 5e-4
    lr_final: float | None = None
    warmup_epochs: float = 10.0
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, **dict.fromkeys(("integration_limit", "head_hidden", "head_out", "lr"), "(0, inf)"))
        check_limits(self, trade_off="(0, 1)", slices="[1, inf)", integration_points="[3, inf)")
        check_limits(self, **dict.fromkeys(("lr_final", "weight_decay"), "[0, inf)"))
        if self.integration_points % 2 == 0:
            raise UserError(
                f"integration_points must be odd, so that one lies at 0, not {self.integration_points}: 17 is usual"
            )


class Method(AbstractMethod):
    """LeJEPA on an encoder."""

    kind = "pretraining"
    uses_mask_ratio = False

    def __init__(self, config: Config, encoder: Encoder, setting: Setting) -> None:
        super().__init__()
        self.check(config, encoder.config, setting.size, setting.batch_size)
        self.config = config
        self.setting = setting
        self.network = MultiCropNetwork(encoder, ProjectionHead(encoder.width, config.head_hidden, config.head_out))

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        check_batch("LeJEPA", batch_size)
        check_multi_crop("LeJEPA", config, encoder, size)

    def views(self) -> ViewPlan:
        return self.config.plan(self.setting.size, self.network.encoder.config.patch)

    def step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        pooled, embeddings = self.network(self.corrupted_views(self.plan, views, draws))
        batch = len(draws.keys)
        with torch.autocast(embeddings.device.type, enabled=False):
            step = self._loss(at_least_float32(embeddings).unflatten(0, (-1, batch)), draws)
        return step._replace(features=pooled[:batch].detach())

    def _loss(self, embeddings: Float[Tensor, "V B D"], draws: Draws) -> Step:
        c = self.config
        directions = random_directions(draws, c.head_out, c.slices, like=embeddings)
        prediction = prediction_loss(embeddings, c.global_views)
        normality = sigreg(embeddings, directions, c.integration_limit, c.integration_points)
        loss = (1 - c.trade_off) * prediction + c.trade_off * normality
        return Step(loss, {"prediction": prediction.detach(), "sigreg": normality.detach()})

    def optimiser(self) -> Optimiser:
        return Optimiser(name="adamw", groups=parameter_groups(self.network.named_parameters()))

    def schedules(self) -> Mapping[str, Schedule]:
        c = self.config
        end = c.lr / 1000 if c.lr_final is None else c.lr_final
        lr = WarmupCosine(peak=c.lr, end=end, warmup_epochs=c.warmup_epochs, warmup_share=c.warmup_share)
        return {"lr": lr, "weight_decay": Constant(c.weight_decay)}

    def downstream(self) -> Encoder:
        return self.network.encoder
