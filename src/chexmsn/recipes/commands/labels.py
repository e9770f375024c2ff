"""Count the labels of a pack: how many images of each split have which raw value of each finding.

Example:
    chexmsn labels packs/mimic

1 is present, 0 absent, -1 uncertain, blank not mentioned; --labels of training and evaluation say what the last two
count as. Findings bear their canonical names, whatever the collection calls them (docs/labels.md).
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.data.labels import count_values
from chexmsn.data.pack import Pack, open_pack
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which pack, and for whom.

    Attributes:
        pack: as `chexmsn prepare` makes it.
        json: print the counts as JSON, for machines.
    """

    pack: Path
    json: bool = False


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of counting."""
    return dataclass_parser("labels", Config, positional=["pack"])


def run(arguments: Any) -> pd.DataFrame:
    """Count and print."""
    c = as_dataclass(Config, arguments)
    pack = open_pack(c.pack)
    if not pack.findings:
        raise UserError(f"pack {c.pack} has no labels: prepare it with a source and options that name findings")
    counts = count_values(pack.raw_labels(pack.findings), pack.findings, pack.index["split"].tolist())
    told = json.dumps(_for_machines(pack, counts)) if c.json else _in_words(pack, counts)
    sys.stdout.write(told + "\n")
    return counts


def _for_machines(pack: Pack, counts: pd.DataFrame) -> dict[str, Any]:
    about = {name: pack.info[name] for name in ("images", "patients", "splits")}
    labels = {
        finding: {split: counts.loc[(finding, split)].to_dict() for split in pack.info["splits"]}
        for finding in pack.findings
    }
    return {"pack": pack.name, "source": pack.info["source"], **about, "labels": labels}


def _in_words(pack: Pack, counts: pd.DataFrame) -> str:
    """A table with the values of each split side by side; a value that no image has is left out."""
    there = counts.columns[counts.any()]
    columns = pd.MultiIndex.from_product([pack.info["splits"], there])
    table = counts.unstack("split").swaplevel(axis=1).reindex(index=pack.findings, columns=columns)
    head = f"{pack.info['source']} pack {pack.folder}: {len(pack):,} images of {pack.info['patients']:,} patients"
    return f"{head}\n{table.to_string(index_names=False, formatters=['{:,}'.format] * len(columns))}"
