"""Compare models that were tested on the same images: paired differences with intervals and p values.

Example:
    chexmsn compare runs/msn-stress runs/mae-stress --out runs/msn-against-mae
    chexmsn compare runs/science/results runs/science-seed1/results --within ", " --out runs/science-comparison

Runs of one name are repetitions of one model: seeds on the same images, or folds of a rotation on disjoint ones.
Nothing is scored anew. The primary comparison is printed; comparison.csv holds all, models.csv each model's own values.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from chexmsn.evaluation.compare import CompareConfig, compare
from chexmsn.evaluation.comparison_text import in_text
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of a comparison."""
    return dataclass_parser("compare", CompareConfig, positional=["runs"])


def run(arguments: Any) -> Path:
    """Compare, and print the primary comparison."""
    folder = compare(as_dataclass(CompareConfig, arguments))
    print(in_text(*(pd.read_parquet(folder / f"{name}.parquet") for name in ("models", "comparison"))))
    return folder
