"""Metrics against stored numbers of scikit-learn and R, and against scikit-learn itself."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from chexmsn.core.errors import UserError
from chexmsn.metrics.bootstrap import (
    enough_patients,
    patient_counts,
    percentile_interval,
    resampled_auroc,
    resampled_average_precision,
    undefined_share,
)
from chexmsn.metrics.degradation import (
    above_chance_drop,
    absolute_drop,
    area_under_degradation,
    relative_drop,
    skill_under_degradation,
)
from chexmsn.metrics.ranking import auroc, average_precision, both_classes, macro
from golden_statistics import DATA, EXPECTED, GOLDEN, POLICIES, labels_of, numbers

every_model = pytest.mark.parametrize("model", ["A", "B"])


@every_model
@pytest.mark.parametrize("policy", POLICIES)
def test_values_meet_the_stored_ones(policy, model):
    expected, labels, scores = EXPECTED["label_policies"][policy][model], labels_of(policy), DATA[f"scores_{model}"]
    np.testing.assert_allclose(auroc(scores, labels), numbers(expected["auroc"]), atol=1e-9)
    both = both_classes(labels)
    # Of positives alone scikit-learn says 1.0; a finding of one class has no value here.
    precision = np.where(both, numbers(expected["auprc"]), np.nan)
    np.testing.assert_allclose(average_precision(scores, labels), precision, atol=1e-9)
    assert macro(auroc(scores, labels), both) == pytest.approx(expected["macro_auroc_defined_labels"], abs=1e-9)
    stored_macro = expected["macro_auprc_labels_with_positives_and_negatives"]
    assert macro(average_precision(scores, labels), both) == pytest.approx(stored_macro, abs=1e-9)


@every_model
@pytest.mark.parametrize("unit", ["image", "patient"])
def test_resampled_values_meet_the_stored_ones(unit, model):
    counts = DATA[f"resample_counts_{unit}"]
    if unit == "patient":
        counts = counts[:, np.unique(DATA["patient"], return_inverse=True)[1]]
    scores, labels = DATA[f"scores_{model}"], labels_of("ignore")
    np.testing.assert_allclose(resampled_auroc(scores, labels, counts), DATA[f"resampled_{unit}_{model}"], atol=1e-9)
    if (unit, model) == ("image", "A"):
        precision = resampled_average_precision(scores, labels, counts)
        np.testing.assert_allclose(precision, DATA["resampled_image_A_auprc"], atol=1e-9)


def test_the_published_macro_interval_is_met():
    with np.load(GOLDEN / "bootstrap_ci_a.npz") as stored:
        z = dict(stored)
    labels, scores, everything = z["in_labels"].astype(np.float64), z["in_scores"], np.ones(14, dtype=bool)
    counts = np.stack([np.bincount(rows, minlength=150) for rows in z["in_bootstrap_index"]])
    for name, metric, resampled in (
        ("auroc", auroc, resampled_auroc),
        ("auprc", average_precision, resampled_average_precision),
    ):
        np.testing.assert_allclose(metric(scores, labels), z[f"out_{name}_per_class"], rtol=1e-9)
        np.testing.assert_allclose(macro(metric(scores, labels), everything), z[f"out_{name}_macro"], rtol=1e-9)
        values = macro(resampled(scores, labels, counts), everything)
        np.testing.assert_allclose(values, z[f"out_bootstrap_{name}"], rtol=1e-9)
        np.testing.assert_allclose(percentile_interval(values), z[f"out_{name}_ci_lower_upper"], rtol=1e-9)


def test_intervals_agree_with_a_bootstrap_of_20000_patient_resamples():
    stored = EXPECTED["bootstrap_20000"]["by_unit"]["patient"]
    counts, labels = patient_counts(DATA["patient"], 1000, seed=0), labels_of("ignore")
    values = {model: resampled_auroc(DATA[f"scores_{model}"], labels, counts) for model in "AB"}
    values["diff"] = values["A"] - values["B"]  # paired: the counts are shared
    for finding in (0, 3, 9, 13):
        for what, of_all in values.items():
            expected = stored[str(finding)][what]
            low, high = expected["percentile95"]
            assert of_all[:, finding].std() == pytest.approx(expected["se"], rel=0.10)
            assert np.abs(np.array(percentile_interval(of_all[:, finding])) - (low, high)).max() <= 0.12 * (high - low)


@every_model
def test_drops_meet_the_stored_ones(model):
    expected, used = EXPECTED["degradation"][model], EXPECTED["degradation"]["label_index"]
    clean, corrupted = numbers(expected["auroc_clean"])[used], numbers(expected["auroc_severity"])[:, used]
    macro_clean, macro_corrupted = clean.mean(), corrupted.mean(axis=1)
    close = {"rtol": 0, "atol": 1e-9}
    np.testing.assert_allclose(macro_corrupted, expected["macro_severity"], **close)
    np.testing.assert_allclose(absolute_drop(macro_clean, macro_corrupted), expected["drop_absolute"], **close)
    np.testing.assert_allclose(relative_drop(macro_clean, macro_corrupted), expected["drop_relative_to_auroc"], **close)
    lost_skill = above_chance_drop(macro_clean, macro_corrupted)
    np.testing.assert_allclose(lost_skill, expected["drop_relative_above_chance"], **close)
    mean_of_ratios = relative_drop(clean, corrupted).mean(axis=1)
    np.testing.assert_allclose(mean_of_ratios, expected["mean_of_per_label_relative_drop"], **close)
    curve = np.append(macro_clean, macro_corrupted)
    area, skill = area_under_degradation(range(6), curve), skill_under_degradation(range(6), curve)
    assert area == pytest.approx(expected["area_under_degradation_curve_trapezoid_severity_0_to_5"], abs=1e-9)
    assert skill == pytest.approx(expected["normalised_area_above_chance"], abs=1e-9)


def test_drops_of_a_model_without_skill_say_so():
    assert np.isnan(above_chance_drop([0.5, 0.4], [0.5, 0.3])).all()
    assert np.isnan(relative_drop(0.0, 0.0)) and np.isnan(skill_under_degradation([0, 1], [0.5, 0.4]))
    np.testing.assert_allclose(above_chance_drop([0.6, 0.6], [0.3, 0.6], chance=[0.1, 0.2]), [0.6, 0.0])


def test_uneven_severities_weigh_by_their_distance():
    assert area_under_degradation([0, 1, 4], [[1.0, 0.8, 0.2]]) == pytest.approx([(0.9 * 1 + 0.5 * 3) / 4])


@st.composite
def weighted_findings(draw):
    images = draw(st.integers(2, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    decimals = draw(st.sampled_from([0, 1, 8]))
    scores = generator.normal(size=(images, 3)).round(decimals)
    labels = generator.choice([0.0, 1.0, np.nan], p=[0.5, 0.3, 0.2], size=(images, 3))
    return scores, labels, generator.integers(0, 4, size=(4, images))


def oracle(metric, scores, labels, weights) -> float:
    known = ~np.isnan(labels) & (weights > 0)
    if len(np.unique(labels[known])) < 2:
        return np.nan
    return metric(labels[known], scores[known], sample_weight=weights[known])


@settings(max_examples=60, deadline=None)
@given(weighted_findings())
def test_every_value_is_scikit_learns(case):
    scores, labels, counts = case
    for theirs, ours, resampled in (
        (roc_auc_score, auroc, resampled_auroc),
        (average_precision_score, average_precision, resampled_average_precision),
    ):
        ones = np.ones(len(scores))
        wanted = [oracle(theirs, s, y, ones) for s, y in zip(scores.T, labels.T, strict=True)]
        np.testing.assert_allclose(ours(scores, labels), wanted, atol=1e-12)
        wanted = [[oracle(theirs, s, y, w) for s, y in zip(scores.T, labels.T, strict=True)] for w in counts]
        np.testing.assert_allclose(resampled(scores, labels, counts), wanted, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(weighted_findings())
def test_auroc_depends_on_the_order_alone_and_turns_around_with_it(case):
    scores, labels, _ = case
    np.testing.assert_allclose(auroc(np.exp(scores) * 3 + 1, labels), auroc(scores, labels), atol=1e-12)
    np.testing.assert_allclose(auroc(-scores, labels), 1 - auroc(scores, labels), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 99))
def test_patients_are_resampled_whole_and_whatever_the_order_of_images(patients, seed):
    patients = np.array(patients)
    counts = patient_counts(patients, 20, seed)
    names, first = np.unique(patients, return_index=True)
    for patient in names:
        assert (counts[:, patients == patient] == counts[:, patients == patient][:, :1]).all()
    assert (counts[:, first].sum(axis=1) == len(names)).all()
    order = np.random.default_rng(seed).permutation(len(patients))
    np.testing.assert_array_equal(patient_counts(patients[order], 20, seed), counts[:, order])


def test_another_seed_gives_other_resamples_and_draws_are_uniform():
    patients = np.arange(50)
    assert (patient_counts(patients, 5, 0) != patient_counts(patients, 5, 1)).any()
    mean = patient_counts(patients, 20_000, 0).mean(axis=0)
    assert np.abs(mean - 1).max() < 5 / 20_000**0.5


def test_more_than_a_few_resamples_without_a_value_mean_no_interval():
    values = np.tile(np.linspace(0, 1, 101)[:100, None], (1, 3))
    values[:5, 1], values[:6, 2] = np.nan, np.nan
    np.testing.assert_allclose(undefined_share(values), [0, 0.05, 0.06])
    low, high = percentile_interval(values)
    assert np.isnan([low[2], high[2]]).all() and not np.isnan([*low[:2], *high[:2]]).any()
    assert not np.isnan(percentile_interval(values, undefined_at_most=0.1).low).any()


def test_findings_of_very_few_patients_bear_no_interval():
    patients, labels = np.repeat(np.arange(60), 2), np.zeros((120, 4))
    for finding, positive in enumerate((1, 5, 55, 59)):
        labels[patients < positive, finding] = 1.0
    counts = patient_counts(patients, 2000, 0)
    assert enough_patients(labels, patients).tolist() == [False, True, True, False]
    values = resampled_auroc(np.random.default_rng(0).random((120, 4)), labels, counts)
    np.testing.assert_array_equal(enough_patients(labels, patients), ~np.isnan(percentile_interval(values).low))


@pytest.mark.parametrize(("patients", "resamples"), [(0, 10), (10, 0)])
def test_nothing_to_resample_is_refused(patients, resamples):
    with pytest.raises(UserError, match="at least one of each"):
        patient_counts(np.arange(patients), resamples, 0)


def test_no_images_have_no_value_and_no_findings_are_refused():
    nothing, counts = np.empty((0, 2)), np.zeros((3, 0), np.int16)
    assert np.isnan(auroc(nothing, nothing)).all() and np.isnan(average_precision(nothing, nothing)).all()
    assert np.isnan(resampled_auroc(nothing, nothing, counts)).all()
    with pytest.raises(UserError, match="0 columns"):
        auroc(np.empty((4, 0)), np.empty((4, 0)))


def test_a_macro_over_a_fixed_set_misses_where_one_of_it_misses():
    values = np.array([[0.5, 0.7, np.nan], [0.5, np.nan, 0.9]])
    np.testing.assert_allclose(macro(values, np.array([True, True, False])), [0.6, np.nan])


def test_findings_of_one_class_have_no_value_and_no_warning():
    scores, labels = np.random.default_rng(0).random((6, 3)), np.tile([1.0, 0.0, np.nan], (6, 1))
    counts = patient_counts(np.arange(6), 10, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (auroc(scores, labels), average_precision(scores, labels)):
            assert value.shape == (3,) and np.isnan(value).all()
        values = resampled_auroc(scores, labels, counts)
        assert values.shape == (10, 3) and np.isnan(values).all()
        assert np.isnan(percentile_interval(values).low).all()


@pytest.mark.parametrize(
    ("score", "label", "told"),
    [
        (np.nan, 1.0, "NaN: score it anew"),
        (-np.inf, 1.0, "image 1, finding 0 is -inf: score it anew"),
        (0.5, -1.0, "not -1"),
        (0.5, 0.55, "not 0.55"),
    ],
)
def test_scores_and_labels_that_cannot_be_ranked_are_refused(score, label, told):
    scores, labels = np.array([[0.1], [score]]), np.array([[0.0], [label]])
    for metric in (auroc, average_precision):
        with pytest.raises(UserError, match=told):
            metric(scores, labels)
