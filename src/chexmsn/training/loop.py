"""The loop: which images, which schedule values, when to step. It does not know which method it runs."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import lightning as L
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.batch import Batch, to_images
from chexmsn.core.distributed import each_for_itself
from chexmsn.core.draws import Draws, key_of
from chexmsn.core.shapes import Labels
from chexmsn.methods._base import AbstractMethod
from chexmsn.metrics.ranking import auroc
from chexmsn.models.classifier import Classifier
from chexmsn.training.compiling import Pass, compiled_pass, one_pass
from chexmsn.training.optimiser import apply_schedule, build_optimiser, clip_gradients
from chexmsn.training.sharding import shard
from chexmsn.views.plan import evaluation_view, make_views


class Loop(L.LightningModule):
    """Feeds a method its views and schedule values, and steps its optimiser.

    Args:
        method: what to train.
        seed: every draw follows from it, the image's key and the epoch.
        steps_per_epoch: optimiser steps in one epoch.
        epochs: epochs of the whole run.
        identity: what a checkpoint tells about itself to whoever loads the encoder from it.
        compile: make one piece of code of a step (`compiling`).

    Attributes:
        gradient_norm: of the last step, before clipping, on the device.
        applied: the values of the schedules at the last step.
    """

    gradient_norm: Float[Tensor, ""]
    applied: dict[str, float]

    def __init__(
        self,
        method: AbstractMethod,
        *,
        seed: int,
        steps_per_epoch: int,
        epochs: int,
        identity: Mapping[str, Any],
        compile: bool = False,
    ):
        super().__init__()
        self.method = method
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * epochs
        self.identity = dict(identity)
        self.compiled = compile

    def schedule(self) -> dict[str, float]:
        """The value of every schedule at the coming optimiser step."""
        step = min(self.global_step, self.total_steps - 1)
        return {name: s.at(step, self.total_steps, self.steps_per_epoch) for name, s in self.method.schedules().items()}

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        draws = Draws.of(self.seed, batch.keys).stream("epoch", self.current_epoch)
        step = self._pass(self.method, self.method.plan, batch.pixels, batch.labels, draws.keys, self.schedule())
        return step._asdict()  # Lightning goes down `loss` and hands all of it to the callbacks

    @cached_property
    def _pass(self) -> Pass:
        if not self.compiled:
            return one_pass
        kept = self.method.downstream()
        encoder = kept.encoder if isinstance(kept, Classifier) else kept
        return compiled_pass(encoder.width, self.device)

    def configure_model(self) -> None:
        """Divide the parameters over the processes, where the strategy made a mesh of them for that."""
        if self.device_mesh is not None:
            shard(self.method, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self._description = self.method.optimiser()
        return build_optimiser(self._description, gradients_are_scaled=self.trainer.precision == "16-mixed")

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        self.gradient_norm = clip_gradients(self._description)
        self.method.before_step(self.schedule())

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        schedule = self.schedule()
        apply_schedule(optimizer, schedule)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.method.after_step(schedule)
        self.applied = schedule

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        # Dropout and stochastic depth draw from torch's own generator: start it anew at each step, so that a resumed
        # run draws what the uninterrupted one draws. (Lightning does not announce the first epoch after a resume.) Each
        # process draws its own numbers: unlike views, masks and corruptions, which are drawn by image, what is dropped
        # from an image depends on how many processes there are.
        torch.manual_seed(key_of("torch", self.seed, self.global_step, self.global_rank))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        prefixes = {module: f"{name}." for name, module in self.named_modules()}
        checkpoint["hyper_parameters"] = self.identity | {"downstream_prefix": prefixes[self.method.downstream()]}


class PretrainingLoop(Loop):
    """Pretraining is judged by its loss on the validation split, on views that are the same every epoch."""

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        draws = Draws.of(self.seed, batch.keys).stream("validation")
        views = make_views(to_images(batch.pixels), self.method.plan, draws.stream("views"))
        with each_for_itself():
            step = self.method.validation_step(views, batch.labels, draws.stream("method"), self.schedule())
        self.log("validation/loss", step.loss, on_epoch=True, batch_size=len(batch.keys), sync_dist=True)


class ClassifierLoop(Loop):
    """Downstream training is judged by the macro AUROC of the whole validation split."""

    def on_validation_epoch_start(self) -> None:
        self._validated: list[tuple[Float[Tensor, "B C"], Labels]] = []

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        classifier = self.method.downstream()
        logits = classifier(evaluation_view(to_images(batch.pixels), classifier.size))
        self._validated.append((logits.float(), batch.labels))

    def on_validation_epoch_end(self) -> None:
        logits, labels = self.validated()
        per_finding = auroc(logits.cpu().double().numpy(), labels.cpu().double().numpy())
        # every process has seen all images; the mean is one number for all, should GPUs differ in the last digit
        self.log("validation/macro_auroc", float(np.nanmean(per_finding)), sync_dist=True)
        with each_for_itself():
            loss = self.method.loss(logits, labels)
        self.log("validation/loss", loss, sync_dist=True)

    def validated(self) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
        """Logits and labels of the validation split in this epoch, in its order."""
        logits, labels = (torch.cat(parts) for parts in zip(*self._validated, strict=True))
        return logits, labels
