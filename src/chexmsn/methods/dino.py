"""DINO: self-distillation without labels.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, arXiv 2104.14294. Follows the
authors' code (facebookresearch/dino, commit 7c446df), whose numbers the tests reproduce.

A student sees large and small views of an image, its teacher, a slow copy of it, the large ones. On every view the
student has to give the distribution over many outputs that the teacher gives on another view. Centring the teacher's
outputs keeps one output from taking all images, a low temperature keeps them from becoming equal.

Where we differ, and why:
* positions of small views are interpolated to an explicit size, as for all methods here; the authors add 0.1 to it,
  which shifts the values visibly;
* the learning rate's warm-up takes at most a share of the run (`warmup_share`), for runs much shorter than the
  authors';
* the student's stochastic depth is an option of the method (`drop_path`), because the teacher has none, whatever
  the configuration of the encoder says;
* radiographs have one channel: jitter has no hue and no saturation, nothing is turned grey and nothing solarised; blur
  is off unless asked for, because blurred radiographs are what the stress test shows later, and then the same for all
  views, where the authors blur the first, second and small views with probability 1, 0.1 and 0.5;
* crops are resized linearly with antialiasing, as for all methods here, not bicubically;
* bfloat16 or full precision where the authors take half precision: the run's setting decides, not the method.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chexmsn.core.draws import Draws
from chexmsn.core.limits import check_limits
from chexmsn.core.schedules import Constant, Cosine, LinearByEpoch, OnAfter, Schedule, WarmupCosine
from chexmsn.core.shapes import Labels
from chexmsn.methods._base import (
    AbstractMethod,
    Number,
    Optimiser,
    Setting,
    Step,
    Values,
    Views,
    agreement,
    at_least_float32,
    ema_update,
    parameter_groups,
)
from chexmsn.methods._distributed import mean_over_processes
from chexmsn.methods._multi_crop import MultiCropConfig, MultiCropNetwork, check_multi_crop
from chexmsn.methods._prototypes import mean_assignment, prototypes_used, same_prototype
from chexmsn.models.encoder import Encoder, EncoderConfig, with_drop_path
from chexmsn.models.heads import DINOHead
from chexmsn.views import ViewPlan


def teacher_probabilities(
    logits: Float[Tensor, "T B K"], centre: Float[Tensor, "K"], temperature: Number
) -> Float[Tensor, "T B K"]:
    """What the teacher says of its views: centred, then sharpened by a low temperature."""
    return functional.softmax((logits - centre) / temperature, dim=-1)


def distillation_loss(student_logs: Float[Tensor, "V B K"], teacher: Float[Tensor, "T B K"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over all pairs of a teacher's and a student's view but those of one and the same.

    The first T views of the student are the teacher's.
    """
    pairs = -torch.einsum("tbk,vbk->tv", teacher, student_logs) / teacher.shape[1]
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0.0).sum() / (pairs.numel() - min(pairs.shape))  # no index: it would be read back


@torch.no_grad()
def moved_centre(
    centre: Float[Tensor, "K"], teacher_logits: Float[Tensor, "T B K"], momentum: float
) -> Float[Tensor, "K"]:
    """The centre after a batch: a slow average of the mean of the teacher's outputs over views, images, processes."""
    return centre * momentum + mean_over_processes(teacher_logits.mean((0, 1))) * (1 - momentum)


@dataclass(frozen=True, kw_only=True)
class Config(MultiCropConfig):
    """Options of DINO; the defaults are those of the authors' ViT-S/16.

    Attributes:
        head_hidden: width of the head's hidden layers.
        head_bottleneck: width of the directions before the last layer.
        outputs: number of outputs of the head.
        gain_trained: learn the length of the last layer's rows as well (the authors' norm_last_layer, turned off).
        freeze_last_layer: number of first epochs in which the last layer stays as drawn.
        drop_path: stochastic depth of the student's last block; the teacher has none.
        temperature: of the student.
        teacher_temperature: of the teacher, after its warm-up.
        teacher_temperature_start: where the warm-up starts.
        teacher_warmup_epochs: its length; the authors' longer runs take 30 epochs to 0.07.
        centre_momentum: of the average that centres the teacher's outputs.
        ema_start: the teacher's momentum at the start; it grows to 1 along a cosine.
        lr: largest learning rate; `base_lr` times batch size / 256 when empty.
        base_lr: learning rate per 256 images.
        lr_final: where the cosine ends.
        warmup_epochs: length of the learning rate's warm-up from 0.
        weight_decay: at the start.
        weight_decay_final: where its cosine ends; constant when empty.
        clip: largest gradient norm of each parameter tensor; off when empty.
    """

    head_hidden: int = 2048
    head_bottleneck: int = 256
    outputs: int = 65536
    gain_trained: bool = False
    freeze_last_layer: float = 1.0
    drop_path: float = 0.1
    temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_temperature_start: float = 0.04
    teacher_warmup_epochs: int = 0
    centre_momentum: float = 0.9
    ema_start: float = 0.996
    lr: float | None = None
    base_lr: float = 5e-4
    lr_final: float = 1e-6
    warmup_epochs: float = 10.0
    weight_decay: float = 0.04
    weight_decay_final: float | None = 0.4
    clip: float | None = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        temperatures = ("temperature", "teacher_temperature", "teacher_temperature_start")
        check_limits(self, **dict.fromkeys(temperatures, "[0.0001, inf)"))
        check_limits(self, **dict.fromkeys(("head_hidden", "head_bottleneck", "lr", "base_lr", "clip"), "(0, inf)"))
        check_limits(self, centre_momentum="[0, 1]", ema_start="[0, 1]")
        not_negative = ("freeze_last_layer", "teacher_warmup_epochs", "lr_final", "weight_decay")
        check_limits(self, **dict.fromkeys((*not_negative, "weight_decay_final"), "[0, inf)"))
        check_limits(self, drop_path="[0, 1)", outputs="[2, inf)")


class Method(AbstractMethod):
    """DINO on an encoder."""

    kind = "pretraining"
    uses_mask_ratio = False

    def __init__(self, config: Config, encoder: Encoder, setting: Setting) -> None:
        super().__init__()
        self.check(config, encoder.config, setting.size, setting.batch_size)
        self.config = config
        self.setting = setting
        head = DINOHead(
            encoder.width,
            config.head_hidden,
            config.head_bottleneck,
            config.outputs,
            gain_trained=config.gain_trained,
        )
        self.student = MultiCropNetwork(with_drop_path(encoder, config.drop_path), head)
        self.teacher = MultiCropNetwork(with_drop_path(encoder, 0.0), copy.deepcopy(head)).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(config.outputs))

    @classmethod
    def check(cls, config: Config, encoder: EncoderConfig, size: int, batch_size: int) -> None:
        check_multi_crop("DINO", config, encoder, size)

    def views(self) -> ViewPlan:
        return self.config.plan(self.setting.size, self.student.encoder.config.patch)

    def step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        features, student, teacher = self._outputs(views, draws)
        with torch.autocast(student.device.type, enabled=False):
            return self.learn(student, teacher, schedule["teacher_temperature"])._replace(features=features)

    @torch.no_grad()
    def validation_step(self, views: Views, labels: Labels | None, draws: Draws, schedule: Values) -> Step:
        """The loss of one batch; the centre stays."""
        features, student, teacher = self._outputs(views, draws)
        with torch.autocast(student.device.type, enabled=False):
            return self.loss(student, teacher, schedule["teacher_temperature"])._replace(features=features)

    def _outputs(
        self, views: Views, draws: Draws
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "V B K"], Float[Tensor, "T B K"]]:
        """The teacher's features of one view per image, the student's outputs and the teacher's."""
        _, student = self.student(self.corrupted_views(self.plan, views, draws))
        with torch.no_grad():
            features, teacher = self.teacher(views[:1])
        batch = len(draws.keys)
        outputs = (at_least_float32(logits).unflatten(0, (-1, batch)) for logits in (student, teacher))
        return features[:batch], *outputs

    def learn(self, student: Float[Tensor, "V B K"], teacher: Float[Tensor, "T B K"], temperature: Number) -> Step:
        """The loss of outputs, views first; then the centre moves."""
        step = self.loss(student, teacher, temperature)
        self.centre.copy_(moved_centre(self.centre, teacher, self.config.centre_momentum))
        return step

    def loss(self, student: Float[Tensor, "V B K"], teacher: Float[Tensor, "T B K"], temperature: Number) -> Step:
        """The loss of outputs, views first; the student's first T views are the teacher's."""
        wanted = teacher_probabilities(teacher, self.centre, temperature)
        logs = functional.log_softmax(student / self.config.temperature, dim=-1)
        given = wanted.flatten(0, 1)
        numbers = {
            "prototypes_used": prototypes_used(given),
            "prototype_entropy": torch.special.entr(mean_assignment(given)).sum(),
            "prototype_agreement": same_prototype(logs.flatten(0, 1), wanted[0]),
            "teacher_entropy": torch.special.entr(wanted).sum(-1).mean(),
            "student_entropy": torch.special.entr(logs.detach().exp()).sum(-1).mean(),
            "agreement": agreement(student.flatten(0, 1), teacher[0]),
        }
        return Step(distillation_loss(logs, wanted), numbers)

    def optimiser(self) -> Optimiser:
        groups = parameter_groups(self.student.named_parameters())
        return Optimiser(name="adamw", groups=groups, clip_each=self.config.clip)

    def schedules(self) -> Mapping[str, Schedule]:
        c = self.config
        return {
            "lr": WarmupCosine(
                peak=c.base_lr * self.setting.batch_size / 256 if c.lr is None else c.lr,
                end=c.lr_final,
                warmup_epochs=c.warmup_epochs,
                warmup_share=c.warmup_share,
                hold=1,
            ),
            "weight_decay": Constant(c.weight_decay)
            if c.weight_decay_final is None
            else Cosine(c.weight_decay, c.weight_decay_final),
            "ema": Cosine(c.ema_start, 1.0),
            "teacher_temperature": LinearByEpoch(
                c.teacher_temperature_start, c.teacher_temperature, c.teacher_warmup_epochs
            ),
            "last_layer": OnAfter(c.freeze_last_layer),
        }

    @torch.no_grad()
    def before_step(self, schedule: Mapping[str, float]) -> None:
        """While the last layer is frozen it has no gradient, so that neither decay nor momentum moves it."""
        if not schedule["last_layer"]:
            for parameter in self.student.head.last_layer.parameters():
                parameter.grad = None

    def after_step(self, schedule: Mapping[str, float]) -> None:
        ema_update(self.teacher, self.student, schedule["ema"])

    def downstream(self) -> Encoder:
        return self.teacher.encoder
