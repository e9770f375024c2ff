"""What happens around the loop: curves, the progress line, the models to keep."""

import math
import sys
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import Callback, EarlyStopping
from tqdm import tqdm

from chexmsn.core.errors import UserError
from chexmsn.core.files import write_atomic
from chexmsn.metrics.thresholds import choose_thresholds
from chexmsn.models.artefact import save_classifier, save_encoder
from chexmsn.training.loop import ClassifierLoop, Loop
from chexmsn.training.meter import Meter
from chexmsn.training.sharding import part, whole


class StopEarly(EarlyStopping):
    """Ends a run that no longer improves; one that was killed between its last epoch and its end goes no further."""

    def on_train_start(self, trainer: L.Trainer, loop: Loop) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class StayFinite(Callback):
    """Ends a run whose weights are no longer numbers, before they are judged or kept."""

    def on_validation_start(self, trainer: L.Trainer, loop: Loop) -> None:
        self._check(trainer, loop)

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        self._check(trainer, loop)

    def on_save_checkpoint(self, trainer: L.Trainer, loop: Loop, checkpoint: dict[str, Any]) -> None:
        self._check(trainer, loop)

    def _check(self, trainer: L.Trainer, loop: Loop) -> None:
        if not all(part(weight).isfinite().all() for weight in loop.method.parameters()):
            raise UserError(
                f"training diverged in epoch {trainer.current_epoch + 1}, its weights are no longer numbers: "
                "choose a smaller learning rate or another precision, and a new --out"
            )


class KeepEncoder(Callback):
    """Writes the encoder to use downstream at the end of every epoch."""

    def __init__(self, folder: Path, provenance: dict[str, Any]):
        self.folder = folder
        self.provenance = provenance

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        encoder = whole(loop.method.downstream())
        if trainer.is_global_zero:
            save_encoder(self.folder, encoder, self.provenance | {"epochs_done": trainer.current_epoch + 1})


class History(Callback):
    """Writes the curves, one row per epoch, to `history.csv`."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        if not trainer.is_global_zero:
            return
        metrics = {
            name.removesuffix("_epoch"): value.item()
            for name, value in trainer.callback_metrics.items()
            if not name.endswith("_step")
        }
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step} | dict(sorted(metrics.items()))
        rows = pd.DataFrame([*self._earlier(trainer.current_epoch), row])
        write_atomic(self.path, lambda path: rows.to_csv(path, index=False))

    def _earlier(self, epoch: int) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        rows = pd.read_csv(self.path, dtype=str)  # as text, no number changes in its last place
        return rows[rows["epoch"].astype(int) <= epoch].to_dict("records")


class ProgressLine(Callback):
    """One line for the whole run: steps done, rate, time left, and how it goes by the newest numbers there are."""

    FIRST: ClassVar[dict[str, str]] = {  # what a narrow terminal has room for; other numbers of the method follow
        "train/loss": "loss",
        "validation/loss": "validation loss",
        "validation/macro_auroc": "validation AUROC",
        "probe/knn_macro_auroc": "kNN AUROC",
        "health/effective_rank": "rank",
        "train/prototypes_used": "prototypes",
        "train/agreement": "agreement",
        "train/gradient_norm": "gradient",
        "schedule/lr": "lr",
        "train/images_per_second": "images/s",
    }

    def __init__(self, title: str, meter: Meter):
        self.title = title
        self.meter = meter

    def on_train_start(self, trainer: L.Trainer, loop: Loop) -> None:
        self.bar = tqdm(
            total=loop.total_steps,
            initial=trainer.global_step,
            desc=self.title,
            unit="step",
            mininterval=0.2 if sys.stderr.isatty() else 15.0,
            dynamic_ncols=True,
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self._tell(trainer)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        epoch = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.meter.latest |= {name: value for name, value in epoch.items() if not math.isnan(value)}
        self._tell(trainer)

    def _tell(self, trainer: L.Trainer) -> None:
        numbers = self.meter.latest
        others = [name for name in numbers if name.startswith("train/") and name not in self.FIRST]
        shown = self.FIRST | {name: name.removeprefix("train/").replace("_", " ") for name in others}
        told = {label: f"{numbers[name]:.4g}" for name, label in shown.items() if name in numbers}
        self.bar.set_postfix({"epoch": trainer.current_epoch + 1} | told, refresh=False)

    def on_train_end(self, trainer: L.Trainer, loop: Loop) -> None:
        self.bar.close()

    def on_exception(self, trainer: L.Trainer, loop: Loop, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


class KeepBest(Callback):
    """Writes the classifier with the best validation AUROC so far, with thresholds chosen on the validation split.

    Its state is part of the checkpoint to resume from, so a resumed run still knows what it has to beat.
    """

    def __init__(self, folder: Path, provenance: dict[str, Any]):
        self.folder = folder
        self.provenance = provenance
        self.best: float | None = None

    def on_validation_end(self, trainer: L.Trainer, loop: ClassifierLoop) -> None:
        if trainer.sanity_checking:
            return
        score = trainer.callback_metrics["validation/macro_auroc"].item()
        if self.best is not None and not score > self.best:
            return
        self.best = score
        logits, labels = loop.validated()
        if trainer.is_global_zero:
            classifier = loop.method.downstream()
            probabilities, targets = logits.sigmoid().cpu().numpy(), labels.cpu().numpy()
            thresholds = choose_thresholds(probabilities, targets, classifier.findings)
            reached = {"epoch": trainer.current_epoch + 1, "validation_macro_auroc": score}
            save_classifier(self.folder, classifier, thresholds=thresholds, provenance=self.provenance | reached)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]


class KeepClassifier(Callback):
    """Writes the classifier at the end of every epoch, where there is no validation split to choose on."""

    def __init__(self, folder: Path, provenance: dict[str, Any]):
        self.folder = folder
        self.provenance = provenance

    def on_train_epoch_end(self, trainer: L.Trainer, loop: Loop) -> None:
        if trainer.is_global_zero:
            reached = {"epoch": trainer.current_epoch + 1}
            save_classifier(self.folder, loop.method.downstream(), thresholds={}, provenance=self.provenance | reached)
