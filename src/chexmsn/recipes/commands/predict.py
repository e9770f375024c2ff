"""Write the probability of every finding for a folder of images.

Example:
    chexmsn predict runs/msn-fine-tuned /data/radiographs --out predictions.csv

For research only, not for clinical use.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.evaluation.predict import PredictConfig, predict
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of predict."""
    return dataclass_parser("predict", PredictConfig, positional=["model", "images"])


def run(arguments: Any) -> Path:
    """Predict."""
    return predict(as_dataclass(PredictConfig, arguments))
