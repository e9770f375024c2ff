"""Pretraining and training curves: whatever a run logged, as one tidy table."""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from chexmsn.report.results import StressRun

_NOT_METRICS = ("epoch", "step")
_TIDY = ["x", "value", "axis", "split", "metric", "model"]


class Panel(NamedTuple):
    """What one panel shows: a title, the axis names and one line per (model, split)."""

    title: str
    x: str
    y: str
    lines: pd.DataFrame  # model, split, x, value


def tidy(curves: pd.DataFrame) -> pd.DataFrame:
    """A wide log as rows of (x, axis, split, metric, value): the mean over each epoch.

    A log of a single epoch is kept by step. Columns are named `split/metric`; a column without a
    split belongs to training.

    >>> log = pd.DataFrame({"epoch": [0, 0, 1], "train/loss": [3.0, 1.0, 1.0], "validation/loss": [None, 2.5, 2.0]})
    >>> tidy(log).value.tolist()
    [2.0, 1.0, 2.5, 2.0]
    """
    axis = _axis(curves)
    metrics = [name for name in curves.select_dtypes("number").columns if name not in _NOT_METRICS]
    long = curves.melt(id_vars=[axis], value_vars=metrics, value_name="value").dropna().rename(columns={axis: "x"})
    means = long.groupby(["variable", "x"], sort=True).value.mean().reset_index()
    parts = means.variable.str.rpartition("/")
    return means.assign(axis=axis, split=parts[0].replace("", "train"), metric=parts[2]).drop(columns="variable")


def _axis(curves: pd.DataFrame) -> str:
    if "epoch" in curves and (curves.epoch.nunique() > 1 or "step" not in curves):
        return "epoch"
    return "step"


def stage_curves(runs: Iterable[StressRun], stage: str) -> pd.DataFrame:
    """The tidy curves of a stage ("pretraining", "training") of all models that have some."""
    tables = [tidy(run.curves[stage]).assign(model=run.label) for run in runs if _usable(run.curves.get(stage))]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_TIDY)


def _usable(curves: pd.DataFrame | None) -> bool:
    return curves is not None and not curves.empty and bool({"epoch", "step"} & set(curves))


def pretraining_panels(curves: pd.DataFrame) -> list[Panel]:
    """The loss of each model in a panel of its own, for two losses have no common scale; then what all share."""
    losses = curves[curves.metric == "loss"]
    own = [Panel(model, _x(lines), "loss", lines) for model, lines in losses.groupby("model", sort=False)]
    return own + _panels(curves, {"effective_rank": "Effective rank", "knn_macro_auroc": "Macro AUROC, 20 neighbours"})


def training_panels(curves: pd.DataFrame) -> list[Panel]:
    """Loss and validation AUROC, all models in one panel each, where they were logged."""
    return _panels(curves, {"loss": "Loss", "macro_auroc": "Macro AUROC"})


def _panels(curves: pd.DataFrame, titles: dict[str, str]) -> list[Panel]:
    """All models in one panel for each of the metrics that was logged."""
    found = {title: curves[curves.metric == metric] for metric, title in titles.items()}
    return [Panel(title, _x(lines), title, lines) for title, lines in found.items() if not lines.empty]


def _x(lines: pd.DataFrame) -> str:
    return " or ".join(sorted(lines.axis.unique()))
