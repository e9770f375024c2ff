"""Take over a model of timm, torchvision, Hugging Face or facebookresearch/msn.

Example:
    chexmsn import vits16_800ep.pth.tar --from msn --out encoders/msn-imagenet

The folder serves wherever a pretraining run does: --encoder_from encoders/msn-imagenet. With --findings, the names of
its outputs, a classifier comes whole, to be stressed or to predict with.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexmsn.core.lookup import names
from chexmsn.models.hubs._portable import HUBS
from chexmsn.models.importing import ImportConfig, import_model
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser

log = logging.getLogger(__name__)


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of import; `from`, a word of Python, cannot be the name of a field."""
    made = dataclass_parser("import", ImportConfig, positional=["source"])
    made.add_argument("--from", type=str, required=True, help=f"layout of the weights: {', '.join(names(HUBS))}")
    return made


def run(arguments: Any) -> Path:
    """Import."""
    folder = import_model(arguments["from"], as_dataclass(ImportConfig, arguments))
    log.info("%s holds the model", folder)
    return folder
