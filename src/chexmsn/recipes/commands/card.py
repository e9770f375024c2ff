"""Write a robustness card: one page about one model, as HTML and as Markdown, for the model's own repository.

Example:
    chexmsn card runs/msn-stress --out runs/msn-card

It is made from the result folder alone and holds no image and no patient.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser
from chexmsn.report.card import build_card

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to write a card about.

    Attributes:
        stress: result folder of a stress test.
        out: folder of the card: new, empty, or with nothing but an earlier card or report in it.
    """

    stress: Path
    out: Path


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of a card."""
    return dataclass_parser("card", Config, positional=["stress"])


def run(arguments: Any) -> Path:
    """Write it."""
    c = as_dataclass(Config, arguments)
    card = build_card(c.stress, c.out)
    log.info("the card is %s, and card.md beside it", card)
    return card
