"""Calibration, recalibration and operating points against stored numbers, scikit-learn and counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, confusion_matrix

from chexmsn.core.errors import UserError
from chexmsn.metrics.bootstrap import patient_counts, percentile_interval
from chexmsn.metrics.calibration import (
    brier,
    equal_count,
    equal_width,
    expected_calibration_error,
    maximum_calibration_error,
    reliability,
    resampled_brier,
    resampled_reliability,
)
from chexmsn.metrics.jackknife import left_out
from chexmsn.metrics.operating import operating_point, resampled_operating_point
from chexmsn.metrics.ranking import auroc
from chexmsn.metrics.recalibration import calibration_line
from chexmsn.metrics.thresholds import choose_thresholds
from golden_statistics import DATA, EXPECTED, labels_of


@st.composite
def judged(draw):
    """Probabilities, labels and counts of a few images."""
    generator, images = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.integers(1, 40))
    scores = generator.random((images, 3)).round(draw(st.sampled_from([0, 1, 8])))
    labels = generator.choice([0.0, 1.0, np.nan], p=[0.5, 0.3, 0.2], size=(images, 3))
    return scores, labels, generator.integers(0, 4, size=(3, images))


def repeated(rows, count):
    return np.repeat(np.arange(len(rows)), count), np.ones((1, count.sum()), np.int64)


@pytest.mark.parametrize("finding", EXPECTED["calibration"]["per_label"])
def test_calibration_meets_the_stored_numbers(finding):
    scores, labels, c = DATA["scores_A"], labels_of("ignore"), int(finding)
    width, count = reliability(scores, labels), reliability(scores, labels, equal_count)
    ours = {
        "brier": brier(scores, labels)[c],
        "ece15_equal_width": expected_calibration_error(width)[c],
        "ece15_equal_width_torchmetrics": expected_calibration_error(width)[c],
        "ece15_equal_count_stable_sort_array_split": expected_calibration_error(count)[c],
        "mce15_equal_width": maximum_calibration_error(width)[c],
    }
    assert ours == pytest.approx(EXPECTED["calibration"]["per_label"][finding], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(judged())
def test_a_resample_is_the_test_set_with_images_repeated(case):
    scores, labels, counts = case
    tables, points = resampled_reliability(scores, labels, counts), np.array([0.5, 0.2, np.nan])
    rates, squares = resampled_operating_point(scores, labels, points, counts), resampled_brier(scores, labels, counts)
    for r, count in enumerate(counts):
        rows = np.repeat(np.arange(len(scores)), count)
        for ours, theirs in (
            (tables, reliability(scores[rows], labels[rows])),
            (rates, operating_point(scores[rows], labels[rows], points)),
            ([squares], [brier(scores[rows], labels[rows])]),
        ):
            for part, alone in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(part[r], alone, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(judged())
def test_values_are_scikit_learns(case):
    scores, labels, _ = case
    rates = operating_point(scores, labels, np.full(3, 0.5))
    for c in range(3):
        known = ~np.isnan(labels[:, c])
        if not known.any():
            assert np.isnan([brier(scores, labels)[c], *(rate[c] for rate in rates)]).all()
            continue
        score, label = scores[known, c], labels[known, c]
        assert brier(scores, labels)[c] == pytest.approx(brier_score_loss(label, score, labels=[0, 1]))
        (tn, fp), (fn, tp) = confusion_matrix(label, score >= 0.5, labels=[0, 1])
        parts = (tp, tp + fn), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn)
        np.testing.assert_allclose([rate[c] for rate in rates], [a / b if b else np.nan for a, b in parts])


@settings(max_examples=60, deadline=None)
@given(judged())
def test_reliability_tables_hold_together(case):
    scores, labels, _ = case
    for binning in (equal_width, equal_count):
        table = reliability(scores, labels, binning)
        expected, largest = expected_calibration_error(table), maximum_calibration_error(table)
        known = ~np.isnan(labels).all(axis=0)
        np.testing.assert_array_equal(np.isnan(expected), ~known)
        np.testing.assert_array_equal(np.isnan(largest), ~known)
        np.testing.assert_allclose(table.weight[known].sum(axis=1), 1)
        assert (expected[known] <= largest[known] + 1e-12).all() and (largest[known] <= 1).all()
        images = (~np.isnan(labels)).sum(axis=0)[:, None]
        if binning is equal_count:
            assert (np.ptp(table.weight * images, axis=1)[known] < 1.5).all()


@settings(max_examples=40, deadline=None)
@given(judged())
def test_order_and_doubled_patients_change_no_value(case):
    scores, labels, _ = case
    order, twice = np.random.default_rng(0).permutation(len(scores)), np.repeat(np.arange(len(scores)), 2)
    thresholds = np.array([0.3, 0.5, 0.9])
    for metric in (
        auroc,
        brier,
        lambda s, y: expected_calibration_error(reliability(s, y)),
        lambda s, y: np.stack(operating_point(s, y, thresholds)),
    ):
        for rows in (order, twice):
            np.testing.assert_allclose(metric(scores[rows], labels[rows]), metric(scores, labels), atol=1e-12)


def test_perfect_probabilities_are_calibrated_and_the_contrary_is_not():
    labels = np.array([[0.0], [1.0], [1.0], [np.nan]])
    right, wrong = np.nan_to_num(labels), 1 - np.nan_to_num(labels)
    for scores, value in ((right, 0.0), (wrong, 1.0)):
        table = reliability(scores, labels)
        assert brier(scores, labels) == expected_calibration_error(table) == maximum_calibration_error(table) == value


def test_one_class_and_no_images_are_defined():
    scores, labels = np.full((5, 3), 0.25), np.tile([1.0, 0.0, np.nan], (5, 1))
    np.testing.assert_allclose(brier(scores, labels), [0.75**2, 0.25**2, np.nan])
    np.testing.assert_allclose(expected_calibration_error(reliability(scores, labels)), [0.75, 0.25, np.nan])
    np.testing.assert_allclose(operating_point(scores, labels, np.full(3, 0.2)).sensitivity, [1, np.nan, np.nan])
    assert np.isnan(calibration_line(scores, labels)).all()
    nothing = np.empty((0, 3))
    assert np.isnan(brier(nothing, nothing)).all()
    assert np.isnan(expected_calibration_error(reliability(nothing, nothing))).all()


@pytest.mark.parametrize("metric", [brier, reliability, calibration_line])
@pytest.mark.parametrize(("score", "told"), [(1.5, "not 1.5: apply the sigmoid"), (np.nan, "NaN"), (np.inf, "inf")])
def test_scores_that_are_no_probabilities_are_refused(metric, score, told):
    with pytest.raises(UserError, match=told):
        metric(np.array([[0.5], [score]]), np.array([[0.0], [1.0]]))


def regression(score, label):
    """scikit-learn's unpenalised logistic regression on log odds."""
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    return model.fit(np.log(score / (1 - score))[:, None], label)


@pytest.mark.parametrize("slope", [0.3, 1.0, 4.0, -1.0])
def test_the_line_is_that_of_logistic_regression(slope):
    generator = np.random.default_rng(0)
    odds = generator.normal(size=(600, 2))
    labels = (generator.random((600, 2)) < 1 / (1 + np.exp(-slope * odds))) * 1.0
    scores = 1 / (1 + np.exp(-odds - 0.5))
    labels[:30, 1] = np.nan
    line = calibration_line(scores, labels)
    for c, rows in enumerate((slice(None), slice(30, None))):
        theirs = regression(scores[rows, c], labels[rows, c])
        assert (line.slope[c], line.intercept[c]) == pytest.approx(
            (theirs.coef_.item(), theirs.intercept_.item()), abs=1e-5
        )
        moved = 1 / (1 + np.exp(-odds[rows, c] - 0.5 - line.in_the_large[c]))
        assert moved.mean() == pytest.approx(labels[rows, c].mean(), abs=1e-9)


def test_what_no_finite_line_fits_has_none():
    labels = np.array([[0.0], [0.0], [1.0], [1.0]])
    perfect, constant = np.array([[0.0], [0.2], [0.8], [1.0]]), np.full((4, 1), 0.7)
    for scores in (perfect, 1 - perfect, constant):
        line = calibration_line(scores, labels)
        assert np.isnan([line.slope, line.intercept]).all() and np.isfinite(line.in_the_large).all()


@settings(max_examples=100, deadline=None)
@given(judged(), st.sampled_from([0.1, 1, 10]))
def test_fits_are_where_the_likelihood_is_level(case, power):
    scores, labels, _ = case
    scores = scores**power
    line = calibration_line(scores, labels)
    clipped = scores.clip(1e-7, 1 - 1e-7)
    odds = np.log(clipped / (1 - clipped))

    def pull(fitted, weights):  # the derivative of the likelihood along `weights`, where there is a fit
        slope = weights * (labels - 1 / (1 + np.exp(-fitted)))
        return np.where(np.isfinite(fitted).all(axis=0), np.nansum(slope, axis=0), 0.0)

    for fitted, weights in (
        (odds + line.in_the_large, 1.0),
        (odds * line.slope + line.intercept, 1.0),
        (odds * line.slope + line.intercept, odds),
    ):
        np.testing.assert_allclose(pull(fitted, weights), 0, atol=1e-4)


def test_extreme_scores_do_not_break_the_fit():
    scores, labels = np.array([[0.0], [1.0], [0.0], [1.0], [0.3]]), np.array([[0.0], [1.0], [1.0], [0.0], [1.0]])
    assert np.isfinite(calibration_line(scores, labels)).all()


def test_rates_at_a_clean_threshold_have_intervals_from_the_same_resamples():
    labels, patients = labels_of("ignore"), DATA["patient"]
    counts, names = patient_counts(patients, 300, 0), [str(c) for c in range(14)]
    chosen = choose_thresholds(DATA["scores_A"], labels, names)
    thresholds = np.array([chosen.get(name, np.nan) for name in names])
    value = operating_point(DATA["scores_A"], labels, thresholds)
    samples = resampled_operating_point(DATA["scores_A"], labels, thresholds, counts)
    for rate, of_resamples in zip(value, samples, strict=True):
        low, high = percentile_interval(of_resamples)
        known = ~np.isnan(low)
        assert known[[0, 3, 9, 13]].all() and not known[[8, 10]].any()
        assert ((low <= rate) & (rate <= high))[known].all()
    corrupted = operating_point(DATA["severity_scores_A"][4], labels, thresholds)
    youden = value.sensitivity + value.specificity
    assert (corrupted.sensitivity + corrupted.specificity)[[0, 3, 9, 13]].max() < youden[[0, 3, 9, 13]].min()


def test_brier_scores_can_leave_patients_out():
    scores, labels, patients = DATA["scores_A"][:60], labels_of("ignore")[:60], DATA["patient"][:60]
    ours = left_out(resampled_brier, scores, labels, patients)
    theirs = [brier(scores[patients != p], labels[patients != p]) for p in np.unique(patients)]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
