"""Probe an encoder without training it: nearest neighbours or logistic regression on its features.

Example:
    chexmsn probe --encoder_from runs/msn --data packs/mimic --method knn --out runs/msn-knn

Methods: knn, logistic. Their options are --options.<name>; of several values the best on the validation split is
taken. `chexmsn probe --method logistic --help` shows those of logistic. The folder is one for `chexmsn report`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.core.device import choose_device
from chexmsn.core.lookup import load
from chexmsn.evaluation.probe import ProbeConfig, probe
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of a probe and of the chosen method."""
    method = load("chexmsn.evaluation.probes", values.get("method", ProbeConfig.method))
    return dataclass_parser("probe", ProbeConfig, {"options": method.Config})


def check(arguments: Any) -> None:
    """Raise UserError for what cannot work, before any data are opened."""
    choose_device(as_dataclass(ProbeConfig, arguments).device)


def run(arguments: Any) -> Path:
    """Probe."""
    return probe(as_dataclass(ProbeConfig, arguments))
