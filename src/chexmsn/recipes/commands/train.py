"""Train a classifier: fine-tune a pretrained encoder, probe it, or start from scratch.

Example:
    chexmsn train --data packs/mimic --encoder_from runs/msn --method fine-tune --share 0.1 --out runs/msn-fine-tuned

Methods: fine-tune, linear-probe, attentive-probe, supervised (from scratch; --encoder.name says what). Their options
are --options.<name>; `chexmsn train --method linear-probe --help` shows those of linear-probe.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser
from chexmsn.training.config import TrainConfig
from chexmsn.training.run import check_run, method_file, train


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of downstream training and of the chosen method."""
    method = method_file(values.get("method", TrainConfig.method), kind="classifier")
    return dataclass_parser("train", TrainConfig, {"options": method.Config})


def check(arguments: Any) -> None:
    """Raise UserError for what cannot work, before any data are opened."""
    config = as_dataclass(TrainConfig, arguments)
    check_run(config, None if config.encoder_from else config.encoder)


def run(arguments: Any) -> Path:
    """Train."""
    return train(as_dataclass(TrainConfig, arguments))
