"""PMSN: lightly's numbers, and what its prior does."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.core.errors import UserError
from chexmsn.methods import msn, pmsn
from test_methods import build, step_of
from test_methods_golden import load, params, with_dtypes

exponents = st.floats(0, 3)
counts = st.integers(1, 40)


def method(**options):
    return build("pmsn", **options)


def lightly_divergence(p, prior):
    """The term beside the cross-entropy, as lightly takes it."""
    if prior is not None:
        return lambda mean: pmsn.divergence(prior, mean)
    if p.power_law_exponent is not None:
        return method(exponent=p.power_law_exponent, direction="prior-from-mean").divergence
    return build("msn").divergence


@pytest.mark.parametrize(("name", "dtype"), [*with_dtypes("lightly_msn_"), *with_dtypes("lightly_pmsn_")])
def test_lightly_gives_the_same_loss_and_gradients(name, dtype):
    arrays, close = load(name, dtype)
    p = params(name)
    anchors, prototypes = (arrays[f"in_{what}"].requires_grad_() for what in ("anchors", "prototypes"))
    logs = msn.log_assignments(anchors, prototypes, p.temperature)
    wanted = msn.target_assignments(
        arrays["in_targets"],
        prototypes,
        temperature=p.temperature,
        sharpening=p.target_sharpen_temperature,
        sinkhorn_iterations=p.sinkhorn_iterations,
    )
    mean, matching = msn.mean_assignment(logs.exp()), msn.cross_entropy(logs, wanted)
    regulariser = lightly_divergence(p, arrays.get("in_prior"))(mean)
    loss = matching + p.regularization_weight * regulariser
    loss.backward()
    close(mean, arrays["out_mean_anchor_probs"])
    close(matching, arrays["out_cross_entropy"])
    close(regulariser, arrays["out_regularizer"])
    close(loss, arrays["out_loss"])
    close(anchors.grad, arrays["grad_anchors"])
    close(prototypes.grad, arrays["grad_prototypes"])
    if "out_power_law_prior" in arrays:
        close(pmsn.power_law(p.num_prototypes, p.power_law_exponent, mean), arrays["out_power_law_prior"])


@pytest.mark.parametrize(("name", "dtype"), [*with_dtypes("lightly_msn_"), *with_dtypes("lightly_pmsn_loss_")])
def test_the_method_puts_its_terms_together_as_lightly_does(name, dtype):
    arrays, close = load(name, dtype)
    p = params(name)
    options = {
        "prototypes": p.num_prototypes,
        "head_out": p.dim,
        "temperature": p.temperature,
        "sinkhorn": p.sinkhorn_iterations,
        "me_max": p.regularization_weight,
    }
    power_law = {"exponent": p.power_law_exponent, "direction": "prior-from-mean", "balance": "uniform"}
    which = build("msn", **options) if p.power_law_exponent is None else method(**options, **power_law)
    which.to(arrays["in_anchors"].dtype).prototypes.data.copy_(arrays["in_prototypes"])
    anchors = arrays["in_anchors"].requires_grad_()
    step = which._loss(anchors, arrays["in_targets"], p.target_sharpen_temperature)
    step.loss.backward()
    close(step.loss, arrays["out_loss"])
    close(step.log[which.regulariser], arrays["out_regularizer"])
    close(anchors.grad, arrays["grad_anchors"])
    close(which.prototypes.grad, arrays["grad_prototypes"])


@pytest.mark.parametrize("balance", ["prior", "uniform"])
def test_a_step_balances_its_targets_as_it_was_told_to(balance, monkeypatch):
    told, assign = [], msn.target_assignments
    monkeypatch.setattr(msn, "target_assignments", lambda *a, **how: (told.append(how["shares"]), assign(*a, **how))[1])
    which = method(exponent=1.0, balance=balance)
    step_of(which)
    (shares,) = told
    if balance == "uniform":
        assert shares is None
    else:
        torch.testing.assert_close(shares, pmsn.power_law(16, 1.0, like=which.prototypes.detach()))


@given(counts, exponents)
def test_the_prior_falls_by_a_power_of_the_rank(count, exponent):
    prior = pmsn.power_law(count, exponent, torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(prior.sum().item(), 1.0)
    ranks = torch.arange(1, count + 1, dtype=torch.float64)
    torch.testing.assert_close(prior, prior[0] * ranks**-exponent)


@given(counts, exponents, st.integers(0, 2**32 - 1))
def test_the_divergence_is_zero_at_the_prior_and_nowhere_else(count, exponent, seed):
    prior = pmsn.power_law(count, exponent, torch.zeros((), dtype=torch.float64))
    other = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(0)
    assert abs(pmsn.divergence(prior, prior)) < 1e-12
    pinsker = (other - prior).abs().sum() ** 2 / 2
    assert pmsn.divergence(other, prior) >= pinsker - 1e-12
    assert pmsn.divergence(prior, other) >= pinsker - 1e-12


def test_with_a_uniform_prior_it_is_msn():
    ours, theirs = step_of(method(exponent=0.0)), step_of(build("msn"))
    torch.testing.assert_close(ours.loss, theirs.loss)
    torch.testing.assert_close(ours.log["prior_divergence"], theirs.log["me_max"])
    torch.testing.assert_close(ours.log["prototype_entropy"], theirs.log["prototype_entropy"])


def test_the_directions_differ_where_a_prototype_gets_nothing():
    empty = torch.tensor([1.0, 0.0])
    bounded, unbounded = (method(direction=way).divergence(empty) for way in ("mean-from-prior", "prior-from-mean"))
    assert bounded < 1 < 30 < unbounded < math.inf


def test_prototypes_come_to_be_used_as_the_prior_says():
    prior, which = pmsn.power_law(8, 1.0, torch.zeros(())), method(exponent=1.0)
    logits = torch.zeros(64, 8, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        which.divergence(msn.mean_assignment(logits.softmax(1))).backward()
        optimiser.step()
    torch.testing.assert_close(msn.mean_assignment(logits.softmax(1)).detach(), prior, rtol=0.02, atol=0.002)


def test_targets_are_balanced_to_the_prior():
    logs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    prior = method(prototypes=8, exponent=1.0).shares(like=logs)
    balanced = msn.sinkhorn(logs, 100, prior).exp()
    torch.testing.assert_close(balanced.sum(1), torch.ones(64))
    torch.testing.assert_close(balanced.mean(0), prior, rtol=1e-3, atol=1e-4)


def test_targets_can_be_balanced_as_msn_and_lightly_do():
    assert method(balance="uniform").shares(like=torch.zeros(())) is None


@pytest.mark.parametrize("exponent", [-0.1, math.inf, math.nan])
def test_a_senseless_exponent_is_refused(exponent):
    with pytest.raises(UserError, match="exponent must"):
        pmsn.Config(exponent=exponent)
