"""Writes the table of all corruptions into corruptions.md, from what the code says of them, and draws corruptions.png.

    python docs/corruptions.py

The picture shows each corruption at severities 1 to 5 on a drawn radiograph of 224 px, at half that size.
"""

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from chexmsn.core import lookup
from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.files import write_atomic
from chexmsn.corruptions import LEVELS_DEFINED_AT, Known, apply
from chexmsn.data.phantom.people import body_of
from chexmsn.data.phantom.picture import field_of
from chexmsn.data.phantom.sheet import CAPTION, sample

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- table: python docs/corruptions.py -->\n", "<!-- end of the table -->\n"
FAMILIES = ("imagenet-c", "radiographic", "missing", "held-back")
SEVERITIES = (1, 2, 3, 4, 5)
THUMBNAIL, ACROSS, GAP, GRAYS = 112, 3, 12, 32
PATIENT, DRAW = 3, "sheet"


def corruptions() -> list[tuple[str, ModuleType]]:
    """All corruptions with their names, family by family."""
    loaded = [(name, lookup.load("chexmsn.corruptions", name)) for name in lookup.names("chexmsn.corruptions")]
    return sorted(loaded, key=lambda named: FAMILIES.index(named[1].FAMILY))


def table() -> str:
    """One row per corruption, in Markdown."""
    rows = [(f"`{name}`", c.FAMILY, c.TITLE, c.CAUSE, _levels(c), c.UNIT, c.SOURCE) for name, c in corruptions()]
    titles = ("name", "family", "what it is", "why it happens", "severity 1 to 5", "unit", "source")
    return "".join(f"| {' | '.join(row)} |\n" for row in (titles, ("---",) * len(titles), *rows))


def _levels(corruption: ModuleType) -> str:
    return " ".join(map(_number, dict.fromkeys(corruption.LEVELS)))


def _number(level: float) -> str:
    """A level as short as it can be told exactly: 0.25, 1/64."""
    return f"{level:g}" if level == float(f"{level:.4f}") else str(Fraction(level).limit_denominator(2000))


def with_table(page: str) -> str:
    """The page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def sheet() -> Image.Image:
    """Every corruption at five severities, three corruptions side by side."""
    shown = corruptions()
    width, height = len(SEVERITIES) * THUMBNAIL + GAP, THUMBNAIL + CAPTION
    page = Image.new("L", (ACROSS * width, -(-len(shown) // ACROSS) * height))
    pen = ImageDraw.Draw(page)
    for number, (name, corruption) in enumerate(shown):
        row, column = divmod(number, ACROSS)
        left, top = column * width, row * height
        pen.text((left + 4, top + 2), f"{name}: {_levels(corruption)} ({corruption.UNIT})", fill=255)
        page.paste(Image.fromarray(np.concatenate(thumbnails(name), axis=1)), (left, top + CAPTION))
    return page


def thumbnails(name: str) -> list[UInt8[np.ndarray, "S S"]]:
    """A drawn radiograph under a corruption, at each severity."""
    size = LEVELS_DEFINED_AT
    pixels = sample("No Finding", PATIENT, view="PA", size=size)
    image = torch.from_numpy(pixels)[None, None] / 255
    known = Known(pixel_mm=torch.tensor([field_of(0, PATIENT, body_of(0, PATIENT)) / size]))
    corrupted = [apply(name, image, severity, Draws.of(0, keys_of([DRAW])), known) for severity in SEVERITIES]
    small = [torch.nn.functional.adaptive_avg_pool2d(image, THUMBNAIL)[0, 0] for image in corrupted]
    return [(255 * image).round().byte().numpy() for image in small]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    picture = sheet().quantize(GRAYS)
    write_atomic(PAGE.with_suffix(".png"), lambda path: picture.save(path, optimize=True))
