"""Write a model for timm, torchvision or Hugging Face.

Example:
    chexmsn export runs/msn --to huggingface --out exports/msn-huggingface

A classifier's run is exported with its head. The folder holds the weights, what the software wants beside them, and a
README.md with the lines that load it there.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.models.exporting import ExportConfig, export_model
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser

log = logging.getLogger(__name__)


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of export."""
    return dataclass_parser("export", ExportConfig, positional=["model"])


def run(arguments: Any) -> Path:
    """Export."""
    config = as_dataclass(ExportConfig, arguments)
    folder = export_model(config)
    log.info("%s holds the model for %s; its README.md says how to load it", folder, config.to)
    return folder
