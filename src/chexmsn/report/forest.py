"""Values with their intervals, one below the other: what differs, by how much, how surely."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexmsn.report.layout import entitle, legend, only_left, panels_of
from chexmsn.report.style import MUTED, PAPER, RC, Look, shorten

_TITLE_WIDTH = 28  # letters above a panel of half a page, and of a phone


class Forest(NamedTuple):
    """One panel.

    Attributes:
        title: what it shows; empty where the figure's caption says so.
        x: what the values are.
        rows: `row` (label), `series` (key of the looks), `value`, `low`, `high`, `hollow` (bool).
        line: where a line stands to compare with, such as 0 for differences.
    """

    title: str
    x: str
    rows: pd.DataFrame
    line: float | None = None


def forest_figure(panels: Sequence[Forest], looks: Mapping[str, Look], columns: int) -> Figure | None:
    """The panels side by side, with the same rows in each; no values, no figure."""
    panels = [panel._replace(rows=panel.rows[panel.rows.value.notna()]) for panel in panels]
    panels = [panel for panel in panels if len(panel.rows)]
    if not panels:
        return None
    shown = list(dict.fromkeys(row for panel in panels for row in panel.rows.row))
    with mpl.rc_context(RC):
        figure, axes = panels_of(len(panels), columns, height=len(shown) * (0.13 * len(looks) + 0.17) + 0.6)
        for axis, panel in zip(axes, panels, strict=True):
            entitle(axis, "\n".join(wrap(panel.title, _TITLE_WIDTH)), columns)
            _draw(axis, panel, looks, shown)
        only_left(axes, columns)
        legend(figure, looks if len(looks) > 1 else {})
    return figure


def _draw(axis: Axes, panel: Forest, looks: Mapping[str, Look], shown: Sequence[str]) -> None:
    for number, (series, look) in enumerate(looks.items()):
        shift = 0.7 * ((number + 0.5) / len(looks) - 0.5)
        _series(axis, panel.rows[panel.rows.series == series], look, shown, shift)
    axis.grid(axis="x")
    axis.grid(axis="y", visible=False)
    if panel.line is not None:
        axis.axvline(panel.line, color=MUTED, linewidth=1)
    axis.set_yticks(range(len(shown)), [shorten(row, 38) for row in shown])
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_xlabel(panel.x)


def _series(axis: Axes, rows: pd.DataFrame, look: Look, shown: Sequence[str], shift: float) -> None:
    for row in rows.itertuples():
        height = shown.index(row.row) + shift
        axis.hlines(height, row.low, row.high, color=look.color, linewidth=1.4)
        face = PAPER if row.hollow else look.color
        axis.plot(row.value, height, marker=look.marker, color=look.color, markerfacecolor=face, markeredgewidth=1.2)
