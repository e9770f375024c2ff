"""Synthetic scores of two models with the statistics that scikit-learn, R and others compute from them."""

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "statistics.json").read_text())
with np.load(GOLDEN / "statistics.npz") as stored:
    DATA = dict(stored)
POLICIES = {
    "ignore": lambda y: np.where(y == -1, np.nan, y),
    "zeros": lambda y: np.where(y == -1, 0, y),
    "ones": lambda y: np.where(y == -1, 1, y),
    "seed_followup": lambda y: np.where(y == 1, 1.0, 0.0),
}


def labels_of(policy: str) -> np.ndarray:
    """900 images x 14 findings under a label policy."""
    return POLICIES[policy](DATA["labels_raw"].astype(np.float64))


def numbers(values: list) -> np.ndarray:
    """Stored numbers; null becomes NaN."""
    return np.array(values, dtype=np.float64)
