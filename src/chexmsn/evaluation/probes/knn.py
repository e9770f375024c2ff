"""k nearest neighbours, as DINO evaluates features (Caron et al. 2021, arXiv 2104.14294; `metrics/neighbours.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.limits import check_limits
from chexmsn.evaluation.probes._base import AbstractProbe, Scores, Setting
from chexmsn.metrics.neighbours import QUERIES_AT_ONCE, nearest, vote


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of nearest neighbours; of several values, the best on the validation split is taken.

    Attributes:
        k: neighbours that vote.
        temperature: of the votes' weights exp(cosine similarity / temperature).
    """

    k: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    temperature: tuple[float, ...] = (0.01, 0.03, 0.07, 0.2)

    def __post_init__(self) -> None:
        check_limits(self, k="[1, inf)", temperature="(0, inf)")


class Probe(AbstractProbe):
    """The weighted share of positives among the k nearest images of the bank whose label is known."""

    @property
    def settings(self) -> list[Setting]:
        return [{"k": k, "temperature": t} for k, t in product(self.config.k, self.config.temperature)]

    def scores(self, queries: Float[Tensor, "N D"], settings: Sequence[Setting]) -> list[Scores]:
        """The neighbours are looked for once, as many as the largest k asks for."""
        largest = max(setting["k"] for setting in settings)
        parts = []
        for some in queries.split(QUERIES_AT_ONCE):
            found = nearest(some, *self.bank, largest)
            parts.append([vote(found, **setting) for setting in settings])
        return [torch.cat(votes).cpu().numpy() for votes in zip(*parts, strict=True)]
