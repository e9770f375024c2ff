"""Any folder with a table: where splits and labels come from, and what is refused."""

import logging

import numpy as np
import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.sources.csv import Config, fake, read

FOLDS = {"train": [0, 1, 2], "validate": [3], "test": [4]}


@pytest.fixture
def folder(tmp_path):
    fake(tmp_path, patients=10, size=32)
    return tmp_path


def write(folder, **columns):
    pd.DataFrame(columns).to_csv(folder / "labels.csv", index=False)


def test_without_a_split_everything_is_train(folder):
    table = read(folder, Config())
    assert set(table["split"]) == {"train"}
    assert not table.columns.str.startswith("label:").any()
    assert table[["view", "sex", "age", "study_id"]].isna().all().all()


def test_folds_are_mapped_and_what_is_in_no_list_is_left_out(folder, caplog):
    caplog.set_level(logging.INFO)
    table = read(folder, Config(split="fold", splits=FOLDS))
    assert table["split"].value_counts().to_dict() == {"train": 12, "validate": 4, "test": 4}
    fewer = read(folder, Config(split="fold", splits={"train": [0, "1"], "test": [4]}))
    assert fewer["split"].value_counts().to_dict() == {"train": 8, "test": 4}
    assert "8 of 20 images are left out: `splits` gives their fold to no split" in caplog.text


def test_one_split_for_all_and_splits_drawn_by_patient(folder):
    assert set(read(folder, Config(split_as="test"))["split"]) == {"test"}
    drawn = read(folder, Config(shares={"train": 0.8, "validate": 0.1, "test": 0.1}))
    assert drawn["split"].value_counts().to_dict() == {"train": 16, "validate": 2, "test": 2}
    assert (drawn.groupby("patient_id")["split"].nunique() == 1).all()


def test_columns_become_what_they_mean(folder):
    table = read(folder, Config(view="view", sex="sex", age="age", study="patient_id", key_prefix="mine/"))
    assert table.loc[0, "image_key"] == "mine/images/0000.jpg"
    assert table["view"].iloc[:2].tolist() == ["AP", "PA"]
    assert table["view"].isna().iloc[2]
    assert table["sex"].iloc[[0, 2]].tolist() == ["M", "F"]
    assert table["age"].iloc[:4].tolist() == [58, 58, 58, 58]
    assert table["age"].isna().iloc[4]
    assert table["study_id"].tolist() == table["patient_id"].tolist()


@pytest.mark.parametrize(("said", "meant"), [("Male", "M"), ("f", "F"), ("Unknown", None)])
def test_sexes(folder, said, meant):
    write(folder, image=["a.png"], patient_id=["1"], sex=[said])
    sex = read(folder, Config(sex="sex"))["sex"].iloc[0]
    assert sex == meant if meant else pd.isna(sex)


def test_findings_by_name_or_by_mapping(folder):
    listed = read(folder, Config(findings=["Effusion", "Cardiomegaly"]))
    mapped = read(folder, Config(findings={"Effusion": "pleural_effusion"}))
    assert listed.columns[-2:].tolist() == ["label:Pleural Effusion", "label:Cardiomegaly"]
    assert listed["label:Pleural Effusion"].equals(mapped["label:Pleural Effusion"])
    assert set(listed["label:Pleural Effusion"].dropna()) <= {-1, 0, 1}


@pytest.mark.parametrize("value", ["2", "yes", "0.5", "nan", "-"])
def test_a_strange_label_names_file_column_value_and_row(folder, value):
    write(folder, image=["a.png", "b.png"], patient_id=["1", "2"], Edema=["1", value])
    with pytest.raises(UserError, match=rf"labels.csv: column Edema, row 2 holds '{value}', but a label is 1, 0, -1"):
        read(folder, Config(findings=["Edema"]))


def test_every_way_to_write_a_label(folder):
    values = ["1", "1.0", "0", "0.0", "-1", "-1.0", "", " "]
    write(folder, image=[f"{i}.png" for i in range(8)], patient_id=list("abcdefgh"), Edema=values)
    labels = read(folder, Config(findings=["Edema"]))["label:Edema"].to_numpy()
    assert np.array_equal(labels, np.float32([1, 1, 0, 0, -1, -1, np.nan, np.nan]), equal_nan=True)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "images/../../secret.png", ""])
def test_no_image_lies_outside_the_folder(folder, name):
    write(folder, image=["a.png", name], patient_id=["1", "2"])
    with pytest.raises(UserError, match=r"row 2 names the image .*inside the folder"):
        read(folder, Config())


SPOILT = {
    "lacks the column patient_id": {"image": ["a.png"]},
    "image 'a.png' has no patient_id": {"image": ["a.png"], "patient_id": [""]},
    "image 'a.png' is listed more than once": {"image": ["a.png", "./a.png"], "patient_id": ["1", "1"]},
    "no image is left": {"image": [], "patient_id": []},
}


@pytest.mark.parametrize("message", SPOILT)
def test_spoilt_tables(folder, message):
    write(folder, **SPOILT[message])
    with pytest.raises(UserError, match=message):
        read(folder, Config())


def test_a_patient_in_two_splits_is_named(folder):
    write(folder, image=["a.png", "b.png"], patient_id=["7", "7"], part=["train", "test"])
    with pytest.raises(UserError, match=r"1 lie in several \(7\)"):
        read(folder, Config(split="part"))


def test_a_split_of_another_name(folder):
    write(folder, image=["a.png"], patient_id=["7"], part=["val"])
    with pytest.raises(UserError, match="the split 'val', but a split is one of train, validate, test"):
        read(folder, Config(split="part"))


def test_an_age_that_is_none(folder):
    write(folder, image=["a.png"], patient_id=["7"], age=["old"])
    with pytest.raises(UserError, match="row 1 has the age 'old'"):
        read(folder, Config(age="age"))


def test_two_columns_of_one_finding(folder):
    write(folder, image=["a.png"], patient_id=["7"], Effusion=[1], fluid=[1])
    with pytest.raises(UserError, match="more than one column stands for label:Pleural Effusion"):
        read(folder, Config(findings={"Effusion": "Effusion", "fluid": "Pleural Effusion"}))


def test_another_table_and_none(folder):
    (folder / "labels.csv").rename(folder / "mine.csv")
    assert len(read(folder, Config(table="mine.csv"))) == 20
    with pytest.raises(UserError, match=r"has no table labels\.csv: name it with the option `table`"):
        read(folder, Config())
    with pytest.raises(UserError, match=r"a place inside the folder .*images, not ../mine.csv: move the table there"):
        read(folder / "images", Config(table="../mine.csv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "fold", "split_as": "test"}, "split and split_as both say"),
        ({"splits": FOLDS}, "name that column with `split`"),
        ({"split_as": "val"}, "not 'val'"),
        ({"split": "fold", "splits": {"val": [3]}}, "not 'val'"),
    ],
)
def test_contradictory_options(options, message):
    with pytest.raises(UserError, match=message):
        Config(**options)


def test_shares_that_do_not_add_up(folder):
    with pytest.raises(UserError, match="must add up to 1"):
        read(folder, Config(shares={"train": 0.8, "test": 0.1}))
