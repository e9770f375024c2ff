"""Probabilities for a folder of images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, UInt8
from torch.utils.data import DataLoader, Dataset

from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.core.files import write_atomic
from chexmsn.core.limits import check_limits
from chexmsn.core.progress import progress
from chexmsn.data.decode import Fit, Rendering, UnreadableImage, decode, enough_for, fit_square, to_depth
from chexmsn.evaluation.adapters._model import Model
from chexmsn.evaluation.adapters.chexmsn import model_of
from chexmsn.evaluation.scoring import clean_scores
from chexmsn.models.artefact import ClassifierArtefact, load_classifier

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm", ".dicom")
FULL_FIELD = 256 / 224  # the side that an image is fitted to, over the side that the network sees of it


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Which images to score, and with what.

    Attributes:
        model: training run, classifier folder or checkpoint.
        images: folder of JPEG, PNG or DICOM images of any size, searched with all its subfolders.
        out: CSV file to write: one row per image, one probability per finding.
        fit: how an image becomes a square (crop, stretch or pad); as in the pack it was trained on when empty.
        rendering: how DICOM is shown: window (that of the file) or mimic-cxr-jpg (as MIMIC-CXR-JPG was rendered).
        batch_size: images at once.
        workers: processes that read images; 0 reads in the main process.
        device: auto, cpu or gpu.
    """

    model: Path
    images: Path
    out: Path
    fit: Fit | None = None
    rendering: Rendering = "window"
    batch_size: int = 64
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self, batch_size="[1, inf)", workers="[0, inf)")


def predict(config: PredictConfig) -> Path:
    """Write the probabilities of all images of a folder; returns the CSV file.

    Rows are sorted by path. Images that cannot be read are left out and listed with the reason beside the
    output, in `<name>.unreadable.csv`. Both files appear whole, at the end; earlier ones are replaced.

    Raises:
        UserError: no such folder or model, no (readable) image, an output that is a folder, a model that diverged.
    """
    device = choose_device(config.device)
    if config.out.is_dir():
        raise UserError(f"the output is one CSV file and {config.out} is a folder: add a file name")
    if config.out.exists() and not config.out.resolve().is_file():
        raise UserError(f"the output is one CSV file and {config.out} is none: choose another place")
    config.out.parent.mkdir(parents=True, exist_ok=True)  # an impossible place is told before the work
    names = image_names(config.images)
    artefact = load_classifier(config.model)
    model = model_of(artefact).to(device)
    size, fit = round(model.input.size * FULL_FIELD), config.fit or _fit_of(artefact)
    files = _Files(config.images, names, size, fit, config.rendering)
    batches = DataLoader(files, config.batch_size, num_workers=config.workers, collate_fn=list)
    read: list[Read] = []
    scores: list[Float32[np.ndarray, "B C"]] = []
    for batch in progress(batches, total=len(batches), title="predict", unit="batch"):
        read += [file._replace(square=None) for file in batch]
        if squares := [file.square for file in batch if file.square is not None]:
            scores.append(_probabilities(model, np.stack(squares)))
    _list_unreadable({file.name: file.fault for file in read if file.fault}, config.out)
    if not scores:
        raise UserError(f"none of the {len(names)} images in {config.images} could be read: see {_beside(config.out)}")
    table = pd.DataFrame(np.concatenate(scores), columns=list(artefact.findings))
    table.insert(0, "image", [file.name for file in read if not file.fault])
    write_atomic(config.out, lambda path: table.to_csv(path, index=False))
    return config.out


def _fit_of(artefact: ClassifierArtefact) -> Fit:
    """How the images that a classifier was trained on became squares."""
    return artefact.provenance.get("training", {}).get("data", {}).get("fit", "crop")


def image_names(folder: Path) -> list[str]:
    """The paths of all JPEG, PNG and DICOM files below a folder, relative to it, sorted.

    Raises UserError where there is no folder, or none of them in it.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the folder that holds the images")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    if not names:
        raise UserError(f"{folder} holds no images ({', '.join(SUFFIXES)}): give the folder that does")
    return names


class Read(NamedTuple):
    """A file that was read: its image, or what was wrong with it."""

    name: str
    square: UInt8[np.ndarray, "S S"] | None
    fault: str


class _Files(Dataset):
    """The images of a folder, fitted to squares."""

    def __init__(self, folder: Path, names: Sequence[str], size: int, fit: Fit, rendering: Rendering) -> None:
        self.folder, self.names, self.size, self.fit, self.rendering = folder, names, size, fit, rendering

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Read:
        name = self.names[index]
        try:
            pixels = decode(self.folder / name, enough_for(self.size, self.fit), self.rendering).pixels
        except UnreadableImage as error:
            return Read(name, None, str(error))
        return Read(name, to_depth(fit_square(pixels, self.size, self.fit), np.dtype(np.uint8)), "")


def _probabilities(model: Model, squares: UInt8[np.ndarray, "B S S"]) -> Float32[np.ndarray, "B C"]:
    return clean_scores(model, torch.from_numpy(squares))


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}.unreadable.csv")


def _list_unreadable(faults: dict[str, str], out: Path) -> None:
    """Write the list of what was left out; an old list goes where there is nothing to put in it."""
    _beside(out).unlink(missing_ok=True)
    if faults:
        table = pd.DataFrame({"image": faults.keys(), "reason": faults.values()})
        write_atomic(_beside(out), lambda path: table.to_csv(path, index=False))
        log.warning("%d images could not be read and were left out: see %s", len(faults), _beside(out))
