"""Splits are made and checked by patient, never by image."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError

SPLITS = ("train", "validate", "test")


def check_names(splits: Iterable[str]) -> None:
    """Raise UserError for a name that is not that of a split."""
    if wrong := sorted(set(map(str, splits)) - set(SPLITS)):
        raise UserError(f"a split is one of {', '.join(SPLITS)}, not {wrong[0]!r}")


def check_no_leak(index: pd.DataFrame) -> None:
    """Raise UserError with the patients whose images lie in more than one split."""
    pairs = index[["patient_id", "split"]].drop_duplicates()
    leaked = sorted(pairs.loc[pairs["patient_id"].duplicated(), "patient_id"].unique())
    if leaked:
        named = ", ".join(map(str, leaked[:5])) + (", ..." if len(leaked) > 5 else "")
        raise UserError(
            f"a patient must lie in one split only, but {len(leaked)} lie in several ({named}): "
            "give all images of a patient the same split"
        )


def _shuffled(patients: Sequence[str], seed: int) -> list[str]:
    """The different patients in an order that depends on nothing but the seed and who they are."""
    unique = sorted(set(patients))
    order = Draws.of(seed, keys_of(unique)).stream("order of patients").keys
    return [unique[i] for i in order.argsort().tolist()]


def share_of_patients(patients: Sequence[str], share: float, seed: int) -> Int64[np.ndarray, "n"]:
    """The positions of the images of a share of the patients, in (0, 1]; at least one patient.

    Under one seed the shares are nested: the patients of 1 % are among those of 10 %.

    >>> share_of_patients(["a", "a", "b", "b"], share=0.5, seed=0).tolist() in ([0, 1], [2, 3])
    True
    """
    if not 0 < share <= 1:
        raise UserError(f"the share of the patients must lie in (0, 1], not {share}: 1.0 uses all of them")
    order = _shuffled(patients, seed)
    chosen = set(order[: max(1, round(share * len(order)))])
    return np.flatnonzero([patient in chosen for patient in patients]).astype(np.int64)


def grouped_split(patients: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """One split name per image, such that each split holds its share of the patients.

    >>> grouped_split(["a", "b", "a", "c"], {"train": 2 / 3, "test": 1 / 3}, seed=1).count("test") in (1, 2)
    True
    """
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6) or min(shares.values()) < 0:
        raise UserError(f"the shares of the splits must add up to 1, not {dict(shares)}")
    order = _shuffled(patients, seed)
    ends = np.round(np.cumsum(list(shares.values())) * len(order)).astype(int)
    split_of = dict(zip(order, np.repeat(list(shares), np.diff(ends, prepend=0)).tolist(), strict=True))
    return [split_of[patient] for patient in patients]


def folds(patients: Sequence[str], labels: Float[np.ndarray, "N C"], count: int, seed: int) -> Int64[np.ndarray, "N"]:
    """A fold, 0 to count - 1, per image: whole patients, and of every finding about as many in each fold.

    Patients are dealt out by their rarest finding, the rarest of all first and those of many images first, each to
    the fold with the fewest images of that finding, then the fewest of all. Raises UserError for fewer than two
    folds, or fewer patients than folds.

    >>> parts = folds(["a", "b", "a", "c"], np.array([[1.0], [0], [1], [1]]), 2, seed=0)
    >>> bool(parts[0] == parts[2] != parts[3])
    True
    """
    order = _shuffled(patients, seed)
    if not 2 <= count <= len(order):
        raise UserError(f"there must be 2 to {len(order)} folds, one patient in each at least, not {count}")
    rarest, images = _rarest_finding(patients, labels), Counter(patients)
    order.sort(key=lambda patient: (rarest[patient], -images[patient]))  # stable: the seed decides between equals
    held: dict[int, list[int]] = {}
    total, fold_of = [0] * count, {}
    for patient in order:
        alike = held.setdefault(rarest[patient], [0] * count)
        fold = min(range(count), key=lambda fold: (alike[fold], total[fold]))
        fold_of[patient] = fold
        alike[fold] += images[patient]
        total[fold] += images[patient]
    return np.array([fold_of[patient] for patient in patients], np.int64)


def _rarest_finding(patients: Sequence[str], labels: Float[np.ndarray, "N C"]) -> dict[str, int]:
    """By patient, the place of the rarest finding it has in the order of rarity; the number of findings for none."""
    present = pd.DataFrame(labels == 1).groupby(np.asarray(patients, dtype=object)).any()
    by_rarity = present[present.sum().sort_values(kind="stable").index].to_numpy()
    first = np.where(by_rarity.any(axis=1), by_rarity.argmax(axis=1) if by_rarity.size else 0, by_rarity.shape[1])
    return dict(zip(present.index, first.tolist(), strict=True))


def chosen(index: pd.DataFrame, splits: Sequence[str], share: float, seed: int) -> pd.DataFrame:
    """The rows of `splits` (of all, where none is named), of the training images those of a share of the patients.

    Raises UserError for a split that is not there and a share outside (0, 1].
    """
    there = index["split"].unique()
    if absent := [split for split in splits if split not in there]:
        raise UserError(f"no image lies in the split {absent[0]!r}, only in {', '.join(sorted(there))}")
    training = np.flatnonzero(index["split"] == "train")
    used = training[share_of_patients(index["patient_id"].iloc[training].tolist(), share, seed)]
    wanted = index["split"].isin(splits or there).to_numpy()
    left_out = np.isin(np.arange(len(index)), np.setdiff1d(training, used))
    return index[wanted & ~left_out].reset_index(drop=True)
