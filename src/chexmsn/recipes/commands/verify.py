"""Read packs whole and compare them with the checksums they were made with.

Example:
    chexmsn verify packs/mimic

For copies that went over a network or onto an old disk; a damaged pack is named with the file that changed.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexmsn.data.pack import open_pack, verify
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to read.

    Attributes:
        packs: folders of packs.
    """

    packs: tuple[Path, ...]


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The packs."""
    return dataclass_parser("verify", Config, positional=["packs"])


def run(arguments: Any) -> None:
    """Compare."""
    for folder in as_dataclass(Config, arguments).packs:
        pack = open_pack(folder)
        verify(pack)
        log.info("%s is what it was when it was made: %d images, fingerprint %s", folder, len(pack), pack.fingerprint)
