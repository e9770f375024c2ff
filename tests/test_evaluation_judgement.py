"""The further tables of results, from scores and labels alone, and judging folders anew."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.metrics import brier_score_loss, roc_auc_score

from chexmsn.core.errors import UserError
from chexmsn.evaluation.cohort import Cohort, Resampling
from chexmsn.evaluation.judge import JudgeConfig, judge
from chexmsn.metrics.bootstrap import enough_patients, patient_counts, resampled_auroc
from chexmsn.metrics.ranking import auroc
from scored_folders import CONDITIONS, FINDINGS, labels_of, record_of, write_scored

THRESHOLDS = {"Edema": 0.5}
TRUTH = [f"label:{finding}" for finding in FINDINGS]


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
    assert {"mce", "ece-equal-count", "slope", "intercept", "in-the-large"} < set(rows.index.get_level_values(0))


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


def test_differences_of_groups_are_those_of_shared_resamples(folder):
    """Women less men, whichever are fewer: a patient who is drawn twice is so in both."""
    labels, scores = (pd.read_parquet(folder / f"{name}.parquet") for name in ("labels", "scores"))
    counts = patient_counts(labels["patient_id"].to_numpy(), 100, 0)
    rows = table(folder, "group_differences", corruption="gaussian-blur", severity=3.0).set_index(["level", "finding"])
    assert set(rows["against"][rows["group"] == "sex"]) == {"F"}  # as many as men, and named first

    def drop(sex):
        own = labels["sex"] == sex
        parts = []
        for where in (scores["corruption"] == "clean", (scores["severity"] == 3.0)):
            cell = scores[where].set_index("image_key").loc[labels["image_key"][own]]
            told = cell[["score:Edema", "score:Mass"]].to_numpy(float), labels.loc[own, TRUTH].to_numpy()
            parts.append((auroc(*told), resampled_auroc(*told, counts[:, own])))
        return [clean - worse for clean, worse in zip(*parts, strict=True)]

    men, women = drop("M"), drop("F")
    gap = [m - w for m, w in zip(men, women, strict=True)]
    row = rows.loc[("M", "Mass")]
    want = [gap[0][1], *np.nanquantile(gap[1][:, 1], [0.025, 0.975])]
    np.testing.assert_allclose(row[["absolute_drop", "absolute_drop_low", "absolute_drop_high"]].astype(float), want)
    assert rows.loc[("M", "macro"), "absolute_drop"] == pytest.approx(gap[0].mean())
    assert (rows["status"][rows["group"] == "sex"] == "ok").all()


def test_bca_intervals_are_scipys(tmp_path):
    """Of a finding and of the macro, from pairs counted one by one and scipy's own leave-one-patient-out values."""
    labels = labels_of(120, patients=50)
    folder = write_scored(tmp_path / "run", "m", labels, noise=0.6, conditions=CONDITIONS[:1])
    judge(JudgeConfig(runs=(folder,), resamples=100, interval="bca"))
    images, (names, patient_of) = clean(folder), np.unique(labels["patient_id"], return_inverse=True)
    own = [np.flatnonzero(patient_of == patient) for patient in range(len(names))]
    counts = patient_counts(labels["patient_id"].to_numpy(), 100, 0)[:, [rows[0] for rows in own]]

    def macro_of(findings):
        def value(drawn):
            rows = images.iloc[np.concatenate([own[patient] for patient in drawn])]
            return np.mean([_pairs_won(rows[f"label:{f}"] == 1, rows[f"score:{f}"]) for f in findings])

        return value

    for finding, findings in (("Edema", ["Edema"]), ("macro", FINDINGS)):
        value, everyone = macro_of(findings), np.arange(len(names))
        drawn = SimpleNamespace(bootstrap_distribution=np.array([value(np.repeat(everyone, n)) for n in counts]))
        how = {"vectorized": False, "method": "BCa", "n_resamples": 0, "bootstrap_result": drawn}
        wanted = scipy.stats.bootstrap((everyone,), value, **how).confidence_interval
        row = table(folder, "results", finding=finding, metric="auroc")
        np.testing.assert_allclose(row[["low", "high"]].to_numpy(float)[0], wanted, rtol=1e-12)


def _pairs_won(ill: pd.Series, scores: pd.Series) -> float:
    above = scores[ill].to_numpy()[:, None] - scores[~ill].to_numpy()
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def test_groups_of_a_model_that_is_blind_to_them_do_not_differ(tmp_path):
    """The images of men are copies of those of women: all differences are 0 but for the resamples."""
    women = labels_of(160).assign(sex="F")
    men = women.assign(sex="M", image_key="m" + women["image_key"], patient_id="m" + women["patient_id"])
    folder = write_scored(tmp_path / "run", "m", women)
    scores = pd.read_parquet(folder / "scores.parquet")
    copies = scores.assign(image_key="m" + scores["image_key"], patient_id="m" + scores["patient_id"])
    pd.concat([scores, copies]).to_parquet(folder / "scores.parquet", index=False)
    pd.concat([women, men]).to_parquet(folder / "labels.parquet", index=False)
    for interval in ("percentile", "bca"):
        judge(JudgeConfig(runs=(folder,), resamples=300, interval=interval))
        rows = table(folder, "group_differences", group="sex")
        numbers = ["value", "absolute_drop", "relative_drop", "above_chance_drop"]
        np.testing.assert_allclose(rows[numbers].to_numpy(float), 0, atol=1e-12)
        degraded = rows[rows["corruption"] != "clean"]
        assert (degraded["absolute_drop_low"] < 0).all() and (degraded["absolute_drop_high"] > 0).all()


def test_differences_with_a_tiny_group_are_suppressed(tmp_path):
    few = labels_of()
    few["view"] = np.where(np.arange(len(few)) < 8, "AP", "PA")
    folder = write_scored(tmp_path / "run", "m", few)
    judge(JudgeConfig(runs=(folder,), resamples=20))
    rows = table(folder, "group_differences", group="view")
    assert set(zip(rows["level"], rows["against"], strict=True)) == {("AP", "PA")}
    assert rows[["value", "low", "absolute_drop", "above_chance_drop_high"]].isna().all(axis=None)
    assert set(rows["status"]) == {
        "too few findings with enough images in one group",
        "fewer than 10 positives or 10 negatives in one of the groups",
    }


def test_a_band_holds_a_whole_curve(folder):
    auroc_of = table(folder, "results", metric="auroc", corruption="gaussian-blur").set_index(["severity", "finding"])
    band = table(folder, "bands", corruption="gaussian-blur").set_index(["severity", "finding"])
    assert sorted(set(band.index.get_level_values("severity"))) == [0.0, 1.0, 3.0]
    for severity in (1.0, 3.0):
        for finding in ("macro", *FINDINGS):
            one, all_of_it = auroc_of.loc[(severity, finding)], band.loc[(severity, finding)]
            assert all_of_it["value"] == one["value"]
            assert all_of_it["low"] < one["value"] < all_of_it["high"] <= 1
            assert all_of_it["high"] - all_of_it["low"] > 0.95 * (one["high"] - one["low"])


def test_a_run_without_degraded_images_has_no_curve(tmp_path):
    folder = write_scored(tmp_path / "run", "m", labels_of(), conditions=CONDITIONS[:1])
    judge(JudgeConfig(runs=(folder,), resamples=20))
    assert table(folder, "bands").empty and table(folder, "areas").empty


def test_areas_are_mean_heights(folder):
    auroc = table(folder, "results", metric="auroc", finding="macro").set_index(["corruption", "severity"])["value"]
    start, one, three = auroc["clean"][0.0], auroc["gaussian-blur"][1.0], auroc["gaussian-blur"][3.0]
    want = ((start + one) / 2 + (one + three)) / 3
    rows = table(folder, "areas", metric="area", finding="macro").set_index(["over", "corruption"])["value"]
    assert rows["corruption", "gaussian-blur"] == rows["family", "imagenet-c"] == pytest.approx(want)
    assert rows["corruption", "patches-black"] == rows["family", "missing"] == auroc["patches-black"][0.5]
    counts = table(folder, "areas", metric="area", finding="macro").set_index(["over", "corruption"])["conditions"]
    assert counts["family", "imagenet-c"] == 2 and counts["corruption", "patches-black"] == 1


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
