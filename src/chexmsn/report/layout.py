"""What every figure shares: panels in rows, axes that are named once, names above."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from chexmsn.report.style import NARROW, WIDE, Look

_LETTERS_PER_INCH, _KEY_WIDTH = 13, 9  # of legend text; the line and marker of an entry, in letters


def panels_of(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of `columns`; the page's width, or a phone's where there is one column."""
    width = NARROW if columns == 1 else WIDE
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.07, wspace=0.03, hspace=0.05)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, number in zip_longest(axes, range(count)):
        if number is None:
            axis.remove()
    return figure, list(axes[:count])


def entitle(axis: Axes, title: str, columns: int) -> None:
    """A title above a panel of named rows: on a phone the names leave little room, and it ends where the panel ends."""
    axis.set_title(title, loc="left" if columns > 1 else "right")


def only_left(axes: Sequence[Axes], columns: int, label: str = "") -> None:
    """The panels of a row share their vertical axis: it is named and numbered once."""
    for number, axis in enumerate(axes):
        leftmost = number % columns == 0
        axis.set_ylabel(label if leftmost else "")
        axis.tick_params(labelleft=leftmost)


def legend(figure: Figure, looks: Mapping[str, Look], more: Sequence[Line2D] = ()) -> None:
    """Names above the panels: in one row if they fit, else in as many columns as the longest allows."""
    if not looks and not more:
        return
    models = [Line2D([], [], color=k.color, marker=k.marker, linestyle=k.line, label=k.name) for k in looks.values()]
    handles = [*models, *more]
    widths = [len(handle.get_label()) + _KEY_WIDTH for handle in handles]
    room = int(figure.get_figwidth() * _LETTERS_PER_INCH)
    columns = len(handles) if sum(widths) <= room else max(room // max(widths), 1)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)
