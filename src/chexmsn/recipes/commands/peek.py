"""Look at a stress test that is still running, or was stopped: results of the images scored so far.

Example:
    chexmsn peek runs/msn-stress --out runs/msn-so-far
    chexmsn report runs/msn-so-far --out reports/msn-so-far

The run is only read, so it may go on meanwhile.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.evaluation.so_far import PeekConfig, peek
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of a look."""
    return dataclass_parser("peek", PeekConfig, positional=["run"])


def run(arguments: Any) -> Path:
    """Look."""
    return peek(as_dataclass(PeekConfig, arguments))
