"""A contact sheet: what every finding looks like, from the front, at the bedside and from the side."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from chexmsn.data.phantom.people import DRAWN, FINDINGS, body_of, course
from chexmsn.data.phantom.picture import Spec, radiograph, technique_of

VIEWS = ("PA", "AP", "LATERAL")
CAPTION = 16  # pixels


def contact_sheet(
    path: Path,
    findings: Sequence[str] = FINDINGS,
    *,
    size: int = 128,
    across: int = 2,
    seed: int = 0,
    severity: float = 0.75,
) -> None:
    """Write a PNG in which each finding has three patients, one per view; `across` findings stand side by side."""
    width, height = len(VIEWS) * size, size + CAPTION
    sheet = Image.new("L", (across * width, -(-len(findings) // across) * height))
    pen = ImageDraw.Draw(sheet)
    for number, finding in enumerate(findings):
        row, column = divmod(number, across)
        left, top = column * width, row * height
        pen.text((left + 4, top + 2), finding, fill=255)
        for place, view in enumerate(VIEWS):
            pixels = sample(finding, len(VIEWS) * number + place, view=view, size=size, seed=seed, severity=severity)
            sheet.paste(Image.fromarray(pixels), (left + place * size, top + CAPTION))
    sheet.quantize(48).save(path, optimize=True)


def sample(
    finding: str, patient: int, *, view: str, size: int, seed: int = 0, severity: float = 0.75
) -> UInt8[np.ndarray, "S S"]:
    """A patient with this finding alone (or with nothing, for No Finding)."""
    spec = Spec(seed, size, patient, 0, 0)
    first = course(seed, patient)[0]
    visit = replace(first, severities={finding: severity} if finding in DRAWN else {}, views=(view,))
    return radiograph(spec, body_of(seed, patient), visit, view, technique_of(spec, view))
