"""The look of the figures: one calm palette, told apart by marker and line style as well as by colour.

Colours of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/), chosen to be distinct for people
without full colour vision; their yellow is left out, because it does not show on white.
"""

import re
from collections.abc import Iterable, Sequence
from io import BytesIO, StringIO
from typing import NamedTuple

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# A single hue from pale to deep: order survives without colour vision and in grey print.
BLUES = LinearSegmentedColormap.from_list("chexmsn", ["#eff4f9", "#9cc3e0", "#3a86bd", "#084a80"])
INK, MUTED, RULE, PAPER = "#1d2430", "#5c6675", "#dde1e8", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4a4a4a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "⬢")  # the same as characters
LINES = ("-", (0, (5, 1.6)), (0, (5, 1.4, 1, 1.4)), (0, (1.4, 1.4)), (0, (8, 1.6, 1, 1.6, 1, 1.6)))
WIDE, NARROW = 9.6, 4.0  # inches: page and phone
SHORTEN_AT = 32

RC = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0,
    "text.color": INK,
    "text.parse_math": False,  # a model may be called "a$b"
    "font.size": 9,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "chexmsn",
}


class Look(NamedTuple):
    """How one model is drawn in every figure."""

    name: str
    color: str
    marker: str
    line: str | tuple


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each model, by its place in the report."""
    return {
        label: Look(shorten(label), SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, label in enumerate(labels)
    }


class Key(NamedTuple):
    """A model's sign beside its name in a table: the marker of the figures as a character, and its colour's number."""

    glyph: str
    series: int


def keys(labels: Sequence[str]) -> dict[str, Key]:
    """The sign of each model, by its place in the report."""
    return {label: Key(GLYPHS[i % len(GLYPHS)], i % len(SERIES)) for i, label in enumerate(labels)}


def shorten(text: str, at: int = SHORTEN_AT) -> str:
    """A name that fits a legend: its beginning and its end, which is where names of a series differ.

    >>> shorten("a very long name", 9)
    'a ve…name'
    """
    if len(text) <= at:
        return text
    return f"{text[: at // 2].rstrip()}…{text[len(text) - (at - 1) // 2 :].lstrip()}"


def to_svg(figure: Figure) -> str:
    """The figure as SVG without a date, byte for byte the same for the same numbers."""
    text = StringIO()
    with mpl.rc_context(RC):
        figure.savefig(
            text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")), transparent=True
        )
    return text.getvalue()


def to_png(figure: Figure) -> bytes:
    """The figure as PNG on white, 200 dots per inch."""
    image = BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(image, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return image.getvalue()


def inline(svg: str, name: str, description: str) -> Markup:
    """An SVG file's text as a part of a page.

    What the page does not need goes: fonts, ids that nothing refers to, digits beyond a hundredth of a point.
    The ids that stay are prefixed by the figure's name, so that figures do not share clip paths, and the palette
    becomes style variables of the page, which is how a figure follows light and dark mode.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the page's own
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"\d+\.\d{2}\d+", _shortened, tag[0]), svg)  # what is written stays
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda id_: id_[0] if id_[1] in used else "", svg)
    svg = re.sub(r"\n\s*", "\n", re.sub(r"<g>\s*<g/>\s*", "<g>", svg))
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for variable, color in _variables():
        svg = svg.replace(color, f"var(--{variable})")
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    return Markup(svg.replace("<svg", str(label), 1))


def _shortened(number: re.Match) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _variables() -> Iterable[tuple[str, str]]:
    yield from {"ink": INK, "muted": MUTED, "rule": RULE, "card": PAPER}.items()
    yield from ((f"series-{i}", color) for i, color in enumerate(SERIES))
