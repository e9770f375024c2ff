"""Examples of degraded test images: only where somebody asked for them, since they are images of patients."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from chexmsn.core.batch import to_images
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Images
from chexmsn.corruptions import Known, apply, fill_patches, kept_in
from chexmsn.data.collection import Collection
from chexmsn.data.pack import open_pack
from chexmsn.evaluation.conditions import REGIONS
from chexmsn.report.conditions import CLEAN, Condition
from chexmsn.report.plans import hardest
from chexmsn.report.results import StressRun
from chexmsn.report.tables import scores
from chexmsn.views import EVALUATED_SHARE, evaluation_view

SIZE, PATCH = 224, 16  # where the record says nothing


class Strip(NamedTuple):
    """A condition, and each example under it as the text of a JPEG's data address."""

    label: str
    images: list[str]


def examples(run: StressRun, pack: Path, count: int) -> list[Strip]:
    """`count` images of the tested split, clean and under the costliest conditions of a run.

    They are evenly spaced in the pack, degraded with the draws of the test. Where tokens were removed, their pixels are
    shown black; a pattern that needs saliency or anatomy is left out. Raises UserError for a pack that is not the
    tested one, and for more images than it has.
    """
    opened, split = open_pack(pack), run.get("data", "split")
    if opened.fingerprint != run.get("data", "fingerprint"):
        raise UserError(f"{pack} is not what {run.label} was tested on (other content): name the tested pack")
    images = Collection([opened], (split,))
    if not 0 < count <= len(images):
        raise UserError(f"{count} examples cannot be shown of {len(images)} images: choose a number in between")
    rows = np.linspace(0, len(images) - 1, count).astype(np.int64)
    size = run.get("model", "size", default=SIZE)
    shown = run.get("model", "input", "shown", default=EVALUATED_SHARE)
    clean = evaluation_view(to_images(torch.from_numpy(images.pixels(rows))), size, shown)
    pixel_mm = torch.from_numpy(images.pixel_mm[rows]) * (images.size * shown / size)
    draws = Draws.of(run.get("seed", default=0), torch.from_numpy(images.keys[rows])).stream("repeat", 0)
    strips = [Condition(CLEAN, 0.0), *hardest(scores(run.results))]
    patch, mean = run.get("model", "patch", default=PATCH), opened.mean
    return [
        Strip(condition.label, _jpegs(_under(condition, clean, draws, patch, mean, Known(pixel_mm=pixel_mm))))
        for condition in strips
        if not ((region := REGIONS.get(condition.corruption)) and region.needs)
    ]


def _under(condition: Condition, images: Images, draws: Draws, patch: int, mean: float, known: Known) -> Images:
    """As `evaluation.scoring.degrade`, without a model."""
    if condition.corruption == CLEAN:
        return images
    region = REGIONS.get(condition.corruption)
    if region is None:
        return apply(condition.corruption, images, condition.severity, draws, known)
    kept = kept_in(region.pattern, images, patch, condition.severity, draws.stream("patches"), known)
    return fill_patches(images, kept, patch, region.fill or "black", draws.stream("fill"), mean)


def _jpegs(images: Images) -> list[str]:
    return [_address(pixels) for pixels in (images * 255).round().to(torch.uint8).squeeze(1).numpy()]


def _address(pixels: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def check_asked(runs: Sequence[StressRun], pack: Path | None, count: int) -> None:
    """Raises UserError where examples are asked for without a pack, or of no run, or a pack is given in vain."""
    if count and (pack is None or not runs):
        raise UserError("examples need the tested pack and a stress folder: give --pack, or leave --examples out")
    if pack is not None and not count:
        raise UserError("a pack is needed for examples only: say how many with --examples, or leave --pack out")
