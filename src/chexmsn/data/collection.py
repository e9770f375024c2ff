"""Rows of one or several packs, seen as one data set; nothing is copied until a batch is read."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from chexmsn.core.draws import keys_of
from chexmsn.core.errors import UserError
from chexmsn.data._partial import Stack
from chexmsn.data.decode import to_depth
from chexmsn.data.labels import Policy, apply_policy, canonical
from chexmsn.data.pack import Pack
from chexmsn.data.splits import check_no_leak

log = logging.getLogger(__name__)


class Collection:
    """The images of `splits` in one or several packs, numbered from 0 in the order of the packs.

    A split may be missing from some of the packs, but not from all. A patient is known by collection and
    number: packs of one collection are checked against each other, and in packs of different collections
    equal numbers are different patients. Packs of 8 and 16 bits together are served as 16.

    Raises UserError for packs of different size, for an image key that two packs share, and for a patient
    or an image that lies in one split of one pack and in another split of another pack.
    """

    def __init__(self, packs: Sequence[Pack], splits: Sequence[str]) -> None:
        _check_sizes(packs)
        self.packs = tuple(packs)
        self.splits = tuple(splits)
        self._rows = [pack.rows([split for split in splits if split in pack.info["splits"]]) for pack in packs]
        self._starts = np.cumsum([0, *map(len, self._rows)])
        _check_splits(packs, splits)
        _check_together(packs)
        self.dtype = max((pack.images.dtype for pack in packs), key=lambda dtype: dtype.itemsize)
        if any(pack.images.dtype != self.dtype for pack in packs):
            log.info("packs of 8 and 16 bits are joined: all are served as 16 bits")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def size(self) -> int:
        """The side of the images in pixels."""
        return self.packs[0].size

    @property
    def nbytes(self) -> int:
        """The room that all its pixels take."""
        return len(self) * self.size**2 * self.dtype.itemsize

    @cached_property
    def index(self) -> pd.DataFrame:
        """The index of the rows; labels that a pack does not have are NaN."""
        parts = [pack.index.iloc[rows] for pack, rows in zip(self.packs, self._rows, strict=True)]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def keys(self) -> Int64[np.ndarray, "N"]:
        """The key of every random decision about each image."""
        return keys_of(self.index["image_key"]).numpy()

    @cached_property
    def pixel_mm(self) -> Float32[np.ndarray, "N"]:
        """The side of a pixel in mm, the geometric mean of the two axes; NaN where it is not known."""
        return np.sqrt(self.index["pixel_mm_row"] * self.index["pixel_mm_column"]).to_numpy(np.float32)

    @property
    def patients(self) -> np.ndarray:
        """The patient of each image, N texts; of several collections, each with the name of its own before it."""
        patients = self.index["patient_id"].to_numpy(dtype=object)
        return self.origins + "/" + patients if len({pack.collection for pack in self.packs}) > 1 else patients

    @property
    def origins(self) -> np.ndarray:
        """The collection that each image comes from, N texts: within one, patients of one name are one person."""
        return np.repeat(np.array([pack.collection for pack in self.packs], dtype=object), self._weights)

    @property
    def findings(self) -> tuple[str, ...]:
        """Every finding that some pack has labels of, in the order of the packs."""
        return tuple(dict.fromkeys(finding for pack in self.packs for finding in pack.findings))

    def pixels(self, rows: Int64[np.ndarray, "n"], out: Stack | None = None) -> Stack:
        """The images of these rows, in their order; in `out`, where that is given."""
        pixels = np.empty((len(rows), self.size, self.size), self.dtype) if out is None else out
        if len(self.packs) == 1:  # written once, into its place: three times as fast as by way of a copy
            return np.take(self.packs[0].images, self._rows[0][rows], axis=0, out=pixels, mode="clip")
        for pack, own, (start, end) in zip(self.packs, self._rows, pairwise(self._starts), strict=True):
            here = (start <= rows) & (rows < end)
            pixels[here] = to_depth(pack.images[own[rows[here] - start]], self.dtype)
        return pixels

    def labels(self, findings: Sequence[str], policy: Policy) -> Float32[np.ndarray, "N C"]:
        """Targets under a policy; NaN is left out, as is every finding that an image's pack says nothing of.

        Raises UserError for a finding, asked for or named by the policy, that no pack has labels of.
        """
        names = [canonical(finding) for finding in findings]
        if absent := [name for name in (*names, *map(canonical, policy.per_finding)) if name not in self.findings]:
            offered = ", ".join(self.findings) or "none"
            raise UserError(f"no pack has labels of {', '.join(absent)}: there are {offered}")
        parts = [
            self._pack_labels(pack, rows, names, policy) for pack, rows in zip(self.packs, self._rows, strict=True)
        ]
        return np.concatenate(parts)

    def _pack_labels(
        self, pack: Pack, rows: Int64[np.ndarray, "n"], names: list[str], policy: Policy
    ) -> Float32[np.ndarray, "n C"]:
        known = [name in pack.findings for name in names]
        offered = [name for name in names if name in pack.findings]
        labels = np.full((len(rows), len(names)), np.nan, np.float32)
        labels[:, known] = apply_policy(pack.raw_labels(offered)[rows], offered, policy)
        return labels

    @property
    def fingerprint(self) -> str:
        """Equal for equal rows of equal packs."""
        parts = [pack.fingerprint for pack in self.packs]
        return hashlib.sha256("\n".join([*parts, *self.splits]).encode()).hexdigest()[:16]

    @property
    def mean(self) -> float:
        """The mean training pixel in [0, 1], each pack weighted by its rows here."""
        return float(np.average([pack.mean for pack in self.packs], weights=self._weights))

    @property
    def std(self) -> float:
        """The standard deviation of the training pixels, weighted likewise."""
        squares = [pack.std**2 + pack.mean**2 for pack in self.packs]
        return float(np.sqrt(np.average(squares, weights=self._weights) - self.mean**2))

    @property
    def _weights(self) -> list[int]:
        return [len(rows) for rows in self._rows]


def _check_sizes(packs: Sequence[Pack]) -> None:
    if not packs:
        raise UserError("a collection needs at least one pack: none was given")
    if len({pack.size for pack in packs}) > 1:
        told = ", ".join(f"{pack.folder} {pack.size} px" for pack in packs)
        raise UserError(f"packs of different size cannot be joined ({told}): prepare them with one size")


def _check_splits(packs: Sequence[Pack], splits: Iterable[str]) -> None:
    there = {split for pack in packs for split in pack.info["splits"]}
    if absent := [split for split in splits if split not in there]:
        names = ", ".join(str(pack.folder) for pack in packs)
        raise UserError(f"{names}: no image lies in the split {absent[0]!r}, only in {', '.join(sorted(there))}")


def _check_together(packs: Sequence[Pack]) -> None:
    """All splits of all packs count: what is trained on here must not be tested on there."""
    if len(packs) == 1:
        return
    columns = ["image_key", "patient_id", "split"]
    parts = [pack.index[columns].assign(collection=pack.collection) for pack in packs]
    everything = pd.concat(parts)
    twice = everything.loc[everything["image_key"].duplicated(), "image_key"]
    if len(twice):
        raise UserError(
            f"two packs hold an image called {twice.iloc[0]!r}: leave one out, or give one of csv another `key_prefix`"
        )
    for _, same in everything.groupby("collection", sort=True):
        check_no_leak(same)
    for one, other in combinations(packs, 2):
        _check_no_image_leaks(one, other)


def _check_no_image_leaks(one: Pack, other: Pack) -> None:
    """A copy under another name is the same image; one that comes twice in a pack is blank or a placeholder."""
    images = [pack.index[["content_hash", "split", "image_key"]] for pack in (one, other)]
    single = [part[~part["content_hash"].duplicated(keep=False)] for part in images]
    both = single[0].merge(single[1], on="content_hash", suffixes=("", "_other"))
    leaked = both[both["split"] != both["split_other"]]
    if len(leaked):
        first = leaked.iloc[0]
        raise UserError(
            f"{len(leaked)} images lie in different splits of {one.folder} and {other.folder}, such as "
            f"{first['image_key']!r} in {first['split']} and {first['image_key_other']!r} in {first['split_other']}: "
            "give both packs the same splits"
        )
