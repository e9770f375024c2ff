"""Judge scores made elsewhere: a table instead of a model.

Example:
    chexmsn scores scores.csv labels.csv --out runs/theirs-stress

scores.csv has one row per image and condition: image, condition (clean among them), severity, one column per finding.
Without the column condition all images are clean ones. Labels come from a CSV file or a pack. The folder is that of a
stress test: for `chexmsn compare` and `chexmsn report`. See docs/any-model.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.evaluation.score_table import ScoreTableConfig, judge_scores
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of a table of scores."""
    return dataclass_parser("scores", ScoreTableConfig, positional=["scores", "data"])


def run(arguments: Any) -> Path:
    """Judge."""
    return judge_scores(as_dataclass(ScoreTableConfig, arguments))
