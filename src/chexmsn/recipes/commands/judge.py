"""Judge the scores of result folders anew: other resamples, other intervals, other findings; no model is needed.

Example:
    chexmsn judge runs/msn-stress --interval bca --resamples 2000
    chexmsn judge runs/msn-stress --labels.uncertain ignore --labels.blank ignore

The tables in the folder are replaced; scores and raw labels stay. The second one lets other labels count, and
`run.json` says so. Folders of an earlier version get the tables they lack.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.evaluation.judge import JudgeConfig, judge
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of a judgement."""
    return dataclass_parser("judge", JudgeConfig, positional=["runs"])


def run(arguments: Any) -> list[Path]:
    """Judge."""
    return judge(as_dataclass(JudgeConfig, arguments))
