"""A model's scores of many images under many conditions, resumable image by image.

A batch of images is read once and every condition is made from it in turn, so no degraded copy is
ever stored. Corruptions act on the image in [0, 1] at the network's resolution, before the model's
own normalisation.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from chexmsn.core.batch import to_images
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.files import write_atomic
from chexmsn.core.progress import progress
from chexmsn.core.shapes import Images, Kept, Keys, Pixels
from chexmsn.corruptions import NOTHING_KNOWN, Known, apply, fill_patches, kept_count, kept_in
from chexmsn.data.collection import Collection
from chexmsn.data.loader import Ahead, Batches, From
from chexmsn.evaluation.adapters._model import Model
from chexmsn.evaluation.conditions import CLEAN, REGIONS, Condition, needed_by
from chexmsn.evaluation.facts import Facts, saliency_of
from chexmsn.views import evaluation_view

_TOKENLESS = {
    "cnn": "is a CNN and has no tokens to remove",
    "transformer": "keeps its tokens to itself, none can be removed from outside",
    "callable": "is not known to have tokens that could be removed",
}


Rows = Int64[np.ndarray, "B"]
"""Numbers of images in their collection."""


class Cell(NamedTuple):
    """A condition and the number of the repeat: another repeat has other draws."""

    condition: Condition
    repeat: int


class Degraded(NamedTuple):
    """What a model is shown: images, and which of their patches (all, where not said)."""

    images: Images
    kept: Kept | None


def cells_of(conditions: Sequence[Condition], repeats: int) -> list[Cell]:
    """Every condition as often as asked for; the clean one, which has no draws, once."""
    return [Cell(condition, n) for condition in conditions for n in range(1 if condition == CLEAN else repeats)]


def why_not(condition: Condition, model: Model, unknown: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """The sentence that says why a condition does not apply to a model; None where it does.

    `unknown` says what is not known of the images, saliency or anatomy, each with the reason.
    """
    region = REGIONS.get(condition.corruption)
    if region is None:
        return None
    if region.fill is None and not model.supports_token_removal:
        black = region._replace(fill="black").name
        return f"{model.network} {_TOKENLESS[model.kind]}: see {black}"
    if region.needs in unknown:
        return unknown[region.needs]
    try:
        kept_count(model.patches, condition.severity)
    except UserError:
        return f"a share of {condition.severity:g} leaves none of {model.patches} patches"
    return None


def degrade(
    images: Images,
    condition: Condition,
    draws: Draws,
    model: Model,
    dataset_mean: float,
    known: Known = NOTHING_KNOWN,
) -> Degraded:
    """Images under a condition.

    The draws do not depend on severity: masks are nested, and noise grows on one field. Patches are
    chosen alike whether their tokens are removed or their pixels filled. `dataset_mean` is the mean training
    pixel of the tested pack, in [0, 1]: what `patches-dataset-mean` fills with.
    """
    if condition == CLEAN:
        return Degraded(images, None)
    region = REGIONS.get(condition.corruption)
    if region is None:
        return Degraded(apply(condition.corruption, images, condition.severity, draws, known), None)
    kept = kept_in(region.pattern, images, model.patch, condition.severity, draws.stream("patches"), known)
    if region.fill is None:
        return Degraded(images, kept)
    filled = fill_patches(images, kept, model.patch, region.fill, draws.stream("fill"), dataset_mean)
    return Degraded(filled, None)


@dataclass(frozen=True)
class Scorer:
    """Gives a batch the probabilities of some findings under every cell.

    Attributes:
        model: on the device to compute on.
        outputs: which of its outputs are asked for.
        cells: the conditions and repeats.
        seed: every draw follows from it, the image's key, the corruption and the repeat.
        dataset_mean: the mean training pixel of the tested pack, in [0, 1].
        facts: what is known of the images beside their pixels.
    """

    model: Model
    outputs: tuple[int, ...]
    cells: Sequence[Cell]
    seed: int
    dataset_mean: float
    facts: Facts

    def passes(self, pixels: Pixels, keys: Keys, rows: Rows) -> Iterator[Float[Tensor, "B C"]]:
        """The probabilities under one cell after the other, on the device: nothing waits for them."""
        images = view(pixels, self.model)
        columns = torch.tensor(self.outputs, device=self.model.device)
        known = self._known(images, rows)
        draws = Draws.of(self.seed, keys.to(self.model.device))
        for cell in self.cells:
            repeated = draws.stream("repeat", cell.repeat)
            shown = degrade(images, cell.condition, repeated, self.model, self.dataset_mean, known)
            yield self.model.scores(*shown).index_select(1, columns)

    def check(self, scores: Float32[np.ndarray, "K B C"], rows: Rows) -> None:
        """Raise UserError where what the passes say of a batch is not made of numbers."""
        findings = [self.model.findings[output] for output in self.outputs]
        for cell, of_cell in zip(self.cells, scores, strict=True):
            _check_numbers(of_cell, findings, cell, rows)

    def _known(self, images: Images, rows: Rows) -> Known:
        """What is known of a batch; the model is asked for saliency where it is needed and nobody gave it."""
        known = self.facts.known(rows, self.model)
        if known.saliency is None and "saliency" in needed_by(cell.condition for cell in self.cells):
            return replace(known, saliency=saliency_of(self.model, images, self.outputs))
        return known


def view(pixels: Pixels, model: Model) -> Images:
    """What a model sees of images, on its device and of its size."""
    return evaluation_view(to_images(pixels.to(model.device)), model.input.size, model.input.shown)


def clean_scores(model: Model, pixels: Pixels) -> Float32[np.ndarray, "B C"]:
    """What a model answers to clean images as they lie in a pack. Raises UserError where that is not a number."""
    scores = model.scores(view(pixels, model)).cpu().numpy()
    if not np.isfinite(scores).all():
        raise UserError(
            f"the answers of {model.name} to clean images are not numbers: its training diverged, or it is fed "
            "wrongly; take another checkpoint, or see value_range, mean and std"
        )
    return scores


def _check_numbers(scores: Float32[np.ndarray, "B C"], findings: Sequence[str], cell: Cell, rows: Rows) -> None:
    """Raise UserError with the condition and the image: by its row, since its key may tell who the patient is."""
    bad = np.argwhere(~np.isfinite(scores))
    if not len(bad):
        return
    condition, (place, finding) = cell.condition, bad[0]
    raise UserError(
        f"the model's answers to {len({*bad[:, 0]})} of {len(rows)} images are not numbers under "
        f"{condition.corruption} at {condition.severity:g} (repeat {cell.repeat}), the first to row {rows[place] + 1} "
        f"of labels.parquet, for {findings[finding]}: take another checkpoint, or leave the condition out"
    )


@dataclass(frozen=True)
class Parts:
    """Scores that are done, one file per batch, so that a stopped run goes on where it was.

    Reading raises UserError for a file that is damaged.
    """

    folder: Path

    def keep(self, rows: Rows, scores: Float32[np.ndarray, "K B C"], seconds: float) -> None:
        """Write the scores of a batch and how long it took, in one step."""
        kept = {"rows": rows, "scores": scores, "seconds": seconds}
        write_atomic(self.folder / f"{rows[0]:08}.npz", lambda path: np.savez(path, **kept))

    def all(self, count: int) -> tuple[Int64[np.ndarray, "N"], Float32[np.ndarray, "K N C"]]:
        """The rows that have their scores, in ascending order, and the scores, of `count` passes.

        Raises UserError where another number of passes was made.
        """
        parts = list(self._read()) or [_nothing(count)]
        if others := {len(part["scores"]) for part in parts} - {count}:
            raise UserError(
                f"{self.folder} holds scores under {others.pop()} conditions, not {count}: it was begun by another "
                "version, so remove the folder of the run and start anew"
            )
        rows = np.concatenate([part["rows"] for part in parts])
        order = np.argsort(rows)
        return rows[order], np.concatenate([part["scores"] for part in parts], axis=1)[:, order]

    @property
    def seconds(self) -> float:
        """How long all that is kept took, here and in folders below, over all starts."""
        return sum((float(_part(file).get("seconds", 0)) for file in self.folder.rglob("[0-9]*.npz")), start=0.0)

    def _read(self) -> Iterator[dict[str, np.ndarray]]:
        return map(_part, sorted(self.folder.glob("[0-9]*.npz")))


def _nothing(count: int) -> dict[str, np.ndarray]:
    return {"rows": np.empty(0, np.int64), "scores": np.empty((count, 0, 0), np.float32)}


def _part(file: Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as stream, np.load(stream) as part:
            return dict(part)
    except (OSError, ValueError, EOFError, BadZipFile):
        raise UserError(f"{file} is damaged: remove it, and its images are scored again") from None


Passes = Callable[[Pixels, Keys, Rows], Iterator[Float[Tensor, "B C"]]]
"""Says something of a batch of images, again and again: under one condition after the other, for example.

What it says stays on the device until the batch is done, so that a GPU always has the next pass before it.
"""

Check = Callable[[Float32[np.ndarray, "K B C"], Rows], None]
"""Raises UserError where what the passes say of a batch is not made of numbers."""


def score(
    passes: Passes, count: int, images: Collection, parts: Parts, *, batch_size: int, title: str, check: Check
) -> Float32[np.ndarray, "K N C"]:
    """What `count` passes say of all images, written to `parts` on the way; what is there is not made again.

    The next batch is read while one is scored. Raises UserError for parts of another number of passes, before any is
    made, and as `check` does of a batch.
    """
    done = set(parts.all(count)[0].tolist())
    todo = np.array([row for row in range(len(images)) if row not in done], dtype=np.int64)
    batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    read = Ahead(Batches(images, None), From(batches, 0))
    found = ((b.rows.numpy(), said) for b in read for said in passes(b.pixels, b.keys, b.rows.numpy()))
    made: list[Float[Tensor, "B C"]] = []
    clock = time.monotonic()
    for rows, said in progress(found, total=count * len(batches), title=title, unit="pass"):
        made.append(said)
        if len(made) == count:
            scores = torch.stack(made).cpu().numpy()
            check(scores, rows)
            now = time.monotonic()
            parts.keep(rows, scores, now - clock)
            made, clock = [], now
    return parts.all(count)[1]
