"""Give a pack another split, by patient always: folds, shares or a list; or write MedFuse's split of MIMIC-CXR.

Example:
    chexmsn split folds packs/mine --count 5 --out packs/mine-folds
    chexmsn split shares packs/mine --shares '{train: 0.8, validate: 0.1, test: 0.1}' --out packs/mine-split
    chexmsn split list packs/mine --list splits.csv --out packs/mine-listed
    chexmsn split medfuse /data/mimic-cxr-jpg --validate_list val_listfile.csv --test_list test_listfile.csv

The pack stays as it is, the new ones share its pixels: five folds take the room of one. Pack number k of the folds
tests on fold k, validates on the next one and trains on the others: chexmsn train --data packs/mine-folds/0 ...
A list is a CSV file with a column `split` and one of `image_key` and `patient_id`.
MedFuse's split is written into the folder, where `chexmsn prepare mimic-cxr-jpg` takes it instead of the official one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.data.pack import Pack, open_pack
from chexmsn.data.resplit import medfuse_split, resplit, splits_of_list, sums_of
from chexmsn.data.splits import folds, grouped_split
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser


@dataclass(frozen=True, kw_only=True)
class Folds:
    """A rotation of folds.

    Attributes:
        kind: folds.
        pack: the pack.
        out: a new folder; the packs in it are called 0, 1, 2 ...
        count: how many folds; three at least, to train, validate and test.
        seed: another seed, other folds.
    """

    kind: str
    pack: Path
    out: Path
    count: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, count="[3, inf)")

    def run(self) -> list[Pack]:
        """One pack per fold."""
        pack = open_pack(self.pack)
        part = folds(pack.index["patient_id"].tolist(), pack.raw_labels(pack.findings), self.count, self.seed)
        roles, sums = np.array(["test", "validate", *["train"] * (self.count - 2)]), sums_of(pack)
        turns = [(turn, roles[(part - turn) % self.count].tolist()) for turn in range(self.count)]
        how = f"of {self.count} folds, seed {self.seed}"
        return [resplit(pack, words, self.out / str(turn), f"fold {turn} {how}", sums) for turn, words in turns]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Splits drawn by patient.

    Attributes:
        kind: shares.
        pack: the pack.
        out: folder of the new pack.
        shares: share of the patients by split.
        seed: another seed, other patients.
    """

    kind: str
    pack: Path
    out: Path
    shares: Mapping[str, float]
    seed: int = 0

    def run(self) -> Pack:
        """The new pack."""
        pack = open_pack(self.pack)
        words = grouped_split(pack.index["patient_id"].tolist(), self.shares, self.seed)
        return resplit(pack, words, self.out, f"shares {dict(self.shares)}, seed {self.seed}", sums_of(pack))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Splits from a file.

    Attributes:
        kind: list.
        pack: the pack.
        out: folder of the new pack.
        list: a CSV file with a column split and one of image_key and patient_id.
    """

    kind: str
    pack: Path
    out: Path
    list: Path

    def run(self) -> Pack:
        """The new pack."""
        pack = open_pack(self.pack)
        return resplit(pack, splits_of_list(pack, self.list), self.out, f"list {self.list.name}", sums_of(pack))


@dataclass(frozen=True, kw_only=True)
class Medfuse:
    """MedFuse's split.

    Attributes:
        kind: medfuse.
        folder: a MIMIC-CXR-JPG folder.
        validate_list: MedFuse's val_listfile.csv (or any table with subject_id).
        test_list: its test_listfile.csv.
    """

    kind: str
    folder: Path
    validate_list: Path
    test_list: Path

    def run(self) -> Path:
        """The file written."""
        return medfuse_split(self.folder, self.validate_list, self.test_list)


KINDS = {"folds": Folds, "shares": Shares, "list": Listed, "medfuse": Medfuse}


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of the kind of split that is named."""
    words = [word for word in values.get("", []) if word in KINDS]
    kind = values.get("kind") or next(iter(words), None)
    if kind not in KINDS:
        raise UserError(f"chexmsn split needs to know which: one of {', '.join(KINDS)}")
    form = KINDS[kind]
    return dataclass_parser("split", form, positional=["kind", "folder" if form is Medfuse else "pack"])


def run(arguments: Any) -> Any:
    """Split."""
    return as_dataclass(KINDS[arguments["kind"]], arguments).run()
