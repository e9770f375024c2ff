"""Pretrain an encoder on radiographs, without labels.

Example:
    chexmsn pretrain --data packs/mimic --method msn --encoder.name vit_small --epochs 100 --out runs/msn

The options of a method are --options.<name>; `chexmsn pretrain --method mae --help` shows those of mae.
The same command on the same folder resumes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser
from chexmsn.training.config import PretrainConfig
from chexmsn.training.run import check_run, method_file, pretrain


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of pretraining and of the chosen method."""
    method = method_file(values.get("method", PretrainConfig.method), kind="pretraining")
    return dataclass_parser("pretrain", PretrainConfig, {"options": method.Config})


def check(arguments: Any) -> None:
    """Raise UserError for what cannot work, before any data are opened."""
    config = as_dataclass(PretrainConfig, arguments)
    check_run(config, config.encoder)


def run(arguments: Any) -> Path:
    """Pretrain."""
    return pretrain(as_dataclass(PretrainConfig, arguments))
