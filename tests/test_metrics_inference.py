"""Intervals and tests against stored numbers, scipy, and what must hold for any data."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from chexmsn.core.errors import UserError
from chexmsn.metrics.bca import acceleration, bca_interval, bias_correction
from chexmsn.metrics.bootstrap import (
    patient_counts,
    percentile_interval,
    resampled_auroc,
    resampled_average_precision,
)
from chexmsn.metrics.covariance import clustered_covariance, z_test
from chexmsn.metrics.jackknife import left_out, left_out_auroc
from chexmsn.metrics.multiple import benjamini_hochberg, holm, simultaneous_band
from chexmsn.metrics.paired import paired_difference, two_sided_p
from chexmsn.metrics.ranking import auroc, average_precision, macro
from golden_statistics import DATA, EXPECTED, labels_of

BOTH = np.stack([DATA["scores_A"], DATA["scores_B"]])
SEEDS = st.integers(0, 2**32 - 1)


def delong(scores, labels):
    """DeLong's covariance is the clustered one of images of as many patients."""
    return clustered_covariance(scores, labels, np.arange(len(labels)))


@st.composite
def clinics(draw):
    """Scores of two models, labels of three findings, and the patients, of whom some have several images."""
    generator, images = np.random.default_rng(draw(SEEDS)), draw(st.integers(1, 40))
    scores = generator.normal(size=(2, images, 3)).round(draw(st.sampled_from([0, 1, 8])))
    labels = generator.choice([0.0, 1.0, np.nan], p=[0.5, 0.3, 0.2], size=(images, 3))
    return scores, labels, generator.integers(draw(st.integers(1, 20)), size=images)


def test_delong_meets_the_numbers_of_r():
    estimate = delong(BOTH, labels_of("ignore"))
    reach = scipy.stats.norm.ppf(0.975) * np.sqrt(np.diagonal(estimate.covariance, axis1=1, axis2=2)).T
    test, low, high = z_test(estimate), (estimate.auroc - reach).clip(0, 1), (estimate.auroc + reach).clip(0, 1)
    for finding, expected in EXPECTED["delong_paired_A_vs_B"]["label_index"].items():
        c, cov = int(finding), estimate.covariance[int(finding)]
        ours = {
            **{"auc_A": estimate.auroc[0, c], "auc_B": estimate.auroc[1, c]},
            **{"var_A": cov[0, 0], "var_B": cov[1, 1], "cov_AB": cov[0, 1], "z": test.z[c], "p_two_sided": test.p[c]},
            **{"ci95_A_low": low[0, c], "ci95_A_high": high[0, c], "ci95_B_low": low[1, c], "ci95_B_high": high[1, c]},
        }
        assert ours == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_the_clustered_covariance_meets_the_stored_one():
    estimate = clustered_covariance(BOTH, labels_of("ignore"), DATA["patient"])
    test = z_test(estimate)
    for c, expected in enumerate(EXPECTED["clustered_obuchowski"]["per_label"]):
        if expected is None:
            assert np.isnan(estimate.covariance[c]).all() and np.isnan(test.p[c])
            continue
        cov = estimate.covariance[c]
        ours = [cov[0, 0], cov[1, 1], cov[0, 1], test.z[c], test.p[c]]
        wanted = [*expected["var"], expected["cov"], expected["z"], expected["p"]]
        np.testing.assert_allclose(ours, wanted, rtol=1e-9)


def test_the_clustered_error_is_that_of_the_bootstrap_by_patient():
    variance = clustered_covariance(BOTH, labels_of("ignore"), DATA["patient"]).covariance[:, [0, 1], [0, 1]]
    for finding in (0, 3, 7, 9, 13):
        stored = EXPECTED["bootstrap_20000"]["by_unit"]["patient"][str(finding)]
        np.testing.assert_allclose(variance[finding] ** 0.5, [stored[model]["se"] for model in "AB"], rtol=0.08)


def delong_by_pairs(scores, label):
    """The definition, pair by pair."""
    wins = [(np.sign(s[label == 1][:, None] - s[label == 0]) + 1) / 2 for s in scores]
    own, other = (np.cov([w.mean(axis=axis) for w in wins]) for axis in (1, 0))
    return own / (label == 1).sum() + other / (label == 0).sum()


@settings(max_examples=60, deadline=None)
@given(clinics())
def test_covariances_are_those_of_the_definition(clinic):
    scores, labels, _ = clinic
    estimate = delong(scores, labels)
    np.testing.assert_allclose(estimate.auroc, [auroc(s, labels) for s in scores], atol=1e-12)
    for c in range(3):
        p, m = (labels[:, c] == 1).sum(), (labels[:, c] == 0).sum()
        if min(p, m) < 2:
            assert np.isnan(estimate.covariance[c]).all()
            continue
        np.testing.assert_allclose(estimate.covariance[c], delong_by_pairs(scores[:, :, c], labels[:, c]), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(clinics())
def test_z_tests_turn_around_and_ignore_monotone_maps_and_order(clinic):
    scores, labels, patients = clinic
    order = np.random.default_rng(0).permutation(len(labels))
    for covariance in (delong, lambda s, y: clustered_covariance(s, y, patients)):
        estimate = covariance(scores, labels)
        there, back = z_test(estimate, 0, 1), z_test(estimate, 1, 0)
        np.testing.assert_allclose(there.z, -back.z, atol=1e-12)
        np.testing.assert_allclose(there.p, back.p, atol=1e-12)
        mapped = covariance(np.exp(scores) * 2 - 1, labels)
        np.testing.assert_allclose(mapped.covariance, estimate.covariance, atol=1e-12)
    ordered = clustered_covariance(scores[:, order], labels[order], patients[order])
    np.testing.assert_allclose(
        ordered.covariance, clustered_covariance(scores, labels, patients).covariance, atol=1e-12
    )


def test_no_variance_proves_nothing():
    labels = np.array([[0.0], [0.0], [1.0], [1.0]])
    perfect, constant = np.array([[0.1], [0.2], [0.8], [0.9]]), np.full((4, 1), 0.5)
    estimate = delong(np.stack([perfect, constant]), labels)
    np.testing.assert_allclose(estimate.auroc[:, 0], [1.0, 0.5])
    assert (estimate.covariance == 0).all()
    assert np.isnan(z_test(estimate).p).all()
    noisy = np.random.default_rng(0).random((50, 1))
    same = delong(np.stack([noisy, noisy]), (noisy > 0.5) * 1.0)
    assert z_test(same).difference == 0 and np.isnan(z_test(same).p).all()
    with pytest.raises(UserError, match="finite"):
        delong(np.stack([perfect, constant * np.inf]), labels)


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_accelerations_meet_the_stored_ones(unit):
    labels, scores = labels_of("ignore"), DATA["scores_A"]
    units = DATA["patient"] if unit == "patient" else np.arange(len(labels))
    skew = acceleration(auroc(scores, labels), left_out_auroc(scores, labels, units))
    for finding, expected in EXPECTED["bca"]["per_label"].items():
        assert skew[int(finding)] == pytest.approx(expected[f"acceleration_leave_one_{unit}_out"], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(clinics())
def test_leaving_a_patient_out_is_scoring_the_others(clinic):
    (scores, _), labels, patients = clinic
    others = [patients != patient for patient in np.unique(patients)]
    for ours, metric in (
        (left_out_auroc(scores, labels, patients), auroc),
        (left_out(resampled_auroc, scores, labels, patients), auroc),
        (left_out(resampled_average_precision, scores, labels, patients), average_precision),
    ):
        np.testing.assert_allclose(ours, [metric(scores[rows], labels[rows]) for rows in others], atol=1e-12)


def test_many_patients_are_left_out_block_by_block():
    generator, patients = np.random.default_rng(0), np.arange(1200)
    scores, labels = generator.random((1200, 1)), (generator.random((1200, 1)) < 0.3) * 1.0
    slow = left_out(resampled_auroc, scores, labels, patients)
    np.testing.assert_allclose(slow, left_out_auroc(scores, labels, patients), atol=1e-12)


@pytest.mark.parametrize("skewed", [np.exp, np.tanh, np.round])
def test_bca_is_scipys(skewed):
    data = skewed(np.random.default_rng(3).normal(size=30))
    theirs = scipy.stats.bootstrap((data,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(0))
    without = (data.sum() - data) / (len(data) - 1)
    ours = bca_interval(data.mean(), theirs.bootstrap_distribution, without)
    np.testing.assert_allclose(ours, theirs.confidence_interval, rtol=1e-9)


@given(SEEDS, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_bca_without_bias_and_skew_is_the_percentile_interval(seed, level):
    above = np.random.default_rng(seed).exponential(size=(200, 2))
    value, samples = np.array([0.7, 0.0]), np.concatenate([above, -above * 0.3])
    balanced = value + np.array([[-0.1, -0.2], [0.1, 0.2]])
    assert (bias_correction(value, value + samples) == 0).all() and np.allclose(acceleration(value, balanced), 0)
    ours = bca_interval(value, value + samples, balanced, level)
    np.testing.assert_allclose(ours, percentile_interval(value + samples, level), atol=1e-9)


@given(SEEDS, st.sampled_from([0.01, 0.5, 7.0]), st.floats(-2, 2))
def test_bca_moves_with_scale_and_place(seed, scale, place):
    samples = np.random.default_rng(seed).normal(0.1, size=(801, 1))
    value, without = np.array([0.0]), np.array([[-0.1], [0.02], [0.05]])
    moved = bca_interval(value * scale + place, samples * scale + place, without * scale + place)
    np.testing.assert_allclose(moved, np.array(bca_interval(value, samples, without)) * scale + place, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(clinics())
def test_wider_levels_hold_narrower_ones(clinic):
    (scores, _), labels, patients = clinic
    counts = patient_counts(patients, 200, 0)
    value, samples = auroc(scores, labels), resampled_auroc(scores, labels, counts)
    without = left_out_auroc(scores, labels, patients)
    for interval in (percentile_interval, lambda s, level: bca_interval(value, s, without, level)):
        narrow, wide = interval(samples, 0.8), interval(samples, 0.95)
        known = ~np.isnan(narrow.low)
        assert (wide.low[known] <= narrow.low[known]).all() and (wide.high[known] >= narrow.high[known]).all()
        assert (wide.low[known] >= 0).all() and (wide.high[known] <= 1).all()


def test_intervals_of_macro_differences_and_drops_come_from_the_same_three_arrays():
    labels, patients = labels_of("ignore"), DATA["patient"]
    used = EXPECTED["bootstrap_20000"]["by_unit"]["patient"]["macro_over_labels"]
    findings = np.isin(np.arange(14), used["label_index"])
    counts = patient_counts(patients, 1000, seed=1)
    of_model = [
        [
            macro(part, findings)
            for part in (auroc(s, labels), resampled_auroc(s, labels, counts), left_out_auroc(s, labels, patients))
        ]
        for s in BOTH
    ]
    difference = [a - b for a, b in zip(*of_model, strict=True)]
    for (value, samples, without), expected in zip(
        (*of_model, difference), (used[k] for k in ("A", "B", "diff")), strict=True
    ):
        low, high = expected["percentile95"]
        # BCa corrects for the bias of the bootstrap: ends move by less than a third of a standard error here.
        np.testing.assert_allclose(bca_interval(value, samples, without), (low, high), atol=0.4 * expected["se"])
        np.testing.assert_allclose(percentile_interval(samples), (low, high), atol=0.12 * (high - low))
    found = paired_difference(*difference[:2])
    assert found.p == pytest.approx(1 / 1001) and found.low > 0.03


def test_intervals_of_numbers_that_never_vary_have_no_width():
    labels, constant = np.array([[0.0], [1.0]] * 10), np.full((20, 1), 0.3)
    counts = patient_counts(np.arange(20), 300, 0)
    for scores, value in ((constant, 0.5), (labels, 1.0)):
        estimate = (
            auroc(scores, labels),
            resampled_auroc(scores, labels, counts),
            left_out_auroc(scores, labels, np.arange(20)),
        )
        np.testing.assert_allclose(bca_interval(*estimate), [[value], [value]])
        np.testing.assert_allclose(percentile_interval(estimate[1]), [[value], [value]])


def test_what_bca_cannot_say_it_leaves_out():
    samples, without = np.linspace(0, 1, 100)[:, None], np.array([[0.4], [0.6]])
    for value in (-1.0, 2.0, np.nan):
        assert np.isnan(bca_interval(np.array([value]), samples, without)).all()
    assert np.isnan(bca_interval(np.array([0.5]), samples, np.array([[np.nan], [0.6]]))).all()
    few = np.where(np.arange(100)[:, None] < 6, np.nan, samples)
    assert np.isnan(bca_interval(np.array([0.5]), few, without)).all()
    assert not np.isnan(bca_interval(np.array([0.5]), few, without, undefined_at_most=0.1)).any()


@given(SEEDS, st.integers(1, 60))
def test_paired_differences_turn_around(seed, resamples):
    samples = np.random.default_rng(seed).normal(0.3, size=(resamples, 2)).round(1)
    there, back = paired_difference(samples[0], samples), paired_difference(-samples[0], -samples)
    np.testing.assert_allclose(there.p, back.p)
    np.testing.assert_allclose(there.low, -back.high, atol=1e-12)
    assert (there.p >= 1 / (resamples + 1)).all() and (there.p <= 1).all()


def test_p_values_of_resampled_differences():
    samples = np.array(
        [[0.0, 1.0, -1.0, np.nan], [0.0, 2.0, 1.0, np.nan], [0.0, 3.0, 2.0, np.nan], [0.0, 1.0, 2.0, 1.0]]
    )
    np.testing.assert_allclose(two_sided_p(samples), [1.0, 1 / 5, 2 / 4, 1 / 2])
    assert np.isnan(paired_difference(np.ones(4), samples).p).tolist() == [False, False, False, True]
    assert np.isnan(two_sided_p(np.full((3, 1), np.nan))).all()


def test_adjusted_p_values_meet_those_of_r():
    stored = EXPECTED["multiple_testing"]
    np.testing.assert_allclose(holm(np.array(stored["p_raw"])), stored["holm"], rtol=1e-9)
    np.testing.assert_allclose(benjamini_hochberg(np.array(stored["p_raw"])), stored["benjamini_hochberg"], rtol=1e-9)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(np.nan)), max_size=20))
def test_adjusted_p_values_keep_order_and_missing_ones(values):
    p = np.array(values)
    known = ~np.isnan(p)
    family, share = holm(p), benjamini_hochberg(p)
    np.testing.assert_allclose(share[known], scipy.stats.false_discovery_control(p[known]) if known.any() else [])
    assert (family[known] >= share[known] - 1e-12).all() and (share[known] >= p[known] - 1e-12).all()
    for adjusted in (family, share):
        np.testing.assert_array_equal(np.isnan(adjusted), ~known)
        assert (np.diff(adjusted[known][np.argsort(p[known], kind="stable")]) >= -1e-12).all() and (
            adjusted[known] <= 1
        ).all()


@given(SEEDS, st.integers(2, 6))
def test_a_band_holds_the_curves_it_claims_to(seed, points):
    samples = np.random.default_rng(seed).normal(size=(400, points)).cumsum(axis=1)
    value = samples.mean(axis=0)
    low, high = simultaneous_band(value, samples, 0.9)
    inside = ((samples >= low) & (samples <= high)).all(axis=1).mean()
    assert inside == pytest.approx(0.9, abs=1 / 400 + 1e-9)
    narrow = simultaneous_band(value, samples, 0.5)
    assert (low <= narrow.low).all() and (narrow.high <= high).all()


def test_a_band_of_a_point_that_never_varies_and_of_one_that_is_missing():
    samples = np.random.default_rng(0).normal(size=(100, 3))
    samples[:, 0] = 0.0
    low, high = simultaneous_band(np.zeros(3), samples)
    assert low[0] == high[0] == 0 and (low[1:] < high[1:]).all()
    samples[:5, 1] = np.nan
    assert not np.isnan(simultaneous_band(np.zeros(3), samples).low).any()
    samples[5, 2] = np.nan
    assert np.isnan(simultaneous_band(np.zeros(3), samples)).all()
