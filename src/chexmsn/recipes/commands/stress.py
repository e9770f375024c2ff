"""Stress a classifier: the same images with less and less of them left, and noisier and blurrier.

Example:
    chexmsn stress runs/msn-fine-tuned packs/mimic --out runs/msn-stress

The standard grid (36 conditions) and the pixel fills are run unless --conditions says otherwise. On the pack of another
collection the same command tests how the classifier generalises, over the findings both have. The folder keeps the
scores; the same command continues after a stop.

Models from elsewhere: --adapter python, timm, huggingface, torchxrayvision or onnx, whose options are --options.<name>
(`chexmsn stress --adapter onnx --help` shows those of onnx; docs/any-model.md has an example of each).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.core.device import choose_device
from chexmsn.core.lookup import load
from chexmsn.evaluation.stress import ADAPTERS, StressConfig, stress
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of stress and of the chosen adapter."""
    adapter = load(ADAPTERS, values.get("adapter", StressConfig.adapter))
    return dataclass_parser("stress", StressConfig, {"options": adapter.Config}, positional=["model", "data"])


def check(arguments: Any) -> None:
    """Raise UserError for what cannot work, before any data are opened."""
    choose_device(as_dataclass(StressConfig, arguments).device)


def run(arguments: Any) -> Path:
    """Stress."""
    return stress(as_dataclass(StressConfig, arguments))
