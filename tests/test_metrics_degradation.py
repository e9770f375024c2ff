"""Degradation and subgroups: stored numbers, pairing by shared resamples, suppression."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.metrics.bca import bca_interval
from chexmsn.metrics.bootstrap import patient_counts, percentile_interval, resampled_auroc
from chexmsn.metrics.degradation import (
    above_chance_drop,
    absolute_drop,
    area_under_degradation,
    corruption_error,
    relative_corruption_error,
    relative_drop,
    skill_under_degradation,
)
from chexmsn.metrics.jackknife import left_out_auroc
from chexmsn.metrics.multiple import simultaneous_band
from chexmsn.metrics.paired import paired_difference
from chexmsn.metrics.ranking import auroc, macro
from chexmsn.metrics.subgroups import AGE_BANDS, FEWEST, age_bands, groups, large_enough
from golden_statistics import DATA, EXPECTED, labels_of, numbers

STORED = EXPECTED["degradation"]
FINDINGS = np.isin(np.arange(14), STORED["label_index"])


def curve(model: str, of) -> np.ndarray:
    """Something of the clean scores and of the five severities, first axis severity."""
    scores = [DATA[f"scores_{model}"], *DATA[f"severity_scores_{model}"]]
    return np.stack([of(s, labels_of("ignore")) for s in scores])


@pytest.mark.parametrize("model", ["A", "B"])
def test_aurocs_and_drops_meet_the_stored_numbers(model):
    values, expected = curve(model, auroc), STORED[model]
    np.testing.assert_allclose(values[0], numbers(expected["auroc_clean"]), atol=1e-9)
    np.testing.assert_allclose(values[1:], numbers(expected["auroc_severity"]), atol=1e-9)
    clean, corrupted = values[:1], values[1:]
    for name, ours in {
        "drop_absolute": absolute_drop(macro(clean, FINDINGS), macro(corrupted, FINDINGS)),
        "drop_relative_to_auroc": relative_drop(macro(clean, FINDINGS), macro(corrupted, FINDINGS)),
        "drop_relative_above_chance": above_chance_drop(macro(clean, FINDINGS), macro(corrupted, FINDINGS)),
        "mean_of_per_label_relative_drop": macro(relative_drop(clean, corrupted), FINDINGS),
    }.items():
        np.testing.assert_allclose(ours, expected[name], atol=1e-9)


def test_corruption_errors_meet_the_stored_numbers():
    a, b = (macro(curve(model, auroc), FINDINGS) for model in "AB")
    assert corruption_error(a[1:], b[1:]) == pytest.approx(STORED["corruption_error_A_vs_reference_B"], abs=1e-9)
    relative = relative_corruption_error(a, b)
    assert relative == pytest.approx(STORED["relative_corruption_error_A_vs_reference_B"], abs=1e-9)


def test_corruption_errors_against_a_reference_that_loses_nothing_are_missing():
    assert np.isnan(corruption_error([0.9], [1.0])) and np.isnan(relative_corruption_error([0.9, 0.8], [0.9, 0.9]))
    assert np.isnan(relative_corruption_error([0.9, 0.8], [0.9, 0.95]))


@given(st.lists(st.floats(0.5, 0.99), min_size=2, max_size=6))
def test_a_model_is_its_own_reference(values):
    assert corruption_error(values, values) == pytest.approx(1.0)
    drops = sum(values[0] - value for value in values[1:])
    assert drops <= 1e-9 or relative_corruption_error(values, values) == pytest.approx(1.0)


def test_one_severity_makes_no_curve():
    """What is all or nothing costs all that it costs, whatever number its severity bears."""
    for severity in (1, 5):
        assert area_under_degradation([0, severity], [0.9, 0.6]) == 0.6
        assert skill_under_degradation([0, severity], [0.9, 0.6]) == pytest.approx(0.25)


def test_areas_and_errors_have_intervals_from_shared_resamples():
    counts, severities = patient_counts(DATA["patient"], 400, 0), range(6)
    values, samples, without = {}, {}, {}
    for model in "AB":
        values[model] = macro(curve(model, auroc), FINDINGS)
        resampled = curve(model, lambda s, y: resampled_auroc(s, y, counts))
        samples[model] = np.moveaxis(macro(resampled, FINDINGS), 0, -1)
        left = curve(model, lambda s, y: left_out_auroc(s, y, DATA["patient"]))
        without[model] = np.moveaxis(macro(left, FINDINGS), 0, -1)
    parts = values, samples, without
    for of_two in (
        lambda a, b: area_under_degradation(severities, a) - area_under_degradation(severities, b),
        lambda a, b: skill_under_degradation(severities, a) - skill_under_degradation(severities, b),
        lambda a, b: corruption_error(a[..., 1:], b[..., 1:]) - 1,
    ):
        value, of_resamples, left = (of_two(part["A"], part["B"]) for part in parts)
        found, bca = paired_difference(value, of_resamples), bca_interval(value, of_resamples, left)
        assert found.low < value < found.high and bca.low < value < bca.high
        assert found.low * found.high > 0 and found.p < 0.05
    low, high = simultaneous_band(values["A"], samples["A"])
    one_by_one = percentile_interval(samples["A"])
    assert (high - low >= one_by_one.high - one_by_one.low).all()


def test_aurocs_of_groups_meet_the_stored_numbers():
    attributes = {"sex": DATA["sex"], "view": DATA["view"], "age_band": age_bands(DATA["age"].astype(float))}
    found = groups({name: values.astype(object) for name, values in attributes.items()})
    stored = EXPECTED["subgroups"]["groups"]
    assert found.keys() == stored.keys()
    labels, scores = labels_of("ignore"), DATA["scores_A"]
    for name, rows in found.items():
        assert len(rows) == stored[name]["n"]
        np.testing.assert_allclose(auroc(scores[rows], labels[rows]), numbers(stored[name]["auroc_A"]), atol=1e-9)


@pytest.mark.parametrize(("positives", "negatives"), [(FEWEST, FEWEST), (FEWEST - 1, 50), (50, FEWEST - 1), (0, 0)])
def test_small_groups_are_suppressed(positives, negatives):
    labels = np.concatenate([np.ones((positives, 1)), np.zeros((negatives, 1)), np.full((40, 1), np.nan)])
    assert large_enough(labels) == (min(positives, negatives) >= FEWEST)


@given(st.floats(0, 120))
def test_every_age_has_its_band(age):
    (band,) = age_bands(np.array([age]))
    youngest = AGE_BANDS[band]
    assert youngest <= age and not any(youngest < other <= age for other in AGE_BANDS.values())


def test_unknown_ages_and_values_are_in_no_group():
    assert age_bands(np.array([np.nan, -1.0])).tolist() == [None, None]
    assert groups({"sex": np.array([None, np.nan, ""], dtype=object)}) == {}
    assert groups({"sex": np.array([], dtype=object)}) == {}
