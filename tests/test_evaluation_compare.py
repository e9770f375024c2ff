"""Comparisons of folders whose truth is known, and mixtures that are refused."""

import shutil

import numpy as np
import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.core.files import new_folder
from chexmsn.evaluation.compare import COMPARISON, MODELS, CompareConfig, compare
from chexmsn.evaluation.comparison_text import in_text
from chexmsn.metrics.bootstrap import patient_counts, resampled_auroc
from chexmsn.metrics.covariance import clustered_covariance, z_test
from chexmsn.metrics.degradation import relative_drop
from chexmsn.metrics.multiple import benjamini_hochberg, holm
from chexmsn.metrics.ranking import auroc
from chexmsn.report.comparison import read_comparison
from scored_folders import CLEAN_ONLY, CONDITIONS, FINDINGS, labels_of, record_of, write_scored

RESAMPLES = 300


def compared(out, *runs, **options) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = compare(CompareConfig(runs=runs, out=out, **({"resamples": RESAMPLES} | options)))
    return pd.read_parquet(folder / "models.parquet"), pd.read_parquet(folder / "comparison.parquet")


def only(table: pd.DataFrame, **where) -> pd.DataFrame:
    return table[np.logical_and.reduce([table[column] == value for column, value in where.items()])]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two models on the same images, the first better; a copy of the first under another name."""
    home, labels = tmp_path_factory.mktemp("compare"), labels_of()
    write_scored(home / "runs" / "good", "good", labels, noise=0.8, harm=0.2)
    write_scored(home / "runs" / "bad", "bad", labels, noise=1.6, harm=1.0, seed=1)
    write_scored(home / "twin", "twin", labels, noise=0.8, harm=0.2)
    return home


@pytest.fixture(scope="module")
def tables(home) -> tuple[pd.DataFrame, pd.DataFrame]:
    return compared(home / "out", home / "runs" / "good", home / "runs" / "bad")


def arrays(folder, corruption="clean", severity=0.0) -> tuple[np.ndarray, pd.DataFrame]:
    labels, scores = (pd.read_parquet(folder / f"{name}.parquet") for name in ("labels", "scores"))
    cell = only(scores, corruption=corruption, severity=severity).set_index("image_key").loc[labels["image_key"]]
    return cell[[f"score:{finding}" for finding in FINDINGS]].to_numpy(np.float64), labels


def test_tables_are_as_documented(home, tables):
    models, table = tables
    assert (tuple(models.columns), tuple(table.columns)) == (MODELS, COMPARISON)
    assert set(table["metric"]) == {
        "auroc",
        "average_precision",
        "absolute_drop",
        "relative_drop",
        "above_chance_drop",
        "area",
    }
    assert set(table.loc[table["metric"] == "area", "corruption"]) == {
        *("gaussian-blur", "patches-black"),
        *("imagenet-c", "missing"),
    }
    pd.testing.assert_frame_equal(
        table,
        pd.read_csv(home / "out" / "comparison.csv", keep_default_na=False, na_values=[""]).assign(group="", note=""),
        check_dtype=False,
    )
    record = record_of(home / "out")
    assert (record["kind"], record["status"], record["primary"]) == ("comparison", "finished", "area")
    assert record["families"] == table.groupby("family", sort=False)["p"].count().to_dict()


def test_a_model_and_its_copy_do_not_differ(home, tmp_path):
    _, table = compared(tmp_path / "out", home / "runs" / "good", home / "twin")
    known = table[table["difference"].notna()]
    assert (known[["difference", "low", "high"]].fillna(0) == 0).all(axis=None)
    assert (known["p"].dropna() == 1).all() and (known["p_holm"].dropna() == 1).all()
    assert known["delong_p"].isna().all()  # no variance, no test


def test_a_better_model_is_found(tables):
    _, table = tables
    primary = table[table["primary"]]
    assert primary["corruption"].tolist() == ["imagenet-c", "missing"]
    assert (primary[["difference", "low"]] > 0).all(axis=None) and (primary["p_holm"] < 0.01).all()
    assert (only(table, metric="relative_drop", corruption="gaussian-blur", finding="macro")["difference"] < 0).all()


def test_differences_are_those_of_shared_resamples(home, tables):
    _, table = tables
    (good, labels), (bad, _) = (arrays(home / "runs" / name) for name in ("good", "bad"))
    (worse_good, _), (worse_bad, _) = (arrays(home / "runs" / name, "gaussian-blur", 3.0) for name in ("good", "bad"))
    truth = labels[[f"label:{finding}" for finding in FINDINGS]].to_numpy()
    counts = patient_counts(labels["patient_id"].to_numpy(), RESAMPLES, 0)

    def macro(scores):
        return auroc(scores, truth).mean(), resampled_auroc(scores, truth, counts).mean(axis=1)

    for metric, at, make in (
        ("auroc", 0.0, lambda clean, worse: clean),
        ("relative_drop", 3.0, relative_drop),
    ):
        a = [make(*pair) for pair in zip(macro(good), macro(worse_good), strict=True)]
        b = [make(*pair) for pair in zip(macro(bad), macro(worse_bad), strict=True)]
        (row,) = only(table, metric=metric, severity=at, finding="macro").to_dict("records")
        want = [a[0], b[0], a[0] - b[0], *np.quantile(a[1] - b[1], [0.025, 0.975])]
        np.testing.assert_allclose(
            [row[n] for n in ("value_a", "value_b", "difference", "low", "high")], want, atol=1e-12
        )


def test_holm_is_within_each_stated_family(tables):
    _, table = tables
    assert {"primary", "auroc, macro", "auroc, findings", "relative_drop, macro"} <= set(table["family"])
    for _, family in table.groupby("family"):
        np.testing.assert_array_equal(family["p_holm"], holm(family["p"].to_numpy()))
        np.testing.assert_array_equal(family["q"], benjamini_hochberg(family["p"].to_numpy()))


def test_delongs_test_where_it_applies(tmp_path):
    labels = labels_of(patients=240)  # one image each: as DeLong has it
    folders = [
        write_scored(tmp_path / name, name, labels, seed=seed, conditions=CLEAN_ONLY) for seed, name in enumerate("ab")
    ]
    _, table = compared(tmp_path / "out", *folders)
    scores = np.stack([arrays(folder)[0] for folder in folders])
    want = z_test(clustered_covariance(scores, labels[[f"label:{f}" for f in FINDINGS]].to_numpy(), np.arange(240))).p
    rows = only(table, metric="auroc")
    assert np.isnan(rows["delong_p"].iloc[0]) and rows["finding"].iloc[0] == "macro"
    np.testing.assert_allclose(rows["delong_p"].iloc[1:], want, rtol=1e-9)


def test_seeds_are_pooled(home, tmp_path):
    labels = labels_of()
    for seed in range(3):
        write_scored(tmp_path / "a" / str(seed), "a", labels, seed=seed, conditions=CLEAN_ONLY)
    write_scored(tmp_path / "b", "b", labels, seed=9, conditions=CLEAN_ONLY)
    models, table = compared(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    each = [
        auroc(arrays(tmp_path / "a" / str(seed))[0], labels.filter(like="label:").to_numpy()).mean()
        for seed in range(3)
    ]
    (row,) = only(models, model="a", metric="auroc", finding="macro").to_dict("records")
    assert row["runs"] == 3
    np.testing.assert_allclose([row["value"], row["spread"]], [np.mean(each), np.std(each, ddof=1)])
    assert only(models, model="b")["spread"].isna().all() and table["delong_p"].isna().all()


def test_folds_are_pooled_over_all_their_patients(tmp_path):
    folds = [labels_of(120, seed=fold, prefix=f"fold {fold} ") for fold in range(3)]
    for fold, labels in enumerate(folds):
        write_scored(tmp_path / "a" / str(fold), "a", labels, seed=fold, conditions=CLEAN_ONLY)
        write_scored(tmp_path / "b" / str(fold), "b", labels, seed=9 + fold, conditions=CLEAN_ONLY)
    models, _ = compared(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    patients = np.concatenate([labels["patient_id"] for labels in folds])
    counts = np.split(patient_counts(patients, RESAMPLES, 0), 3, axis=1)
    values, samples = [], []
    for fold, (labels, own) in enumerate(zip(folds, counts, strict=True)):
        scores, truth = arrays(tmp_path / "a" / str(fold))[0], labels.filter(like="label:").to_numpy()
        values.append(auroc(scores, truth).mean())
        samples.append(resampled_auroc(scores, truth, own).mean(axis=1))
    (row,) = only(models, model="a", metric="auroc", finding="macro").to_dict("records")
    want = [np.mean(values), *np.quantile(np.mean(samples, axis=0), [0.025, 0.975])]
    np.testing.assert_allclose([row["value"], row["low"], row["high"]], want)
    assert [s["images"] for s in record_of(tmp_path / "out")["test_sets"]] == [120, 120, 120]


def test_folds_are_pooled_by_the_names_of_findings_not_by_their_order(tmp_path):
    folds = [labels_of(120, seed=fold, prefix=f"fold {fold} ") for fold in range(2)]
    for name, seed in (("a", 0), ("b", 9)):
        for fold, labels in enumerate(folds):
            folder = write_scored(tmp_path / "straight" / f"{name}{fold}", name, labels, seed=seed + fold)
            swapped = shutil.copytree(folder, tmp_path / "swapped" / f"{name}{fold}")
            columns = [*labels.columns[:-2], *labels.columns[:-3:-1]] if fold == 1 else list(labels.columns)
            labels[columns].to_parquet(swapped / "labels.parquet", index=False)
    straight, swapped = (compared(tmp_path / f"out {way}", tmp_path / way) for way in ("straight", "swapped"))
    for ours, theirs in zip(straight, swapped, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


def test_models_are_compared_within_their_group(tmp_path):
    for seed, name in enumerate(("msn, probe", "mae, probe", "msn, fine-tuned", "mae, fine-tuned")):
        write_scored(tmp_path / "runs" / name, name, labels_of(), seed=seed, conditions=CLEAN_ONLY)
    models, table = compared(tmp_path / "out", tmp_path / "runs", within=", ")
    assert set(zip(table["a"], table["b"], strict=True)) == {
        ("mae, probe", "msn, probe"),
        ("mae, fine-tuned", "msn, fine-tuned"),
    }
    assert set(table["family"][table["primary"]]) == {"probe: primary", "fine-tuned: primary"}
    text = in_text(models, table)
    assert text.count("macro auroc, clean") == 2 and "mae, probe - msn, probe" in text
    with pytest.raises(UserError, match="nothing after ' - '"):
        compared(tmp_path / "refused", tmp_path / "runs", within=" - ")


def test_a_reference_is_what_all_are_compared_with(home, tmp_path):
    _, table = compared(tmp_path / "out", home / "runs", home / "twin", reference="good", conditions=("clean",))
    assert set(zip(table["a"], table["b"], strict=True)) == {("bad", "good"), ("twin", "good")}
    with pytest.raises(UserError, match=r"no model is called 'best'.*bad, good"):
        compared(tmp_path / "refused", home / "runs", reference="best")


def test_a_primary_comparison_may_be_named(home, tmp_path):
    options = {"primary": "relative_drop@gaussian-blur:3"}
    _, table = compared(tmp_path / "out", home / "runs", **options)
    (row,) = table[table["primary"]].to_dict("records")
    assert (row["metric"], row["severity"], row["p_holm"]) == ("relative_drop", 3.0, row["p"])
    with pytest.raises(UserError, match=r"nothing to compare behind.*'area@tokens-removed'"):
        compared(tmp_path / "refused", home / "runs", primary="area@tokens-removed")
    with pytest.raises(UserError, match="take one of auroc, average_precision"):
        compared(tmp_path / "refused", home / "runs", primary="accuracy")
    assert not (tmp_path / "refused").exists()


def test_a_condition_that_does_not_apply_has_rows_without_values(home, tmp_path):
    write_scored(tmp_path / "cnn", "cnn", labels_of(), seed=3, absent=["patches-black"])
    _, table = compared(tmp_path / "out", home / "runs" / "good", tmp_path / "cnn")
    rows = only(table, corruption="patches-black")
    assert rows["value_a"].notna().all() and rows[["value_b", "difference", "low", "p", "p_holm"]].isna().all(axis=None)
    assert (rows["note"] == "does not apply to cnn").all()
    assert only(table, corruption="imagenet-c")["p"].notna().all()


MIXED = (*CONDITIONS, ("patches-black", 0.9), ("tokens-removed", 0.5), ("tokens-removed", 0.9))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two transformers, one of which has too few patches for a share of 90 %, and a CNN, with the CNN's own fills."""
    home = tmp_path_factory.mktemp("mixed")
    for seed, (name, absent) in enumerate({"vit": (), "tiny": (), "cnn": ["tokens-removed"]}.items()):
        folder = write_scored(home / name, name, labels_of(), seed=seed, conditions=MIXED, absent=absent)
        if name == "tiny":
            scores = pd.read_parquet(folder / "scores.parquet")
            most = (scores["corruption"] == "tokens-removed") & (scores["severity"] > 0.8)
            scores[~most].to_parquet(folder / "scores.parquet", index=False)
    return home


def test_areas_are_over_what_applies_to_all_models(mixed, tmp_path):
    models, table = compared(tmp_path / "out", mixed)
    height = only(models, finding="macro", metric="area").set_index(["model", "corruption"])["value"]
    auroc_of = only(models, finding="macro", metric="auroc").set_index(["model", "corruption", "severity"])["value"]
    for name in ("vit", "tiny", "cnn"):
        assert height[name, "missing"] == height[name, "patches-black"]  # tokens cannot be taken from the CNN
    assert height["vit", "tokens-removed"] == auroc_of["vit", "tokens-removed", 0.5]  # the other has no 0.9
    assert np.isnan(height["cnn", "tokens-removed"])
    primary = table[table["primary"]]
    assert primary["difference"].notna().all() and len(primary) == 2 * 3
    tokens = only(table, metric="area", corruption="tokens-removed", finding="macro").set_index(["a", "b"])
    assert tokens["difference"].notna().to_dict() == {
        ("cnn", "tiny"): False,
        ("cnn", "vit"): False,
        ("tiny", "vit"): True,
    }
    assert tokens["note"]["cnn", "vit"] == "does not apply to cnn" and tokens["note"]["tiny", "vit"] == ""
    record = record_of(tmp_path / "out")
    assert record["areas_over"][""] == {"missing": ["patches-black"], "imagenet-c": ["gaussian-blur"]}
    told = " ".join(record["notes"])
    assert "The area over missing is over patches-black alone: tokens-removed does not apply to cnn." in told
    assert "The area under tokens-removed is without severity 0.9, which does not apply to tiny." in told


def test_too_few_patients_have_differences_without_interval_and_p(tmp_path):
    labels = labels_of(64, patients=8)
    for seed, name in enumerate("ab"):
        write_scored(tmp_path / "runs" / name, name, labels, seed=seed, harm=0.1)
    models, table = compared(tmp_path / "out", tmp_path / "runs")
    assert models.loc[models["value"].notna(), "note"].eq("no interval: fewer than 10 patients").all()
    assert table["difference"].notna().any()
    assert table[["low", "high", "p", "p_holm", "q"]].isna().all(axis=None)
    assert "no interval: fewer than 10 patients" in in_text(models, table)


def test_a_model_at_chance_has_no_drop_above_chance(tmp_path):
    labels = labels_of()
    write_scored(tmp_path / "runs" / "skilled", "skilled", labels, noise=0.5)
    write_scored(tmp_path / "runs" / "guesser", "guesser", labels, noise=50.0)
    models, table = compared(tmp_path / "out", tmp_path / "runs")
    drops = only(models, metric="above_chance_drop", finding="macro").set_index("model")
    assert drops["value"].isna()["guesser"].all() and drops["value"].notna()["skilled"].all()
    told = "no drop above chance: the clean value is not surely above chance (guesser)"
    assert (drops["note"]["guesser"] == told).all() and (drops["note"]["skilled"] == "").all()
    pairs = only(table, metric="above_chance_drop", finding="macro")
    assert pairs[["difference", "low", "p"]].isna().all(axis=None) and (pairs["note"] == told).all()
    assert only(table, metric="absolute_drop", finding="macro")["p"].notna().all()


def test_patches_of_other_sizes_are_told_where_regions_go_missing(tmp_path):
    for name, told in (("fine", (224, 16)), ("same", (448, 32)), ("coarse", (224, 32)), ("scores", None)):
        about = {"size": told[0], "patch": told[1]} if told else {}
        write_scored(tmp_path / name, name, labels_of(60), seed=len(name), model={"name": name} | about)

    def notes(out, *names, **how):
        compared(tmp_path / out, *(tmp_path / name for name in names), **how)
        return [note for note in record_of(tmp_path / out)["notes"] if "regions that go missing" in note]

    (note,) = notes("a", "fine", "coarse", "scores")
    assert note.endswith(
        "patch sizes are compared, too: fine cuts an image into 14 x 14; coarse cuts an image into 7 x 7."
    )
    assert notes("b", "fine", "same", "scores") == []
    assert notes("c", "fine", "coarse", conditions=("gaussian-blur",)) == []


def test_where_the_reference_loses_nothing_there_is_no_relative_error_and_the_note_says_why(tmp_path):
    write_scored(tmp_path / "runs" / "steady", "steady", labels_of(), noise=2.0, harm=-0.2)
    write_scored(tmp_path / "runs" / "other", "other", labels_of(), seed=1)
    models, _ = compared(tmp_path / "out", tmp_path / "runs", reference="steady")
    rows = only(models, metric="relative_corruption_error", corruption="gaussian-blur", finding="macro")
    assert rows["value"].isna().all()
    assert (rows["note"] == "the reference steady loses nothing there, or it does not apply to all models").all()
    errors = only(models, metric="corruption_error", finding="macro")
    assert (errors["note"] == "").all() and errors["low"].notna().all()


def test_a_comparison_of_areas_of_an_earlier_version_is_not_reported(home, tmp_path):
    models, _ = compared(tmp_path / "out", home / "runs")
    single = (models["metric"] == "area") & (models["corruption"] == "patches-black")
    read_comparison(tmp_path / "out")
    models["value"] = models["value"].mask(single, models["value"] + 0.01)
    models.to_parquet(tmp_path / "out" / "models.parquet", index=False)
    with pytest.raises(UserError, match=r"of an earlier version .*out: remove it and compare again"):
        read_comparison(tmp_path / "out")


def test_where_no_corruption_is_shared_there_is_no_area(mixed, tmp_path):
    compared(tmp_path / "out", mixed, conditions=("tokens-removed",))
    record = record_of(tmp_path / "out")
    assert record["primary"] == "auroc@clean"
    assert any("The area over missing does not exist: tokens-removed does not" in note for note in record["notes"])


def test_each_group_has_a_ground_of_its_own(tmp_path):
    for seed, name in enumerate(("a, vit", "b, vit", "a, cnn", "b, cnn")):
        absent = ["tokens-removed"] if name.endswith("cnn") else []
        write_scored(tmp_path / "runs" / name, name, labels_of(), seed=seed, conditions=MIXED, absent=absent)
    compared(tmp_path / "out", tmp_path / "runs", within=", ")
    over = record_of(tmp_path / "out")["areas_over"]
    assert over["cnn"]["missing"] == ["patches-black"]
    assert over["vit"]["missing"] == ["patches-black", "tokens-removed"]


def test_errors_are_multiples_of_the_references(home, tmp_path):
    models, table = compared(tmp_path / "out", home / "runs", home / "twin", reference="good")
    assert not {"corruption_error", "relative_corruption_error"} & set(table["metric"])
    auroc_of = (
        only(models, finding="macro", metric="auroc")
        .set_index(["model", "corruption", "severity"])["value"]
        .sort_index()
    )
    error = only(models, finding="macro", metric="corruption_error").set_index(["model", "corruption"]).sort_index()
    below = {m: sum(1 - auroc_of[m, "gaussian-blur", s] for s in (1.0, 3.0)) for m in ("good", "bad")}
    assert error.loc[("bad", "gaussian-blur"), "value"] == pytest.approx(below["bad"] / below["good"])
    assert error.loc[("bad", "imagenet-c"), "low"] > 1
    assert (error.loc[["good", "twin"], ["value", "low", "high"]] == 1).all(axis=None)  # the same scores
    relative = (
        only(models, finding="macro", metric="relative_corruption_error")
        .set_index(["model", "corruption"])
        .sort_index()
    )
    drops = {m: 2 * auroc_of[m, "clean", 0.0] - sum(auroc_of[m, "gaussian-blur"]) for m in ("good", "bad")}
    assert relative.loc[("bad", "gaussian-blur"), "value"] == pytest.approx(drops["bad"] / drops["good"])
    assert any("as a multiple of that of good" in note for note in record_of(tmp_path / "out")["notes"])


def test_without_a_reference_there_are_no_multiples(tables):
    assert not {"corruption_error", "relative_corruption_error"} & set(tables[0]["metric"])


def test_a_comparison_that_fails_leaves_nothing(home, tmp_path):
    torn = shutil.copytree(home / "runs" / "bad", tmp_path / "torn")
    pd.read_parquet(torn / "scores.parquet").iloc[1:].to_parquet(torn / "scores.parquet", index=False)
    with pytest.raises(UserError, match="not one per labelled image"):
        compared(tmp_path / "out", home / "runs" / "good", torn)
    assert [path.name for path in tmp_path.iterdir()] == ["torn"]


def test_a_place_that_holds_something_is_refused_before_any_work(home, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    with pytest.raises(UserError, match="is there already and not empty"):
        compared(tmp_path / "out", home / "runs")
    begun = shutil.copytree(compare(CompareConfig(runs=(home / "runs",), out=tmp_path / "whole")), tmp_path / "begun")
    (begun / "run.json").write_text((begun / "run.json").read_text().replace('"finished"', '"new"'))
    with pytest.raises(UserError, match="left unfinished: remove it"):
        compare(CompareConfig(runs=(home / "runs",), out=begun))


def test_two_comparisons_into_one_new_folder_do_not_share_it(home, tmp_path):
    with new_folder(tmp_path / "out") as place:
        (place / "models.parquet").write_text("of the first")
        with pytest.raises(UserError, match=r"another process is making .*out: wait for it, or name another place"):
            compared(tmp_path / "out", home / "runs")
        assert (place / "models.parquet").read_text() == "of the first"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["models.parquet"]
    (tmp_path / ".killed.partial").mkdir()
    (tmp_path / ".killed.partial" / "half").write_text("a kill leaves this")
    compared(tmp_path / "killed", home / "runs", conditions=("clean",))
    assert not (tmp_path / "killed" / "half").exists() and not (tmp_path / ".killed.partial").exists()


def test_the_same_comparison_is_not_made_twice(home, tmp_path, caplog):
    caplog.set_level("INFO")
    compared(tmp_path / "out", home / "runs")
    compared(tmp_path / "out", home / "runs")
    assert "is finished: nothing to do" in caplog.text
    with pytest.raises(UserError, match="seed: 0 before, 1 now"):
        compared(tmp_path / "out", home / "runs", seed=1)


def test_too_few_resamples_for_so_many_comparisons_are_told(home, tmp_path):
    compared(tmp_path / "out", home / "runs", resamples=20)
    assert any("No p value is below 1 / 21" in note for note in record_of(tmp_path / "out")["notes"])


def other(labels: pd.DataFrame, **changed) -> pd.DataFrame:
    return labels.assign(**changed)


LABELS = labels_of()
MIXTURES = {
    "fewer images": (LABELS.iloc[:200], {}, "share 200 of their 200 and 240 test images"),
    "other images": (labels_of(prefix="x"), {}, "was not tested on the 240 images"),
    "other labels": (
        other(LABELS, **{"label:Mass": 1 - LABELS["label:Mass"]}),
        {},
        r"other labels.*Mass in 240 of 240",
    ),
    "other patients": (other(LABELS, patient_id="p0"), {}, "other patients"),
    "other findings": (LABELS.rename(columns={"label:Mass": "label:Hernia"}), {}, "tells Hernia, Mass: .*--findings"),
    "other conditions": (LABELS, {"conditions": CONDITIONS[:3]}, "tested under patches-black:0.5: .*--conditions"),
    "unfinished": (LABELS, {"status": "running"}, "is not finished"),
    "another kind": (LABELS, {"kind": "pretraining"}, "holds no scores"),
    "another schema": (LABELS, {"schema_version": 2}, "schema 2"),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_mixtures_are_refused_naming_what_differs(home, tmp_path, mixture):
    labels, options, told = MIXTURES[mixture]
    strange = write_scored(tmp_path / "strange", "strange", labels.reset_index(drop=True), **options)
    with pytest.raises(UserError, match=told):
        compared(tmp_path / "out", home / "runs" / "good", strange)
    assert not (tmp_path / "out").exists()


def test_what_is_shared_can_be_compared(home, tmp_path):
    few = write_scored(tmp_path / "few", "few", labels_of().drop(columns="label:Mass"), conditions=CONDITIONS[:3])
    _, table = compared(
        tmp_path / "out",
        home / "runs" / "good",
        few,
        findings=("Edema",),
        conditions=("gaussian-blur:1", "gaussian-blur:3"),
    )
    assert set(table["finding"]) == {"macro", "Edema"} and "patches-black" not in set(table["corruption"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"findings": ("Edem",)}, "no run tells Edem: choose the findings from Edema, Mass"),
        (
            {"conditions": ("gaussian-blur:5",)},
            "no run was tested under gaussian-blur:5: choose .* from clean, gaussian-",
        ),
        ({"conditions": ("gaussian-blur", "jpeg")}, "no run was tested under jpeg"),
        ({"conditions": ("gaussian-blurr",)}, "did you mean gaussian-blur"),
    ],
)
def test_names_that_no_run_has_are_refused(home, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        compared(tmp_path / "out", home / "runs", **options)
    assert not (tmp_path / "out").exists()


def test_conditions_of_another_name_than_ours_can_be_chosen(tmp_path):
    for seed, name in enumerate("ab"):
        own = (*CONDITIONS, ("fog", 1.0), ("fog", 2.0))
        write_scored(tmp_path / "runs" / name, name, labels_of(), seed=seed, conditions=own)
    for named, severities in (("fog", {1.0, 2.0}), ("fog:2", {2.0})):
        _, table = compared(tmp_path / named, tmp_path / "runs", conditions=(named,))
        assert set(table["corruption"]) >= {"clean", "fog"} and "gaussian-blur" not in set(table["corruption"])
        assert set(only(table, corruption="fog", metric="auroc")["severity"]) == severities


def test_one_model_or_one_run_twice_is_refused(home, tmp_path):
    with pytest.raises(UserError, match="needs two models"):
        compared(tmp_path / "out", home / "runs" / "good")
    copy = write_scored(tmp_path / "copy", "good", labels_of(), noise=0.8, harm=0.2)
    with pytest.raises(UserError, match="the same scores of good"):
        compared(tmp_path / "out", home / "runs", copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no result folder in"):
        compared(tmp_path / "out", tmp_path / "empty")


@pytest.mark.campaign
def test_paired_intervals_hold_and_p_values_are_uniform(tmp_path):
    """Two models of the same skill on 300 test sets of 120 patients: 95 % of the intervals hold 0."""
    holds, p = [], []
    for seed in range(300):
        labels = labels_of(240, seed=seed)
        runs = [
            write_scored(tmp_path / f"{seed}{name}", name, labels, seed=10_000 * (k + 1) + seed, conditions=CLEAN_ONLY)
            for k, name in enumerate("ab")
        ]
        _, table = compared(tmp_path / f"out{seed}", *runs)
        (row,) = table[table["primary"]].to_dict("records")
        holds.append(row["low"] <= 0 <= row["high"])
        p.append(row["p"])
    assert (
        0.915 < np.mean(holds) < 0.985
    )  # 4 standard errors of 300 about a nominal 95 %, and a little for the bootstrap
    assert 0.4 < np.mean(p) < 0.6
