"""Nearest neighbours: against scikit-learn, and what must hold for any features."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import normalize

from chexmsn.metrics.neighbours import knn_scores, nearest, vote


def drawn(seed: int, queries: int = 9, bank: int = 40, width: int = 6, findings: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(count, width, generator=generator, dtype=torch.float64) for count in (queries, bank)]
    return *features, torch.randint(2, (bank, findings), generator=generator).double()


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (40, 1.0)])
def test_scores_are_scikit_learns(k: int, temperature: float) -> None:
    queries, bank, labels = drawn(0)

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / temperature)

    oracle = KNeighborsRegressor(k, metric="cosine", weights=weights).fit(normalize(bank), labels)
    expected = oracle.predict(normalize(queries))
    np.testing.assert_allclose(knn_scores(queries, bank, labels, k=k, temperature=temperature), expected, atol=1e-12)


def test_each_finding_asks_the_nearest_images_labelled_for_it() -> None:
    queries, bank, labels = drawn(1)
    labels[::3, 0] = torch.nan
    labels[:30, 1] = torch.nan
    scores = knn_scores(queries, bank, labels, k=12, temperature=0.1)
    for finding in range(labels.shape[1]):
        known = ~labels[:, finding].isnan()
        alone = knn_scores(
            queries, bank[known], labels[known][:, [finding]], k=min(12, int(known.sum())), temperature=0.1
        )
        torch.testing.assert_close(scores[:, [finding]], alone)


def test_a_finding_nobody_is_labelled_for_has_no_score() -> None:
    queries, bank, labels = drawn(2)
    labels[:, 1] = torch.nan
    scores = knn_scores(queries, bank, labels)
    assert scores[:, 1].isnan().all()
    assert scores[:, [0, 2]].isfinite().all()


@given(seed=st.integers(0, 2**30), k=st.integers(1, 50), factor=st.floats(0.1, 10))
def test_scores_are_shares_and_do_not_depend_on_the_length_of_features(seed: int, k: int, factor: float) -> None:
    queries, bank, labels = drawn(seed)
    scores = knn_scores(queries, bank, labels, k=k)
    assert scores.min() >= 0
    assert scores.max() <= 1
    torch.testing.assert_close(knn_scores(queries * factor, bank, labels, k=k), scores)
    torch.testing.assert_close(knn_scores(queries, bank, 1 - labels, k=k), 1 - scores)


def test_many_queries_are_as_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, bank, labels = drawn(3)
    whole = knn_scores(queries, bank, labels, k=5)
    monkeypatch.setattr("chexmsn.metrics.neighbours.QUERIES_AT_ONCE", 2)
    torch.testing.assert_close(knn_scores(queries, bank, labels, k=5), whole)


def test_fewer_neighbours_vote_from_those_already_found() -> None:
    queries, bank, labels = drawn(4)
    found = nearest(queries, bank, labels, 20)
    torch.testing.assert_close(vote(found, 5, 0.07), knn_scores(queries, bank, labels, k=5, temperature=0.07))
