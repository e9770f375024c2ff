"""What every probe is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

Scores = Float[np.ndarray, "N C"]
Setting = dict[str, int | float]
"""One value for each option that is chosen."""


class Bank(NamedTuple):
    """What a probe learns from: features of images, and their labels, 1 or 0, NaN where one is missing."""

    features: Float[Tensor, "M D"]
    labels: Float[Tensor, "M C"]


class AbstractProbe(ABC):
    """Scores features by those of a bank, under settings of which the best on a validation split is taken."""

    def __init__(self, config: Any, bank: Bank) -> None:
        self.config = config
        self.bank = bank

    @property
    @abstractmethod
    def settings(self) -> list[Setting]:
        """The grid that is chosen from."""

    @abstractmethod
    def scores(self, queries: Float[Tensor, "N D"], settings: Sequence[Setting]) -> list[Scores]:
        """Scores in [0, 1] per finding, one array for each of the settings."""
