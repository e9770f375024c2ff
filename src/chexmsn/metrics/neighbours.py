"""k nearest neighbours by cosine similarity: what features say of an image without anything being trained on them.

Weighted votes follow Wu et al. 2018 (arXiv 1805.01978), as DINO's evaluation does: a neighbour of similarity s has
the weight exp(s / temperature). Findings do not exclude each other, so each has its own score: the weighted share
of positives. Where labels are missing, each finding has its own neighbours: the nearest images whose label of that
finding is known, so that a finding labelled in few images is still judged by k of them.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

QUERIES_AT_ONCE = 512  # similarities to a bank of 400,000 images then take 0.8 GB


class Neighbours(NamedTuple):
    """The nearest images of each query, for each finding by itself, the nearest first.

    Attributes:
        similarity: cosine similarity; minus infinity where fewer than K images are labelled.
        labels: their labels in [0, 1].
    """

    similarity: Float[Tensor, "N C K"]
    labels: Float[Tensor, "N C K"]


def nearest(
    queries: Float[Tensor, "N D"], bank: Float[Tensor, "M D"], labels: Float[Tensor, "M C"], k: int
) -> Neighbours:
    """The k images of the bank nearest to each query, among those with a known label (not NaN) of the finding.

    All similarities are held at once: N x M numbers.
    """
    similarity = functional.normalize(queries, dim=1) @ functional.normalize(bank, dim=1).T
    found = Neighbours(
        similarity.new_full((len(queries), labels.shape[1], k), -torch.inf),
        similarity.new_zeros((len(queries), labels.shape[1], k)),
    )
    patterns, pattern_of = labels.isnan().logical_not().unique(dim=1, return_inverse=True)
    for number, known in enumerate(patterns.T):
        findings = (pattern_of == number).nonzero()[:, 0]
        reach = min(k, int(known.sum()))
        values, index = similarity[:, known].topk(reach, dim=1)
        found.similarity[:, findings, :reach] = values[:, None]
        found.labels[:, findings, :reach] = labels[known][:, findings][index].mT.to(similarity)
    return found


def vote(neighbours: Neighbours, k: int, temperature: float) -> Float[Tensor, "N C"]:
    """The weighted share of positives among the first k neighbours, in [0, 1]; NaN where a finding has none."""
    weights = (neighbours.similarity[..., :k] / temperature).softmax(dim=2)
    return (weights * neighbours.labels[..., :k]).sum(dim=2).clamp(max=1.0)  # weights sum to 1 but for rounding


def knn_scores(
    queries: Float[Tensor, "N D"],
    bank: Float[Tensor, "M D"],
    labels: Float[Tensor, "M C"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "N C"]:
    """Scores in [0, 1] of each finding from the labels of the k nearest images of a bank.

    Args:
        queries: features of the images to score.
        bank: features of labelled images, on the same device.
        labels: their labels in [0, 1]; NaN where one is missing.
        k: neighbours that vote; all labelled images where there are fewer.
        temperature: of the votes' weights exp(similarity / temperature), above 0; small ones trust the nearest.

    Returns:
        One score per query and finding; NaN for a finding that no image of the bank is labelled for.

    >>> bank, labels = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, float("nan")]])
    >>> knn_scores(torch.tensor([[2.0, 0.0]]), bank, labels, k=1)
    tensor([[1., 0.]])
    """
    scores = [vote(nearest(part, bank, labels, k), k, temperature) for part in queries.split(QUERIES_AT_ONCE)]
    return torch.cat(scores)
