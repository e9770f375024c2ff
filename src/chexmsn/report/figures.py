"""The figures. Each function takes a table and the looks of the models, and draws `columns` panels side by side."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

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
    is_all_or_nothing,
    short_label,
    steps,
)
from chexmsn.report.curves import Panel
from chexmsn.report.layout import entitle, legend, only_left, panels_of
from chexmsn.report.style import BLUES, MUTED, NARROW, PAPER, RC, WIDE, Look, shorten
from chexmsn.report.style import looks as styles
from chexmsn.report.tables import CHANCE
from chexmsn.report.words import DASH, HARD_SPACE

Looks = Mapping[str, Look]
_ENDS = ["value", "low", "high"]
_FEW_POINTS = 25  # a curve of more points is drawn without markers


def missing_figure(rows: pd.DataFrame, bands: pd.DataFrame, looks: Looks, columns: int = 2) -> Figure | None:
    """Macro AUROC against the share of patches that is gone, one panel per way of taking them away."""
    figure = _degradation_figure(rows, bands, looks, columns, "share of patches gone")
    if figure:
        for axis in figure.axes:
            axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=f"{HARD_SPACE}%"))
    return figure


def severity_figure(rows: pd.DataFrame, bands: pd.DataFrame, looks: Looks, columns: int = 3) -> Figure | None:
    """Macro AUROC against severity, one panel per corruption; below each severity what it means in the unit."""
    figure = _degradation_figure(rows, bands, looks, columns, "severity")
    if figure:
        for axis, name in zip(figure.axes, _degraded(rows), strict=True):
            _physical(axis, name)
    return figure


def _physical(axis: Axes, corruption: str) -> None:
    """The steps of a corruption below its severities, and the unit below those."""
    known = steps(corruption)
    if known is None:
        return
    unit, levels = known
    if is_all_or_nothing(corruption):
        axis.set_xticks((0, 5), ("clean", "all"))
        axis.set_xlabel(unit)
        return
    axis.set_xticks(range(len(levels)), [f"{k}\n{level}" for k, level in enumerate(_levels(levels))])
    axis.set_xlabel("\n".join(wrap(f"severity; {unit}", 40)))


def _levels(levels: Sequence[float]) -> list[str]:
    """Levels as short as they can be told: as fractions where all of them are fractions of one.

    >>> _levels((1.0, 1 / 4, 1 / 256)), _levels((0.0, 0.05, 12.0))
    (['1', '1/4', '1/256'], ['0', '.05', '12'])
    """
    parts = [1 / level for level in levels if level]
    if all(np.isclose(part, round(part)) for part in parts) and max(parts) > 1:
        return ["0" if not level else "1" if level == 1 else f"1/{round(1 / level)}" for level in levels]
    return [f"{level:g}" if abs(level) >= 1 else f"{level:.2g}".replace("0.", ".", 1) for level in levels]


def _degradation_figure(
    rows: pd.DataFrame, bands: pd.DataFrame, looks: Looks, columns: int, x_label: str
) -> Figure | None:
    rows, names = rows[(rows.status == "ok") & rows.value.notna()], _degraded(rows)
    bands = bands[bands.corruption.isin(names)]
    if not names:
        return None
    with mpl.rc_context(RC):
        figure, axes = panels_of(len(names), columns, height=2.75)
        for axis, name in zip(axes, names, strict=True):
            axis.set_title(corruption_title(name))
            for label, look in looks.items():
                of_model = bands[(bands.model == label) & (bands.corruption == name)]
                _degradation(axis, _with_clean(rows[rows.model == label], name), of_model, look)
            _chance(axis)
            axis.set_xlabel(x_label)
        _share_limits(axes, pd.concat([rows[_ENDS], bands[_ENDS]]))
        only_left(axes, columns, "macro AUROC")
        legend(figure, looks)
    return figure


def _degraded(rows: pd.DataFrame) -> list[str]:
    """The corruptions that have a value, in the order of the report."""
    there = rows[(rows.status == "ok") & rows.value.notna()]
    return sorted(set(there.corruption) - {CLEAN}, key=corruption_order)


def _with_clean(rows: pd.DataFrame, corruption: str) -> pd.DataFrame:
    """The points of one curve: the clean value belongs to every corruption, if the model was tested under it at all."""
    points = rows[rows.corruption == corruption]
    clean = rows[rows.corruption == CLEAN]
    return pd.concat([clean, points]).sort_values("severity") if len(points) else points


def _degradation(axis: Axes, points: pd.DataFrame, band: pd.DataFrame, look: Look) -> None:
    """A curve with its band; conditions that were seen in training get hollow markers."""
    axis.fill_between(band.severity, band.low, band.high, color=look.color, alpha=0.13, linewidth=0)
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
    ends = rows.to_numpy(dtype=float)
    bottom, top = min(np.nanmin(ends), CHANCE) - 0.035, min(np.nanmax(ends) + 0.02, 1.005)
    for axis in axes:
        axis.set_ylim(bottom, top)


def findings_figure(rows: pd.DataFrame, looks: Looks, columns: int = 2) -> Figure | None:
    """AUROC of every finding under every condition of `rows`: one heat map per model, conditions downwards."""
    names, shown = list(dict.fromkeys(rows.finding[rows.status == "ok"])), conditions(rows)
    if not names:
        return None
    with mpl.rc_context(RC):
        figure, axes = panels_of(len(looks), columns, height=0.23 * len(shown) + 1.9)
        for axis, (label, look) in zip(axes, looks.items(), strict=True):
            entitle(axis, look.name, columns)
            _heat_map(axis, _grid(rows[rows.model == label], names, shown), size=_text_size(len(names), columns))
            places = np.arange(len(names)) + 0.5
            axis.set_xticks(
                places, [shorten(name, 24) for name in names], rotation=55, ha="right", rotation_mode="anchor"
            )
            axis.set_yticks(np.arange(len(shown)) + 0.5, [shorten(short_label(condition), 28) for condition in shown])
        only_left(axes, columns)
    return figure


def _text_size(cells: int, columns: int) -> float:
    """The size of a two-digit number that fits a cell, in points."""
    panel = NARROW - 1.8 if columns == 1 else WIDE / columns - 1.4
    return min(7.5, panel * 72 / cells / 1.9)


def _grid(rows: pd.DataFrame, names: Sequence[str], shown: Sequence[Condition]) -> np.ndarray:
    ok = rows[rows.status == "ok"]
    wide = ok.pivot(index=["corruption", "severity"], columns="finding", values="value")
    return wide.reindex(index=pd.MultiIndex.from_tuples(shown), columns=names).to_numpy(dtype=float)


def _heat_map(axis: Axes, grid: np.ndarray, size: float) -> None:
    axis.grid(False)
    axis.spines.bottom.set_visible(False)
    axis.pcolormesh(grid, cmap=BLUES, vmin=CHANCE, vmax=0.95, edgecolor=PAPER, linewidth=1.2)
    axis.tick_params(length=0)
    axis.invert_yaxis()
    for (row, column), value in np.ndenumerate(grid):
        text = DASH if np.isnan(value) else f"{value:.2f}".lstrip("0")
        color = MUTED if np.isnan(value) else "#ffffff" if value > 0.8 else "#14212e"
        axis.text(column + 0.5, row + 0.5, text, ha="center", va="center_baseline", fontsize=size, color=color)


def reliability_figure(rows: pd.DataFrame, shown: Sequence[Condition], looks: Looks, columns: int = 2) -> Figure | None:
    """How often a finding is there, against the probability that was said: a panel per model, a line per condition."""
    rows = rows[rows.weight > 0]
    there = {label: look for label, look in looks.items() if (rows.model == label).any()}
    if not there:
        return None
    lines = styles([short_label(condition) for condition in shown])
    with mpl.rc_context(RC):
        figure, axes = panels_of(len(there), columns, height=3.3)
        for axis, (label, look) in zip(axes, there.items(), strict=True):
            axis.set_title(look.name)
            axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
            for condition, line in zip(shown, lines.values(), strict=True):
                of = (
                    (rows.model == label)
                    & (rows.corruption == condition.corruption)
                    & (rows.severity == condition.severity)
                )
                points = rows[of]
                axis.plot(points.score, points.positive, color=line.color, linestyle=line.line, marker=line.marker)
            axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability that was said")
        only_left(axes, columns, "share that has the finding")
        legend(figure, lines)
    return figure


def curves_figure(panels: Sequence[Panel], looks: Looks, columns: int = 3) -> Figure | None:
    """Learning curves: the colour is the model's, full lines are validation, thin dotted ones training."""
    if not panels:
        return None
    with mpl.rc_context(RC):
        figure, axes = panels_of(len(panels), columns, height=2.5)
        for axis, panel in zip(axes, panels, strict=True):
            axis.set_title(looks[panel.title].name if panel.title in looks else panel.title)
            for (label, split), line in panel.lines.groupby(["model", "split"], sort=False):
                _curve(axis, line, looks[label], split)
            axis.set_xlabel(panel.x)
            axis.set_ylabel(panel.y)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend(figure, _shared(panels, looks), _split_handles(panels))
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
