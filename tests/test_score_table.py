"""Scores made elsewhere are judged as those of a model are."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.labels import Policy
from chexmsn.evaluation.predict import PredictConfig, predict
from chexmsn.evaluation.runs import read_scored
from chexmsn.evaluation.score_table import ScoreTableConfig, judge_scores
from chexmsn.evaluation.stress import StressConfig, stress
from chexmsn.report.results import read_run
from evaluation_folders import write_model, write_pack

FEW = ("poisson-noise:3", "gaussian-blur")
NAMES = ["image", "patient_id", "Effusion", "Cardiomegaly", "Mass"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A pack, the folder of a stress test on it, and that test's scores as somebody else would write them."""
    home = tmp_path_factory.mktemp("scores")
    write_pack(home / "data")
    write_model(home / "model")
    pack = home / "data" / "pack"
    options = {"conditions": FEW, "repeats": 2, "resamples": 20, "device": "cpu"}
    stress(StressConfig(model=home / "model", data=pack, out=home / "stress", **options))
    scores = pd.read_parquet(home / "stress" / "scores.parquet")
    renamed = scores.rename(columns={"image_key": "image", "corruption": "condition"}).drop(columns="patient_id")
    renamed = renamed.rename(columns={"score:Pleural Effusion": "effusion", "score:Cardiomegaly": "Cardiomegaly"})
    renamed.sample(frac=1, random_state=0).to_csv(home / "scores.csv", index=False)
    source = pd.read_csv(home / "data" / "source" / "labels.csv")
    source[source["split"] == "test"][NAMES].to_csv(home / "labels.csv", index=False)
    return home


def asked(home: Path, **changes) -> ScoreTableConfig:
    options = {"scores": home / "scores.csv", "data": home / "data" / "pack", "resamples": 20}
    return ScoreTableConfig(**options | changes)


@pytest.mark.parametrize("data", ["data/pack", "labels.csv"])
def test_a_table_is_judged_as_the_model_that_made_it(data, home, tmp_path):
    judge_scores(asked(home, data=home / data, out=tmp_path / "run", name="model"))
    keys = ["corruption", "severity", "finding", "metric"]
    ours, theirs = (
        pd.read_parquet(folder / "results.parquet").set_index(keys).sort_index()
        for folder in (home / "stress", tmp_path / "run")
    )
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5)
    before, now = (json.loads((folder / "run.json").read_text()) for folder in (home / "stress", tmp_path / "run"))
    assert (now["kind"], now["status"], now["model"]["adapter"]) == ("stress", "finished", "scores")
    assert now["findings"] == before["findings"] and now["data"]["images"] == before["data"]["images"] == 10
    assert now["conditions"][0]["corruption"] == "clean" and len(now["conditions"]) == len(before["conditions"])


def test_the_folder_is_one_for_reports_and_comparisons(home, tmp_path):
    judge_scores(asked(home, out=tmp_path / "run"))
    assert read_run(tmp_path / "run").label == "scores"
    assert set(read_scored(tmp_path / "run").conditions) == set(read_scored(home / "stress").conditions)


def test_the_table_that_predict_writes_is_one_of_clean_images(home, tmp_path):
    predict(PredictConfig(model=home / "model", images=home / "data" / "source", out=tmp_path / "p.csv", device="cpu"))
    judge_scores(asked(home, scores=tmp_path / "p.csv", out=tmp_path / "run"))
    results = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert set(results["corruption"]) == {"clean"} and results["value"].notna().all()


def test_parquet_and_logits_and_columns_by_finding(home, tmp_path):
    table = pd.read_csv(home / "scores.csv")
    for finding in ("effusion", "Cardiomegaly"):
        p = table.pop(finding).clip(1e-6, 1 - 1e-6)
        table[f"p_{finding}"] = np.log(p / (1 - p))
    table.to_parquet(tmp_path / "logits.parquet")
    options = {"findings": {"Effusion": "p_effusion"}, "answers": "logits", "corruptions_seen": ("gaussian-blur",)}
    judge_scores(asked(home, scores=tmp_path / "logits.parquet", out=tmp_path / "run", **options))
    scores = pd.read_parquet(tmp_path / "run" / "scores.parquet").filter(like="score:")
    assert list(scores) == ["score:Pleural Effusion"] and scores.stack().between(0, 1).all()
    seen = pd.read_parquet(tmp_path / "run" / "results.parquet").set_index("corruption")["seen_in_training"]
    assert seen["gaussian-blur"].all() and not seen["poisson-noise"].any()


def test_labels_of_a_table_follow_the_policy_and_bring_what_is_known(home, tmp_path):
    labels = pd.read_csv(home / "labels.csv").assign(sex="F", age=50)
    labels["Effusion"] = labels["Effusion"].astype(float)
    labels.loc[0, "Effusion"], labels.loc[1, "Effusion"] = -1, np.nan
    labels.to_csv(tmp_path / "labels.csv", index=False)
    policy = Policy(uncertain="ones", blank="ignore")
    judge_scores(asked(home, data=tmp_path / "labels.csv", out=tmp_path / "run", labels=policy))
    written = pd.read_parquet(tmp_path / "run" / "labels.parquet")
    assert written["label:Pleural Effusion"].iloc[0] == 1 and np.isnan(written["label:Pleural Effusion"].iloc[1])
    assert set(written["sex"]) == {"F"} and set(written["age"]) == {50.0} and written["view"].isna().all()


def test_columns_that_are_called_as_no_label_are_no_scores(home, tmp_path):
    table = pd.read_csv(home / "scores.csv").assign(study=50_000_000, age=np.nan)
    table.to_csv(tmp_path / "scores.csv", index=False)
    judge_scores(asked(home, scores=tmp_path / "scores.csv", out=tmp_path / "run"))
    judge_scores(asked(home, out=tmp_path / "told"))
    more, told = (pd.read_parquet(tmp_path / name / "results.parquet") for name in ("run", "told"))
    pd.testing.assert_frame_equal(more, told)


def test_softmax_is_over_classes_that_are_named(home, tmp_path):
    pd.read_csv(home / "scores.csv").assign(normal=0.5).to_csv(tmp_path / "scores.csv", index=False)
    options = {"scores": tmp_path / "scores.csv", "out": tmp_path / "run", "answers": "softmax"}
    with pytest.raises(UserError, match=r"has normal that no label is called as: name the column of each class"):
        judge_scores(asked(home, **options))
    classes = {"Effusion": "effusion", "Cardiomegaly": "Cardiomegaly", "No Finding": "normal"}
    judge_scores(asked(home, **options, findings=classes))
    scores = pd.read_parquet(tmp_path / "run" / "scores.parquet").filter(like="score:")
    assert len(scores.columns) == 2 and (scores.sum(axis=1) < 0.99).all()


def test_a_third_is_a_severity(home, tmp_path):
    table = pd.read_csv(home / "scores.csv")
    noisy = table["condition"] == "poisson-noise"
    table.assign(severity=table["severity"].where(~noisy, 10 / 3)).to_csv(tmp_path / "scores.csv", index=False)
    judge_scores(asked(home, scores=tmp_path / "scores.csv", out=tmp_path / "run"))
    results = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert 3.333333 in results["severity"].to_numpy()


def test_a_blank_repeat_is_the_first(home, tmp_path):
    table = pd.read_csv(home / "scores.csv")
    table.assign(repeat=table["repeat"].replace(0, np.nan)).to_csv(tmp_path / "scores.csv", index=False)
    judge_scores(asked(home, scores=tmp_path / "scores.csv", out=tmp_path / "run"))
    judge_scores(asked(home, out=tmp_path / "told"))
    blank, told = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("run", "told"))
    pd.testing.assert_frame_equal(blank, told)


def test_a_finished_folder_is_left_alone_and_another_table_refused(home, tmp_path, caplog):
    judge_scores(asked(home, out=tmp_path / "run"))
    with caplog.at_level("INFO"):
        judge_scores(asked(home, out=tmp_path / "run"))
    assert "is finished: nothing to do" in caplog.text
    with pytest.raises(UserError, match="resamples: 20 before, 21 now"):
        judge_scores(asked(home, out=tmp_path / "run", resamples=21))


def test_images_of_one_side_only_are_left_out_and_told(home, tmp_path, caplog):
    table = pd.read_csv(home / "scores.csv")
    gone = table["image"].unique()[0]
    more = table[table["image"] == gone].assign(image="another.png")
    pd.concat([table[table["image"] != gone], more]).to_csv(tmp_path / "scores.csv", index=False)
    judge_scores(asked(home, scores=tmp_path / "scores.csv", out=tmp_path / "run"))
    assert "1 images have scores and no labels" in caplog.text and "1 images have labels and no scores" in caplog.text
    assert len(pd.read_parquet(tmp_path / "run" / "labels.parquet")) == 9


def test_scores_worse_than_chance_are_told(tmp_path, caplog):
    draw = np.random.default_rng(0)
    effusion = draw.random(60) < 0.5
    rows = {"image": [f"{n}.png" for n in range(60)], "Effusion": np.where(effusion, 0.2, 0.8) + draw.random(60) / 10}
    pd.DataFrame(rows).to_csv(tmp_path / "scores.csv", index=False)
    labels = pd.DataFrame({"image": rows["image"], "patient_id": range(60), "Effusion": effusion * 1})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    config = {"scores": tmp_path / "scores.csv", "data": tmp_path / "labels.csv", "out": tmp_path / "run"}
    judge_scores(ScoreTableConfig(**config, resamples=20))
    assert "worse than chance" in caplog.text
    assert "worse than chance" in json.loads((tmp_path / "run" / "run.json").read_text())["doubts"][0]


def changed(column: str, value):
    return lambda table: table.assign(**{column: table[column].where(table.index != 3, value)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.rename(columns={"image": "file"}), "lacks the column image: it has"),
        (lambda table: table.drop(columns=["effusion", "Cardiomegaly"]), "no column of numbers"),
        (lambda table: table[["image", "condition", "severity", "repeat"]].assign(Oedema=0.5), "share no finding"),
        (lambda table: table[table["condition"] != "clean"], "no rows of the condition clean"),
        (lambda table: pd.concat([table, table[:1]]), "two rows of"),
        (lambda table: table.drop(columns="repeat"), "two rows of.*draws apart"),
        (lambda table: table.drop(columns="severity"), "lacks the column severity"),
        (
            lambda table: table.assign(severity="much").where(table["condition"] != "clean", table),
            "has much as its severity, which is no number above 0",
        ),
        (
            lambda table: table.assign(severity=-table["severity"]),
            r"has -\d\.0 as its severity, which is no number above 0",
        ),
        (lambda table: table.assign(severity=2), "is clean and has 2 as its severity: leave it blank"),
        (
            lambda table: table.assign(condition=table["condition"].replace("gaussian-blur", "Clean")),
            "untouched images are called clean, so spelt",
        ),
        (lambda table: table.assign(severity=0), "has 0 as its severity, which is no number above 0"),
        (
            lambda table: table.assign(severity=table["severity"].where(table["condition"] == "clean", np.inf)),
            "has inf as its severity, which is no number above 0",
        ),
        (lambda table: table.assign(repeat="first"), "row 1 has first as its repeat: number them"),
        (lambda table: table.assign(repeat=0.5), "row 1 has 0.5 as its repeat: number them"),
        (changed("effusion", np.nan), r"row 4 has nan as effusion, which is no number"),
        (changed("effusion", "n/a?"), r"row 4 has n/a\? as effusion, which is no number"),
        (changed("effusion", 7.0), r"to 7, which are no probabilities: if these are logits.*or divide by 100"),
        (changed("effusion", -7.0), r"-7 to 1, which are no probabilities: if these are logits.*each other\)$"),
        (
            lambda table: table.assign(effusion=0.5, Cardiomegaly=0.25),
            r"answers 10 different images alike \(0.25, 0.5\)",
        ),
        (changed("severity", 6.0), r"has 6\.0 as its severity, but the severity of .* lies in \(0, 5\]: mend it"),
        (
            lambda table: table.replace({"condition": {"gaussian-blur": "patches-black/block"}}),
            r"\(patches-black/block\) has \d\.0 as its severity, but .* is a share in \(0, 1\)",
        ),
        (lambda table: table[(table["condition"] == "clean") | (table.index % 7 > 0)], r"of the 10 clean images under"),
        (lambda table: table.assign(image="x" + table["image"]), r"such as ximages.*give both tables the same names"),
    ],
)
def test_a_table_that_cannot_be_judged(change, message, home, tmp_path):
    change(pd.read_csv(home / "scores.csv")).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(UserError, match=message):
        judge_scores(asked(home, scores=tmp_path / "scores.csv", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels.drop(columns="patient_id"), "lacks the column patient_id"),
        (lambda labels: pd.concat([labels, labels[:1]]), "is listed more than once"),
        (lambda labels: labels.assign(Effusion=0.3), "a label is 1, 0, -1 or blank"),
        (lambda labels: labels.assign(patient_id=""), "every image needs a patient"),
        (lambda labels: labels.assign(Effusion=0, Cardiomegaly=0), "both positives and negatives"),
    ],
)
def test_labels_that_cannot_judge(change, message, home, tmp_path):
    change(pd.read_csv(home / "labels.csv")).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(UserError, match=message):
        judge_scores(asked(home, data=tmp_path / "labels.csv", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_files_that_are_none(home, tmp_path):
    with pytest.raises(UserError, match=r"nowhere.csv is not there"):
        judge_scores(asked(home, scores=tmp_path / "nowhere.csv", out=tmp_path / "run"))
    (tmp_path / "a.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"a.parquet cannot be read as a table"):
        judge_scores(asked(home, scores=tmp_path / "a.parquet", out=tmp_path / "run"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "image.csv").write_bytes(bytes(range(256)))
    for data, message in (
        ("nowhere", "nowhere is not there: name a pack, or a CSV file of labels"),
        ("folder", "folder is a folder and no pack .*: name a pack, or a CSV file"),
        ("image.csv", "image.csv is no text in UTF-8, so no CSV table: name another file"),
    ):
        with pytest.raises(UserError, match=message):
            judge_scores(asked(home, data=tmp_path / data, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_name_that_no_figure_has_room_for_is_refused(home, tmp_path):
    table = pd.read_csv(home / "scores.csv").assign(condition="clean", severity=0.0)
    more = table.assign(condition="x" * 300, severity=1.0)
    pd.concat([table, more]).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(UserError, match=r"a condition of 300 characters \(x{20} \.\.\.\).*at most 40$"):
        judge_scores(asked(home, scores=tmp_path / "scores.csv", out=tmp_path / "run"))


def test_text_beside_the_labels_is_no_finding(home, tmp_path, caplog):
    caplog.set_level("INFO")
    labels = pd.read_csv(home / "labels.csv").assign(report="no edema", hospital="A", study=50_000_001, Fracture=0)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    judge_scores(asked(home, data=tmp_path / "labels.csv", out=tmp_path / "run"))
    (told, *_) = [line for line in caplog.messages if "left out: of the model" in line]
    assert "Fracture" in told and not any(word in told for word in ("Report", "Hospital", "Study"))


# --- what is told of a table that can be judged


def judged_doubts(home: Path, out: Path, **changes) -> list[str]:
    judge_scores(asked(home, out=out, **changes))
    found = json.loads((out / "run.json").read_text())["doubts"]
    # the fixture has few patients and an untrained model, which is told each time
    assert "of 5 patients, and intervals need at least 10" in " ".join(found)
    return [doubt for doubt in found if "of 5 patients" not in doubt and "to rounding, of Cardiomegaly" not in doubt]


def test_columns_of_numbers_that_match_nothing_are_told(home, tmp_path, caplog):
    table = pd.read_csv(home / "scores.csv").assign(study=50_000_000, Oedema=0.5, age=60, comment="none")
    table.to_csv(tmp_path / "scores.csv", index=False)
    (doubt,) = judged_doubts(home, tmp_path / "run", scores=tmp_path / "scores.csv")
    assert "no label is called as, and that are not judged: study, Oedema; if one" in doubt and doubt in caplog.text
    assert judged_doubts(home, tmp_path / "told") == []


def test_probabilities_that_are_said_to_be_logits_are_told(home, tmp_path):
    (doubt,) = judged_doubts(home, tmp_path / "run", answers="logits")
    assert "the answers to 10 clean images lie in [0, 1] and are said to be logits" in doubt


def with_validation(home: Path, place: Path) -> Path:
    """The table, with clean scores of the images of the split validate."""
    index = pd.read_parquet(home / "data" / "pack" / "index.parquet")
    keys = index.loc[index["split"] == "validate", "image_key"].to_numpy()
    effusion = index.set_index("image_key").loc[keys, "label:Pleural Effusion"].fillna(0).to_numpy()
    more = {"image": keys, "condition": "clean", "severity": 0.0, "repeat": 0, "Cardiomegaly": 0.4}
    more["effusion"] = np.where(effusion == 1, 0.625, 0.25)
    pd.concat([pd.read_csv(home / "scores.csv"), pd.DataFrame(more)]).to_csv(place, index=False)
    return place


def test_thresholds_are_chosen_on_scores_of_the_split_validate(home, tmp_path):
    judge_scores(asked(home, scores=with_validation(home, tmp_path / "scores.csv"), out=tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["thresholds"]["Pleural Effusion"] == pytest.approx(0.625)
    assert (
        "clean images of" in record["thresholds_from"] and "of the split validate of pack" in record["thresholds_from"]
    )
    operating = pd.read_parquet(tmp_path / "run" / "operating.parquet")
    assert set(operating["corruption"]) == {"clean", "poisson-noise", "gaussian-blur"}
    assert len(pd.read_parquet(tmp_path / "run" / "labels.parquet")) == 10, "the images of the threshold are not tested"


def test_without_scores_of_other_images_there_is_no_operating_point_and_it_is_told(home, tmp_path):
    judge_scores(asked(home, out=tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["thresholds"] == {} and record["thresholds_from"].startswith("none: the model brings none")
    assert not (tmp_path / "run" / "operating.parquet").exists()


@pytest.mark.parametrize("data", ["data/pack", "labels.csv"])
def test_thresholds_of_a_file(data, home, tmp_path):
    (tmp_path / "limits.csv").write_text("finding,threshold\nEffusion,0.31\nHernia,0.2\n")
    judge_scores(asked(home, data=home / data, out=tmp_path / "run", thresholds=str(tmp_path / "limits.csv")))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["thresholds"] == {"Pleural Effusion": 0.31}
    assert record["thresholds_from"] == "given in the file limits.csv, which has none of Cardiomegaly"
    (tmp_path / "limits.csv").write_text("finding,threshold\nEffusion,0.5\n")
    with pytest.raises(UserError, match="thresholds: "):
        judge_scores(asked(home, data=home / data, out=tmp_path / "run", thresholds=str(tmp_path / "limits.csv")))


@pytest.mark.parametrize(
    ("asked_for", "text", "message"),
    [
        ("test", None, r"not chosen on the tested images, the split 'test'"),
        ("validate", None, r"lacks clean scores of some images of the split validate"),
        ("tets", None, r"thresholds is a split \(there is no other\) or a CSV file \(finding, threshold\), not 'tets'"),
        ("limits.csv", "finding,limit\nMass,0.3\n", r"lacks the column threshold"),
        (
            "limits.csv",
            "finding,threshold\nEdema,0.3\n",
            r"no threshold of Cardiomegaly, Pleural Effusion: it names Edema",
        ),
        ("limits.csv", "finding,threshold\nMass,30\n", r"has '30' as the threshold of Mass: give a probability"),
        ("limits.csv", "finding,threshold\nMass,0.3\nmass,0.4\n", r"finding Mass is listed more than once"),
    ],
)
def test_thresholds_that_cannot_be(asked_for, text, message, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text:
        Path(asked_for).write_text(text)
    with pytest.raises(UserError, match=message):
        judge_scores(asked(home, out=tmp_path / "run", thresholds=asked_for))
    assert not (tmp_path / "run").exists()
