"""What labels say of the features while an encoder is pretrained. Nothing is trained, and no weight depends on it."""

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from chexmsn.core.batch import to_images
from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy, canonical
from chexmsn.data.splits import grouped_split, share_of_patients
from chexmsn.metrics.neighbours import knn_scores
from chexmsn.metrics.ranking import auroc
from chexmsn.models.encoder import Encoder
from chexmsn.training.config import ProbeConfig
from chexmsn.training.loop import Loop
from chexmsn.views.plan import evaluation_view

log = logging.getLogger(__name__)

# An image of the probe costs one pass of the encoder forward, an image of training at least as much (MAE, whose encoder
# sees a quarter of the patches three times and which has a decoder besides). One for 40 is 2.5 % at the most.
IMAGES_TRAINED_PER_IMAGE_PROBED = 40
FEWEST = 5  # images of either class that a finding needs on either side
AT_ONCE = 64


class Labelled(NamedTuple):
    """The images of the probe: rows of a collection and their labels, on two sides that share no patient."""

    images: Collection
    findings: tuple[str, ...]
    bank: Int64[np.ndarray, "M"]
    bank_labels: Float32[np.ndarray, "M C"]
    queries: Int64[np.ndarray, "N"]
    query_labels: Float32[np.ndarray, "N C"]


def labelled(images: Collection, config: ProbeConfig, seed: int) -> Labelled | None:
    """About as many labelled images as asked for, divided by patient; None where no finding has enough of both classes.

    Images of the test split are left out. Raises UserError where findings were asked for that cannot be scored.
    """
    asked = tuple(dict.fromkeys(map(canonical, config.findings or images.findings)))
    labels = images.labels(asked, Policy())
    labels[(labels != 0) & (labels != 1)] = np.nan
    usable = np.flatnonzero((images.index["split"] != "test").to_numpy() & ~np.isnan(labels).all(axis=1))
    share = min(1.0, config.images / max(1, len(usable)))
    usable = usable[share_of_patients(images.patients[usable].tolist(), share, seed)]
    side = np.array(grouped_split(images.patients[usable].tolist(), {"bank": 0.75, "queries": 0.25}, seed), dtype=str)
    bank, queries = usable[side == "bank"], usable[side == "queries"]
    enough = enough_of_both(labels[bank]) & enough_of_both(labels[queries])
    if config.findings and not enough.all():
        lacking = ", ".join(np.array(asked)[~enough])
        raise UserError(
            f"the probe needs {FEWEST} images with and {FEWEST} without a finding on either side, and has too few "
            f"for {lacking}: choose other probe.findings or more probe.images"
        )
    if not enough.any():
        return None
    findings = tuple(np.array(asked)[enough].tolist())
    return Labelled(images, findings, bank, labels[bank][:, enough], queries, labels[queries][:, enough])


def enough_of_both(labels: Float32[np.ndarray, "N C"]) -> Bool[np.ndarray, "C"]:
    """Which findings have enough images of either class."""
    return ((labels == 1).sum(axis=0) >= FEWEST) & ((labels == 0).sum(axis=0) >= FEWEST)


def epochs_between(config: ProbeConfig, probed: int, trained_per_epoch: int) -> int:
    """How many epochs lie between two looks: as asked for, or as many as make them cheap.

    Images are counted by process: of several each trains on its share, and probes all.

    >>> epochs_between(ProbeConfig(), 512, 200_000), epochs_between(ProbeConfig(), 512, 5_000)
    (1, 5)
    """
    return config.every or max(1, math.ceil(IMAGES_TRAINED_PER_IMAGE_PROBED * probed / trained_per_epoch))


class OnlineProbe(Callback):
    """Logs `probe/knn_macro_auroc` every `every` epochs: the mean over the findings, by 20 nearest neighbours.

    The encoder is the one used downstream, the images are seen as evaluation sees them. With several processes each
    does all of it, as with validation.
    """

    def __init__(self, images: Labelled, every: int) -> None:
        self.images = images
        self.every = every

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        due = (trainer.current_epoch + 1) % self.every == 0
        # in between there is no number: Lightning would go on giving the last one
        loop.log("probe/knn_macro_auroc", self._score(trainer, loop) if due else math.nan)

    def _score(self, trainer: L.Trainer, loop: Loop) -> float:
        with trainer.precision_plugin.forward_context():
            bank, queries = (
                features(loop.method.downstream(), self.images.images, rows, loop.device)
                for rows in (self.images.bank, self.images.queries)
            )
        labels = torch.from_numpy(self.images.bank_labels).to(bank.device)
        scores = knn_scores(queries, bank, labels).cpu().double().numpy()
        return float(auroc(scores, self.images.query_labels).mean())


@torch.no_grad()
def features(
    encoder: Encoder, images: Collection, rows: Int64[np.ndarray, "N"], device: torch.device
) -> Float[Tensor, "N D"]:
    """Pooled features of these images, float32, in evaluation mode; the encoder is left in the mode it was in."""
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        return torch.cat([_pooled(encoder, images, part, device) for part in batches(rows)])
    finally:
        for module, mode in modes:
            module.training = mode


def _pooled(
    encoder: Encoder, images: Collection, rows: Int64[np.ndarray, "B"], device: torch.device
) -> Float[Tensor, "B D"]:
    pixels = torch.from_numpy(images.pixels(rows)).to(device)
    return encoder.pool(evaluation_view(to_images(pixels), encoder.config.size)).pooled.float()


def batches(rows: Int64[np.ndarray, "N"]) -> Sequence[Int64[np.ndarray, "B"]]:
    """The rows in parts that fit on a device."""
    return np.array_split(rows, math.ceil(len(rows) / AT_ONCE))
