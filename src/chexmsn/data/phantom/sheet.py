"""A contact sheet: every finding beside the same chest without it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from chexmsn.data.phantom.people import DRAWN, FINDINGS, body_of, course
from chexmsn.data.phantom.picture import Spec, radiograph, technique_of

CAPTION = 16


def contact_sheet(
    path: Path,
    *,
    findings: Sequence[str] = FINDINGS,
    samples: int = 4,
    size: int = 192,
    seed: int = 0,
    severity: float = 0.75,
) -> None:
    """Write a PNG with one row per finding and `samples` patients, every third in bed and every fourth from the side."""
    sheet = Image.new("L", (samples * size, len(findings) * (size + CAPTION)))
    pen = ImageDraw.Draw(sheet)
    for row, finding in enumerate(findings):
        pen.text((4, row * (size + CAPTION) + 2), finding, fill=255)
        for column in range(samples):
            pixels = sample(
                finding,
                row * samples + column,
                view=("PA", "AP", "PA", "LATERAL")[column % 4],
                size=size,
                seed=seed,
                severity=severity,
            )
            sheet.paste(Image.fromarray(pixels), (column * size, row * (size + CAPTION) + CAPTION))
    sheet.save(path, optimize=True)


def sample(finding: str, patient: int, *, view: str, size: int, seed: int = 0, severity: float = 0.75) -> np.ndarray:
    """A patient with this finding alone (or with nothing, for No Finding)."""
    spec = Spec(seed, size, patient, 0, 0)
    first = course(seed, patient)[0]
    visit = replace(first, severities={finding: severity} if finding in DRAWN else {}, views=(view,))
    return radiograph(spec, body_of(seed, patient), visit, view, technique_of(spec, view))
