"""The further tables of results, from scores and labels alone, and judging folders anew."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from chexmsn.core.errors import UserError
from chexmsn.evaluation.cohort import Cohort, Resampling
from chexmsn.evaluation.judge import JudgeConfig, judge
from chexmsn.metrics.bootstrap import enough_patients
from scored_folders import CONDITIONS, FINDINGS, labels_of, record_of, write_scored

THRESHOLDS = {"Edema": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_scored(tmp_path_factory.mktemp("judge") / "run", "m", labels_of(), thresholds=THRESHOLDS)
    judge(JudgeConfig(runs=(folder,)))
    return folder


def table(folder, name: str, **where) -> pd.DataFrame:
    found = pd.read_parquet(folder / f"{name}.parquet")
    return found[np.logical_and.reduce([found[column] == value for column, value in where.items()])] if where else found


def clean(folder) -> pd.DataFrame:
    labels, scores = (pd.read_parquet(folder / f"{name}.parquet") for name in ("labels", "scores"))
    return labels.merge(scores[scores["corruption"] == "clean"], on="image_key")


def test_brier_scores_are_scikit_learns(folder):
    images, rows = clean(folder), table(folder, "calibration", corruption="clean", metric="brier")
    want = [brier_score_loss(images[f"label:{f}"], images[f"score:{f}"]) for f in FINDINGS]
    np.testing.assert_allclose(rows["value"], [np.mean(want), *want], rtol=1e-6)
    assert (rows["low"] < rows["value"]).all() and (rows["value"] < rows["high"]).all()


def test_the_calibration_error_is_that_of_the_reliability_table(folder):
    bins = table(folder, "reliability", corruption="gaussian-blur", severity=3.0)
    gaps = (bins["weight"] * (bins["score"] - bins["positive"]).abs()).groupby(bins["finding"]).sum()
    rows = table(folder, "calibration", corruption="gaussian-blur", severity=3.0).set_index(["metric", "finding"])[
        "value"
    ]
    np.testing.assert_allclose(rows["ece"].drop("macro"), gaps[list(FINDINGS)])
    assert {"mce", "slope", "intercept", "in-the-large"} < set(rows.index.get_level_values(0))


def test_rates_at_the_threshold_are_counts(folder):
    images, rows = clean(folder), table(folder, "operating", corruption="clean").set_index(["metric", "finding"])
    called, ill = images["score:Edema"] >= 0.5, images["label:Edema"] == 1
    got = rows["value"].xs("Edema", level="finding")
    want = {
        "sensitivity": called[ill].mean(),
        "specificity": (~called[~ill]).mean(),
        "ppv": ill[called].mean(),
        "npv": (~ill[~called]).mean(),
    }
    assert got.to_dict() == pytest.approx(want)
    assert rows["value"].xs("Mass", level="finding").isna().all()  # it has no threshold
    np.testing.assert_array_equal(rows["value"].xs("macro", level="finding"), got)


def test_subgroups_are_judged_on_their_own_images(folder):
    images = clean(folder)
    rows = table(folder, "subgroups", corruption="clean", group="sex", finding="Mass").set_index("level")
    for sex in "FM":
        own = images[images["sex"] == sex]
        assert rows.loc[sex, "value"] == pytest.approx(roc_auc_score(own["label:Mass"], own["score:Mass"]))
        assert (rows.loc[sex, "images"], rows.loc[sex, "status"]) == (len(own), "ok")
    assert set(table(folder, "subgroups")["group"]) == {"sex", "age", "view"}


def test_small_subgroups_tell_nothing(tmp_path):
    few = labels_of()
    few["view"] = np.where(np.arange(len(few)) < 8, "AP", "PA")
    folder = write_scored(tmp_path / "run", "m", few)
    judge(JudgeConfig(runs=(folder,), resamples=20))
    rows = table(folder, "subgroups", group="view", corruption="clean").set_index(["level", "finding"])
    assert rows.loc["AP", ["value", "low", "absolute_drop"]].isna().all(axis=None)
    assert rows.loc[("AP", "Mass"), "status"] == "fewer than 10 positives or 10 negatives in this group"
    assert rows.loc["PA", "value"].notna().all()


def test_areas_are_mean_heights(folder):
    auroc = table(folder, "results", metric="auroc", finding="macro").set_index(["corruption", "severity"])["value"]
    start, one, three = auroc["clean"][0.0], auroc["gaussian-blur"][1.0], auroc["gaussian-blur"][3.0]
    want = ((start + one) / 2 + (one + three)) / 3
    rows = table(folder, "areas", metric="area", finding="macro").set_index(["over", "corruption"])["value"]
    assert rows["corruption", "gaussian-blur"] == rows["family", "imagenet-c"] == pytest.approx(want)
    assert rows["corruption", "patches-black"] == rows["family", "missing"]


def test_judging_again_changes_intervals_and_says_so(tmp_path):
    folder = write_scored(tmp_path / "run", "m", labels_of())
    tables = {}
    for interval in ("percentile", "bca", "percentile"):
        judge(JudgeConfig(runs=(tmp_path,), interval=interval, resamples=400))
        assert record_of(folder)["interval"] == interval and record_of(folder)["resamples"] == 400
        tables.setdefault(interval, []).append(table(folder, "results"))
    pd.testing.assert_frame_equal(*tables["percentile"])
    first, bca = tables["percentile"][0], tables["bca"][0]
    pd.testing.assert_series_equal(first["value"], bca["value"])
    ranked = first["corruption"] != "clean"
    assert not np.allclose(first.loc[ranked, "low"], bca.loc[ranked, "low"], atol=1e-6)
    np.testing.assert_allclose(first["low"], bca["low"], atol=0.03)


def test_scores_that_are_no_probabilities_have_no_calibration(tmp_path):
    folder = write_scored(tmp_path / "run", "m", labels_of())
    scores = pd.read_parquet(folder / "scores.parquet")
    scores.assign(**{"score:Mass": 10 * scores["score:Mass"]}).to_parquet(folder / "scores.parquet")
    judge(JudgeConfig(runs=(folder,), resamples=20))
    assert not (folder / "calibration.parquet").exists() and (folder / "areas.parquet").exists()


def test_findings_may_be_chosen(tmp_path):
    folder = write_scored(tmp_path / "run", "m", labels_of())
    judge(JudgeConfig(runs=(folder,), resamples=20, findings=("Mass",)))
    assert set(table(folder, "results")["finding"]) == {"macro", "Mass"} and record_of(folder)["findings"] == ["Mass"]
    with pytest.raises(UserError, match="has no Hernia: choose from Edema, Mass"):
        judge(JudgeConfig(runs=(folder,), findings=("Hernia",)))


def test_a_condition_that_does_not_apply_keeps_its_reason(tmp_path):
    folder = write_scored(tmp_path / "run", "m", labels_of(), absent=["patches-black"])
    earlier = pd.DataFrame({"corruption": ["patches-black"], "severity": [0.5], "status": ["a reason"]})
    earlier.to_parquet(folder / "results.parquet")
    for _ in range(2):
        judge(JudgeConfig(runs=(folder,), resamples=20))
        assert set(table(folder, "results", corruption="patches-black")["status"]) == {"a reason"}
    assert len(table(folder, "results").drop_duplicates(["corruption", "severity"])) == len(CONDITIONS)


def test_the_macro_is_over_findings_that_enough_patients_have():
    labels = labels_of()
    rare = labels.assign(**{"label:Mass": (labels["patient_id"].isin(["p1", "p2"])).astype(float)})
    cohort = Cohort.of(rare, Resampling(resamples=5))
    assert cohort.in_macro.tolist() == [True, False]
    assert cohort.left_out == {"Mass": "only 2 patients with it, too few for an interval"}
    assert cohort.without_value == {}  # it has a value of its own
    for seed in range(5):  # a matter of the labels, not of the draws
        assert Cohort.of(rare, Resampling(resamples=3, seed=seed)).in_macro.tolist() == [True, False]
    alone = Cohort.of(rare.drop(columns="label:Edema"), Resampling(resamples=5))
    assert alone.in_macro.tolist() == [True]  # better a macro without an interval than none


@pytest.mark.parametrize(("patients", "enough"), [(1, False), (2, False), (3, True), (237, True), (238, False)])
def test_three_patients_with_and_without_are_enough(patients, enough):
    labels = (np.arange(240) < patients).astype(float)[:, None]
    assert enough_patients(labels, np.arange(240)).item() is enough
