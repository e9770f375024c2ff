"""The real radiographs beside the project, read through `csv` and `nih14`: counts as their README gives them."""

import shutil

import numpy as np
import pandas as pd
import pytest

from chexmsn.core.files import read_json
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy
from chexmsn.data.prepare import prepare
from chexmsn.data.sources.csv import Config, read
from chexmsn.recipes.arguments import run_command
from relaid_nih14 import lay_out

NIH_COUNTS = {
    "Atelectasis": 119,
    "Cardiomegaly": 57,
    "Effusion": 119,
    "Infiltration": 204,
    "Mass": 68,
    "Nodule": 82,
    "Pneumonia": 310,
    "Pneumothorax": 52,
    "Consolidation": 71,
    "Edema": 68,
    "Emphysema": 49,
    "Fibrosis": 43,
    "Pleural_Thickening": 63,
    "Hernia": 21,
    "no_finding": 412,
}
FOLDS = {"train": [0, 1, 2], "validate": [3], "test": [4]}
NIH = {"split": "fold", "splits": FOLDS, "view": "view", "sex": "sex", "age": "age", "findings": list(NIH_COUNTS)}


@pytest.fixture(scope="module")
def nih14(real_data, tmp_path_factory):
    return prepare("csv", real_data / "nih14", tmp_path_factory.mktemp("real") / "nih14", options=NIH, size=64)


def test_nih14_has_its_counts(nih14):
    assert (nih14.info["images"], nih14.info["patients"], nih14.info["left_out"]) == (1110, 822, 0)
    assert nih14.info["splits"] == {"train": 677, "validate": 207, "test": 226}
    assert nih14.index["view"].value_counts().to_dict() == {"PA": 659, "AP": 451}
    assert nih14.index["sex"].value_counts().to_dict() == {"M": 612, "F": 498}
    assert nih14.index["age"].notna().all()
    assert nih14.raw_labels(NIH_COUNTS).sum(axis=0).tolist() == list(NIH_COUNTS.values())


def test_nih14_looks_like_radiographs(nih14):
    assert 0.4 < nih14.mean < 0.6
    assert 0.2 < nih14.std < 0.3
    assert nih14.images.reshape(len(nih14), -1).std(axis=1).min() > 10


def test_two_parts_of_nih_join_because_their_folds_agree(nih14, real_data, tmp_path):
    small = prepare("csv", real_data / "nih14_64px", tmp_path / "pack", options=NIH, size=64)
    assert (small.info["images"], small.info["patients"]) == (889, 243)
    both = Collection([nih14, small], ["train"])
    assert len(both) == 677 + small.info["splits"]["train"]
    assert not np.isnan(both.labels(["Hernia", "Effusion"], Policy())).any()


@pytest.mark.parametrize(
    ("name", "options", "images", "patients"),
    [
        ("kermany", {"findings": ["pneumonia", "normal"], "split_as": "train"}, 5190, 2846),
        ("hannover_covid", {"view": "view", "sex": "sex", "split_as": "test"}, 243, 71),
    ],
)
def test_the_other_collections_read(real_data, name, options, images, patients):
    table = read(real_data / name, Config(**options))
    assert (len(table), table["patient_id"].nunique()) == (images, patients)
    assert set(table["split"]) == {options["split_as"]}


@pytest.fixture(scope="module")
def joined(real_data, tmp_path_factory):
    """The first radiographs of nih14, laid out as the NIH archive is, and of kermany, each a pack of 48 px."""
    home = tmp_path_factory.mktemp("joined")
    lay_out(real_data / "nih14", home / "archive", images=60)
    rows = pd.read_csv(real_data / "kermany" / "labels.csv").iloc[::100]
    (home / "kermany" / "images").mkdir(parents=True)
    for file in rows["image"]:
        shutil.copyfile(real_data / "kermany" / file, home / "kermany" / file)
    rows.to_csv(home / "kermany" / "labels.csv", index=False)
    children = {"findings": ["pneumonia", "normal"], "split_as": "train"}
    return [
        prepare("nih14", home / "archive", home / "packs" / "nih14", size=48, workers=1),
        prepare("csv", home / "kermany", home / "packs" / "kermany", options=children, size=48, workers=1),
    ]


def test_the_archive_of_nih_says_the_same_as_the_csv_file(joined, real_data):
    said = read(real_data / "nih14", Config(**NIH)).iloc[: len(joined[0])]
    index = joined[0].index
    assert ("nih-" + index["patient_id"] == said["patient_id"]).all()
    assert ((index["split"] == "test") == (said["split"] == "test")).all()
    for column in ("view", "sex", "age"):
        assert index[column].tolist() == said[column].tolist()
    labels = [column for column in said if column.startswith("label:")]
    assert (index[labels].to_numpy() == said[labels].to_numpy()).all()


def test_both_are_pretrained_on_together(joined, tmp_path):
    both = Collection(joined, ["train"])
    assert len(both) == joined[0].info["splits"]["train"] + len(joined[1])
    assert {"Pneumonia", "Pleural Effusion", "No Finding"} < set(both.findings)
    options = {"prototypes": 8, "head_hidden": 16, "head_out": 8, "focal_views": 1, "focal_size": 32}
    run = run_command(
        "pretrain",
        {
            "data": [str(pack.folder) for pack in joined],
            "out": str(tmp_path / "msn"),
            "encoder": {"name": "vit_micro", "patch": 16, "size": 48},
            "options": options,
            "epochs": 1,
            "batch_size": 32,
            "probe": None,
            "validate_split": None,
            "device": "cpu",
        },
    )
    assert read_json(run / "run.json")["status"] == "finished"
    assert pd.read_csv(run / "history.csv")["train/loss"].notna().any()
