"""The figures. Each function takes a table and the looks of the models, and draws `columns` panels side by side."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from chexmsn.report.conditions import (
    CLEAN,
    Condition,
    conditions,
    corruption_order,
    corruption_title,
    severity_text,
)
from chexmsn.report.curves import Panel
from chexmsn.report.style import BLUES, MUTED, NARROW, PAPER, RC, WIDE, Look, shorten
from chexmsn.report.tables import CHANCE
from chexmsn.report.words import DASH, HARD_SPACE

Looks = Mapping[str, Look]
_FEW_POINTS = 25  # a curve of more points is drawn without markers
_LETTERS_PER_INCH, _KEY_WIDTH = 13, 9  # of legend text; the line and marker of an entry, in letters


def missing_figure(rows: pd.DataFrame, looks: Looks, columns: int = 2) -> Figure | None:
    """Macro AUROC against the share of patches that is gone, one panel per way of taking them away."""
    figure = _degradation_figure(rows, looks, columns, "share of patches gone")
    if figure:
        for axis in figure.axes:
            axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=f"{HARD_SPACE}%"))
    return figure


def severity_figure(rows: pd.DataFrame, looks: Looks, columns: int = 3) -> Figure | None:
    """Macro AUROC against severity, one panel per corruption."""
    return _degradation_figure(rows, looks, columns, "severity")


def _degradation_figure(rows: pd.DataFrame, looks: Looks, columns: int, x_label: str) -> Figure | None:
    rows = rows[(rows.status == "ok") & rows.value.notna()]
    names = sorted(set(rows.corruption) - {CLEAN}, key=corruption_order)
    if not names:
        return None
    with mpl.rc_context(RC):
        figure, axes = _panels(len(names), columns, height=2.75)
        for axis, name in zip(axes, names, strict=True):
            axis.set_title(corruption_title(name))
            for label, look in looks.items():
                _degradation(axis, _with_clean(rows[rows.model == label], name), look)
            _chance(axis)
            axis.set_xlabel(x_label)
        _share_limits(axes, rows)
        _only_left(axes, columns, "macro AUROC")
        _legend(figure, looks)
    return figure


def _with_clean(rows: pd.DataFrame, corruption: str) -> pd.DataFrame:
    """The points of one curve: the clean value belongs to every corruption, if the model was tested under it at all."""
    points = rows[rows.corruption == corruption]
    clean = rows[rows.corruption == CLEAN]
    return pd.concat([clean, points]).sort_values("severity") if len(points) else points


def _degradation(axis: Axes, points: pd.DataFrame, look: Look) -> None:
    """A curve with its band; conditions that were seen in training get hollow markers."""
    axis.fill_between(points.severity, points.low, points.high, color=look.color, alpha=0.13, linewidth=0)
    axis.plot(points.severity, points.value, color=look.color, linestyle=look.line)
    seen = points.seen_in_training.astype(bool)
    style = {"marker": look.marker, "linestyle": "none", "markeredgecolor": look.color, "markeredgewidth": 1.2}
    axis.plot(points.severity[~seen], points.value[~seen], markerfacecolor=look.color, **style)
    axis.plot(points.severity[seen], points.value[seen], markerfacecolor=PAPER, **style)


def _chance(axis: Axes) -> None:
    axis.axhline(CHANCE, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    axis.annotate("chance", (1, CHANCE), (-2, -2), xycoords=("axes fraction", "data"), textcoords="offset points",
                  ha="right", va="top", fontsize=8, color=MUTED)  # fmt: skip


def _share_limits(axes: Sequence[Axes], rows: pd.DataFrame) -> None:
    ends = rows[["value", "low", "high"]].to_numpy(dtype=float)
    bottom, top = min(np.nanmin(ends), CHANCE) - 0.035, min(np.nanmax(ends) + 0.02, 1.005)
    for axis in axes:
        axis.set_ylim(bottom, top)


def losses_figure(rows: pd.DataFrame, looks: Looks, columns: int = 2) -> Figure | None:
    """The drop of macro AUROC under each condition of `rows`: one line per model with its interval."""
    rows = rows[(rows.status == "ok") & rows.absolute_drop.notna()]
    shown = conditions(rows)
    if not shown:
        return None
    with mpl.rc_context(RC):
        figure, (axis,) = _panels(1, columns, height=len(shown) * (0.13 * len(looks) + 0.17) + 0.6)
        for number, (label, look) in enumerate(looks.items()):
            _drops(axis, rows[rows.model == label], look, shown, shift=0.7 * ((number + 0.5) / len(looks) - 0.5))
        axis.grid(axis="x")
        axis.grid(axis="y", visible=False)
        axis.axvline(0, color=MUTED, linewidth=1)
        axis.set_yticks(range(len(shown)), [_short_label(condition) for condition in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set_xlabel("drop of macro AUROC")
        _legend(figure, looks)
    return figure


def _drops(axis: Axes, rows: pd.DataFrame, look: Look, shown: Sequence[Condition], shift: float) -> None:
    for _, row in rows.iterrows():
        height = shown.index(Condition(row.corruption, row.severity)) + shift
        axis.hlines(height, row.absolute_drop_low, row.absolute_drop_high, color=look.color, linewidth=1.4)
        face = PAPER if row.seen_in_training else look.color
        axis.plot(
            row.absolute_drop, height, marker=look.marker, color=look.color, markerfacecolor=face, markeredgewidth=1.2
        )


def findings_figure(rows: pd.DataFrame, looks: Looks, columns: int = 2) -> Figure | None:
    """AUROC of every finding under every condition of `rows`: one heat map per model."""
    names, shown = list(dict.fromkeys(rows.finding[rows.status == "ok"])), conditions(rows)
    if not names:
        return None
    with mpl.rc_context(RC):
        figure, axes = _panels(len(looks), columns, height=0.27 * len(names) + 1.7)
        for axis, (label, look) in zip(axes, looks.items(), strict=True):
            axis.set_title(look.name)
            _heat_map(axis, _grid(rows[rows.model == label], names, shown))
            axis.set_xticks(
                np.arange(len(shown)) + 0.5,
                [_short_label(c) for c in shown],
                rotation=40,
                ha="right",
                rotation_mode="anchor",
            )
            axis.set_yticks(np.arange(len(names)) + 0.5, [shorten(name, 28) for name in names])
        _only_left(axes, columns)
    return figure


def _grid(rows: pd.DataFrame, names: Sequence[str], shown: Sequence[Condition]) -> np.ndarray:
    ok = rows[rows.status == "ok"]
    wide = ok.pivot(index="finding", columns=["corruption", "severity"], values="value")
    return wide.reindex(index=names, columns=pd.MultiIndex.from_tuples(shown)).to_numpy(dtype=float)


def _heat_map(axis: Axes, grid: np.ndarray) -> None:
    axis.grid(False)
    axis.spines.bottom.set_visible(False)
    axis.pcolormesh(grid, cmap=BLUES, vmin=CHANCE, vmax=0.95, edgecolor=PAPER, linewidth=1.2)
    axis.tick_params(length=0)
    axis.invert_yaxis()
    for (row, column), value in np.ndenumerate(grid):
        text = DASH if np.isnan(value) else f"{value:.2f}".lstrip("0")
        color = MUTED if np.isnan(value) else "#ffffff" if value > 0.8 else "#14212e"
        axis.text(column + 0.5, row + 0.5, text, ha="center", va="center_baseline", fontsize=7.5, color=color)


def _short_label(condition: Condition) -> str:
    if condition.corruption == CLEAN:
        return "Clean"
    title = corruption_title(condition.corruption).removeprefix("Patches at the ").removeprefix("Patches ")
    return f"{title[:1].upper()}{title[1:]} {severity_text(condition).removeprefix('severity ')}"


def curves_figure(panels: Sequence[Panel], looks: Looks, columns: int = 3) -> Figure | None:
    """Learning curves: the colour is the model's, full lines are validation, thin dotted ones training."""
    if not panels:
        return None
    with mpl.rc_context(RC):
        figure, axes = _panels(len(panels), columns, height=2.5)
        for axis, panel in zip(axes, panels, strict=True):
            axis.set_title(looks[panel.title].name if panel.title in looks else panel.title)
            for (label, split), line in panel.lines.groupby(["model", "split"], sort=False):
                _curve(axis, line, looks[label], split)
            axis.set_xlabel(panel.x)
            axis.set_ylabel(panel.y)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _legend(figure, _shared(panels, looks), _split_handles(panels))
    return figure


def _curve(axis: Axes, line: pd.DataFrame, look: Look, split: str) -> None:
    marker = look.marker if len(line) <= _FEW_POINTS else ""
    if split == "train":
        axis.plot(line.x, line.value, color=look.color, linestyle=":", linewidth=1.2, marker=marker, markersize=2.5)
    else:
        axis.plot(line.x, line.value, color=look.color, linestyle="-", marker=marker, markersize=4)


def _shared(panels: Sequence[Panel], looks: Looks) -> Looks:
    """The models that need a legend: none where every panel is one model's and bears its name."""
    if all(panel.title in looks for panel in panels):
        return {}
    shown = {label for panel in panels for label in panel.lines.model}
    return {label: look._replace(line="-") for label, look in looks.items() if label in shown}


def _split_handles(panels: Sequence[Panel]) -> list[Line2D]:
    splits = {split for panel in panels for split in panel.lines.split}
    styles = {"train": (":", "training"), "validation": ("-", "validation")}
    return [
        Line2D([], [], color=MUTED, linestyle=line, label=name) for key, (line, name) in styles.items() if key in splits
    ]


def _panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
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


def _only_left(axes: Sequence[Axes], columns: int, label: str = "") -> None:
    """The panels of a row share their vertical axis: it is named and numbered once."""
    for number, axis in enumerate(axes):
        leftmost = number % columns == 0
        axis.set_ylabel(label if leftmost else "")
        axis.tick_params(labelleft=leftmost)


def _legend(figure: Figure, looks: Looks, more: Sequence[Line2D] = ()) -> None:
    """Names above the panels: in one row if they fit, else in as many columns as the longest allows."""
    models = [Line2D([], [], color=k.color, marker=k.marker, linestyle=k.line, label=k.name) for k in looks.values()]
    handles = [*models, *more]
    widths = [len(handle.get_label()) + _KEY_WIDTH for handle in handles]
    room = int(figure.get_figwidth() * _LETTERS_PER_INCH)
    columns = len(handles) if sum(widths) <= room else max(room // max(widths), 1)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)
