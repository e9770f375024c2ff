"""Effective rank and resemblance of features."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.metrics.representation import effective_rank, mean_resemblance


def drawn(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (20, 20)])
def test_the_rank_is_that_of_the_paper(shape):
    features = drawn(*shape) + 3
    singular = np.linalg.svd(features.double().numpy(), compute_uv=False)
    shares = singular / singular.sum() + 1e-7  # the paper's epsilon
    assert effective_rank(features).item() == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


@given(st.integers(2, 12), st.integers(1, 12), st.floats(0.01, 100.0))
def test_the_rank_is_bounded_and_knows_no_scale_and_no_rotation(rows, columns, scale):
    features = drawn(rows, columns, seed=rows * columns)
    rank = effective_rank(features).item()
    assert 1 - 1e-5 <= rank <= min(rows, columns) + 1e-4
    rotation = torch.linalg.qr(drawn(columns, columns, seed=1)).Q
    assert effective_rank(scale * features @ rotation).item() == pytest.approx(rank, rel=1e-3)


@pytest.mark.parametrize("dimensions", [1, 3, 7])
def test_the_rank_counts_equal_dimensions(dimensions):
    basis = torch.linalg.qr(drawn(32, dimensions)).Q
    assert effective_rank(drawn(1, 1) * basis).item() == pytest.approx(dimensions, rel=1e-4)


def test_a_collapsed_encoder_has_rank_one_whatever_its_rounding_errors():
    collapsed = torch.ones(512, 192) * drawn(1, 192) + 1e-6 * drawn(512, 192, seed=1)
    assert effective_rank(collapsed).item() < 1.01
    assert mean_resemblance(collapsed).item() == pytest.approx(1)
    assert effective_rank(torch.zeros(8, 4)).item() == pytest.approx(1)


def test_resemblance_is_the_mean_over_pairs():
    features = drawn(6, 3)
    directions = features / features.norm(dim=1, keepdim=True)
    pairs = [directions[i] @ directions[j] for i in range(6) for j in range(6) if i != j]
    assert mean_resemblance(features).item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)
