"""CheXpert: full and small, both forms of the test labels, the copy that renames valid, the download in batches."""

import logging

import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.prepare import prepare
from chexmsn.data.sources.chexpert import (
    FINDINGS,
    STUDIES,
    TEST,
    TRAIN,
    VALID,
    Config,
    fake,
    fake_batches,
    fake_by_image,
    read,
)

ALL = Config(views="all")


@pytest.fixture
def folder(tmp_path):
    fake(tmp_path / "CheXpert-v1.0-small", patients=8, seed=3, size=32)
    return tmp_path / "CheXpert-v1.0-small"


def rewrite(file, change):
    """Read a table of the look-alike as text, change it, write it back."""
    change(pd.read_csv(file, dtype=str, keep_default_na=False)).to_csv(file, index=False)


def test_the_look_alike_has_the_layout_and_the_quirks(folder):
    train = pd.read_csv(folder / TRAIN, keep_default_na=False, dtype=str)
    assert list(train.columns) == ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
    assert train["Path"][0] == "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
    assert "Unknown" in set(train["Sex"])
    assert (train.loc[train["Frontal/Lateral"] == "Lateral", "AP/PA"] == "").all()
    assert {"1.0", "0.0", "-1.0", ""} == set(train[list(FINDINGS)].to_numpy().ravel())
    studies = list(pd.read_csv(folder / STUDIES).columns)
    assert studies[0] == "Study"
    assert studies.index("Lung Lesion") < studies.index("Lung Opacity")


def test_splits_views_and_people(folder):
    table = read(folder, ALL)
    assert table["split"].value_counts().to_dict() == {"train": 12, "validate": 6, "test": 6}
    assert set(table.loc[table["split"] == "train", "view"]) == {"AP", "PA", "LATERAL"}
    assert set(table.loc[table["split"] == "test", "view"]) == {"FRONTAL", "LATERAL"}
    first = table.iloc[0]
    assert first["image_key"] == "train/patient00001/study1/view1_frontal.jpg"
    assert (first["patient_id"], first["study_id"]) == ("patient00001", "patient00001/study1")
    assert (first["age"], first["sex"] in ("M", "F")) == (27, True)
    assert table.loc[table["patient_id"] == "patient00002", "sex"].isna().all()


def test_frontal_images_are_the_default(folder, caplog):
    caplog.set_level(logging.INFO)
    assert len(read(folder, Config())) == 16
    assert "8 of 24 images are left out: they are lateral" in caplog.text


def test_labels_are_known_by_name_not_by_place(folder):
    studies = pd.read_csv(folder / STUDIES).set_index("Study")
    test = read(folder, ALL).query("split == 'test'")
    for finding in FINDINGS:
        said = [studies.loc[f"CheXpert-v1.0-small/test/{study}", finding] for study in test["study_id"]]
        assert test[f"label:{finding}"].tolist() == said
    train = pd.read_csv(folder / TRAIN)
    assert read(folder, ALL)["label:Edema"][:12].equals(train["Edema"].astype("float32").rename("label:Edema"))


def test_full_and_small_have_the_same_keys(folder):
    before = read(folder, ALL)
    for name in (TRAIN, VALID):
        rewrite(folder / name, lambda t: t.assign(Path=t["Path"].str.replace("-v1.0-small", "-v1.0")))
    pd.testing.assert_frame_equal(read(folder, ALL), before)


def test_labels_by_image_and_a_renamed_folder_read_the_same(folder):
    before = read(folder, ALL)
    fake_by_image(folder)
    assert not (folder / "valid").exists()
    table = read(folder, ALL)
    same = ["image_key", "patient_id", "study_id", "split", *(f"label:{finding}" for finding in FINDINGS)]
    pd.testing.assert_frame_equal(table[same], before[same])
    assert table.loc[table["split"] == "validate", "path"].str.contains("/val/").all()
    assert prepare("chexpert", folder, folder.parent / "pack", size=16, workers=1).info["left_out"] == 0


def test_the_download_in_batches_reads_the_same(folder):
    before = read(folder, ALL)
    fake_batches(folder)
    table = read(folder, Config(views="all"))
    train = table["split"] == "train"
    pd.testing.assert_frame_equal(
        table[train].drop(columns="path"), before[before["split"] == "train"].drop(columns="path")
    )
    pack = prepare("chexpert", folder, folder.parent / "pack", options={"views": "all"}, size=16, workers=1)
    assert pack.info["splits"] == {"train": 12, "validate": 6}


def test_the_folder_above_reads_the_same(folder):
    pd.testing.assert_frame_equal(read(folder.parent, ALL), read(folder, ALL))


def test_tables_may_lack_but_not_all(folder, caplog):
    caplog.set_level(logging.INFO)
    (folder / STUDIES).unlink()
    assert set(read(folder, ALL)["split"]) == {"train", "validate"}
    assert "the pack has no split test" in caplog.text
    (folder / TRAIN).unlink()
    assert set(read(folder, ALL)["split"]) == {"validate"}
    (folder / VALID).unlink()
    with pytest.raises(UserError, match=r"neither train.csv nor valid.csv: see https"):
        read(folder, ALL)


@pytest.mark.parametrize("study", ["test/patient9/study1", pytest.param("9" * 5000, id="longer-than-a-name-can-be")])
def test_studies_without_images_are_told(folder, caplog, study):
    rewrite(folder / STUDIES, lambda t: pd.concat([t, t.iloc[:1].assign(Study=f"CheXpert-v1.0/{study}")]))
    assert len(read(folder, ALL)) == 24
    assert f"1 of the 5 studies of groundtruth.csv have no image, such as {study}" in caplog.text


SPOILT = {
    "label": (TRAIN, lambda t: t.assign(Edema="2"), r"train.csv: column Edema, row 1 holds '2'"),
    "finding": (VALID, lambda t: t.drop(columns="Edema"), "valid.csv lacks the column Edema"),
    "path": (TRAIN, lambda t: t.assign(Path="patient1.jpg"), "'patient1.jpg' is no path such as train/"),
    "outside": (TRAIN, lambda t: t.assign(Path="CheXpert-v1.0/../../a.jpg"), "row 1 names the image"),
    "study outside": (STUDIES, lambda t: t.assign(Study="/etc"), "row 1 names the image '/etc'"),
    "twice": (TRAIN, lambda t: pd.concat([t, t.iloc[:1]]), "is listed more than once"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_tables_are_one_clear_line(folder, what):
    name, change, message = SPOILT[what]
    rewrite(folder / name, change)
    with pytest.raises(UserError, match=message) as raised:
        read(folder, ALL)
    assert "\n" not in str(raised.value)


def test_an_image_table_of_the_test_set_wins(folder):
    images = pd.DataFrame({"Path": ["test/patient64744/study1/view1_frontal.jpg"], **dict.fromkeys(FINDINGS, 1.0)})
    images.to_csv(folder / TEST, index=False)
    test = read(folder, ALL).query("split == 'test'")
    assert test["image_key"].tolist() == ["test/patient64744/study1/view1_frontal.jpg"]
    assert (test.filter(like="label:") == 1).all(axis=None)
