"""A model of one collection on the images of another: the findings both have, label policies, and what is told."""

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.recipes.arguments import run_command

SHARED = {"Atelectasis", "Cardiomegaly", "Pleural Effusion", "Pneumonia", "Pneumothorax", "Consolidation", "Edema"}
SHARED |= {"No Finding"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Packs of two look-alikes, and a classifier trained on the first."""
    home = tmp_path_factory.mktemp("across")
    for source in ("nih14", "chexpert"):
        run_command("fake", [source, str(home / f"{source}-files"), "--patients", "48", "--size", "64"])
        options = ["--size", "32", "--workers", "1"]
        run_command("prepare", [source, str(home / f"{source}-files"), str(home / source), *options])
    run_command(
        "train",
        {
            "data": [str(home / "nih14")],
            "out": str(home / "classifier"),
            "method": "supervised",
            "encoder": {"name": "vit_micro", "patch": 16, "size": 32},
            "labels": {"uncertain": "ones", "per_finding": {"Edema": "ignore"}},
            "epochs": 1,
            "batch_size": 32,
            "device": "cpu",
        },
    )
    return home


@pytest.fixture(scope="module")
def tested(home):
    """The classifier's stress test on the other collection."""
    words = {"model": str(home / "classifier"), "data": str(home / "chexpert"), "out": str(home / "stress")}
    words |= {"split": "train", "conditions": ["clean"], "resamples": 20, "device": "cpu"}
    logger = logging.getLogger("chexmsn.evaluation.findings")
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    run_command("stress", words | {"labels": {"uncertain": "ones", "blank": "ignore"}})
    logger.removeHandler(handler)
    return home / "stress", lines


def test_a_model_of_one_collection_is_tested_on_another(tested):
    folder, _ = tested
    record = read_json(folder / "run.json")
    assert {*record["findings"], *record["left_out"]} == SHARED
    assert record["data"]["source"] == "chexpert"
    scores = pd.read_parquet(folder / "scores.parquet")
    assert {column.removeprefix("score:") for column in scores if column.startswith("score:")} == SHARED


def test_shared_findings_and_those_left_out_are_told_in_one_line(tested):
    _, lines = tested
    [line] = [line for line in lines if line.startswith("tested on the 8 findings that model and data share: ")]
    shared, of_model, of_data = line.replace("; left out: of the model ", "|").replace(", of the data ", "|").split("|")
    assert set(shared.split(": ")[1].split(", ")) == SHARED
    assert "Infiltration" in of_model
    assert "Lung Opacity" in of_data


def test_the_policy_is_recorded_in_training_and_evaluation(home, tested):
    trained = read_json(home / "classifier" / "run.json")["config"]["labels"]
    assert trained == {"uncertain": "ones", "blank": "zeros", "per_finding": {"Edema": "ignore"}}
    record = read_json(tested[0] / "run.json")
    assert record["policy"] == {"uncertain": "ones", "blank": "ignore", "per_finding": {}}
    assert record["provenance"]["training"]["config"]["labels"] == trained


def test_labels_before_and_after_the_policy_are_kept(home, tested):
    labels = pd.read_parquet(tested[0] / "labels.parquet")
    said = pd.read_parquet(home / "chexpert" / "index.parquet").query("split == 'train'")
    for finding in SHARED:
        raw = labels[f"raw:{finding}"].to_numpy()
        assert np.array_equal(raw, said[f"label:{finding}"].to_numpy(), equal_nan=True)
        assert np.array_equal(labels[f"label:{finding}"], np.where(raw == -1, 1, raw), equal_nan=True)


def test_another_policy_on_the_same_scores_is_what_a_new_test_gives(home, tested):
    folder, _ = tested
    words = {"model": str(home / "classifier"), "data": str(home / "chexpert"), "out": str(home / "anew")}
    words |= {"split": "train", "conditions": ["clean"], "resamples": 20, "device": "cpu"}
    policy = {"uncertain": "ignore", "blank": "zeros", "per_finding": {"Edema": "ones"}}
    run_command("stress", words | {"labels": policy})
    before = pd.read_parquet(folder / "results.parquet")
    run_command("judge", {"runs": [str(folder)], "labels": policy})
    after, anew = (pd.read_parquet(place / "results.parquet") for place in (folder, home / "anew"))
    assert not after.equals(before)
    pd.testing.assert_frame_equal(after.drop(columns="model"), anew.drop(columns="model"))
    assert read_json(folder / "run.json")["policy"] == policy
    run_command("judge", {"runs": [str(folder)]})
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), after)


def test_a_folder_of_before_raw_labels_were_kept(home, tested, tmp_path):
    folder = shutil.copytree(tested[0], tmp_path / "old")
    labels = pd.read_parquet(folder / "labels.parquet")
    labels.drop(columns=labels.filter(like="raw:").columns).to_parquet(folder / "labels.parquet", index=False)
    run_command("judge", {"runs": [str(folder)]})
    with pytest.raises(UserError, match=r"does not hold the raw labels of .* so test anew with --labels"):
        run_command("judge", {"runs": [str(folder)], "labels": {"uncertain": "ones"}})
    with pytest.raises(UserError, match="not smooth ones"):
        run_command("judge", {"runs": [str(folder)], "labels": {"uncertain": "smooth"}})


def test_predict_scores_the_files_of_another_collection(home):
    words = [str(home / "classifier"), str(home / "chexpert-files" / "valid"), "--out", str(home / "scores.csv")]
    run_command("predict", [*words, "--device", "cpu"])
    table = pd.read_csv(home / "scores.csv")
    assert len(table) == len(list((home / "chexpert-files" / "valid").rglob("*.jpg")))
    assert {"Pleural Effusion", "Infiltration"} < set(table.columns)


def test_labels_are_counted_by_finding_split_and_value(home, capsys):
    counts = run_command("labels", [str(home / "chexpert")])
    said = pd.read_parquet(home / "chexpert" / "index.parquet")
    train = said.loc[said["split"] == "train", "label:Edema"]
    assert counts.loc[("Edema", "train")].tolist() == [*((train == v).sum() for v in (1, 0, -1)), train.isna().sum()]
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"chexpert pack {home / 'chexpert'}: 96 images of 48 patients"
    assert told[1].split() == ["train", "validate", "test"]
    assert told[2].split() == ["1", "0", "-1", "blank"] * 3
    assert len(told) == 3 + 14
    run_command("labels", [str(home / "chexpert"), "--json"])
    machine = json.loads(capsys.readouterr().out)
    assert machine["labels"]["Edema"]["train"]["blank"] == train.isna().sum()
    assert machine["splits"] == {"train": 48, "validate": 24, "test": 24}


def test_values_that_no_image_has_are_left_out_of_the_table(home, capsys):
    run_command("labels", [str(home / "nih14")])
    assert capsys.readouterr().out.splitlines()[2].split() == ["1", "0"] * 3
