"""PadChest: printed lists, nulls, 16 bits, projections, files that are not there."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chexmsn.core.errors import UserError
from chexmsn.data.labels import canonical
from chexmsn.data.prepare import prepare
from chexmsn.data.sources.padchest import MEANING, TABLE, Config, _names, fake, read

ALL = Config(views="all")


@pytest.fixture
def folder(tmp_path):
    fake(tmp_path, patients=8, seed=3, size=32)
    return tmp_path


def rewrite(file, change):
    """Read a table of the look-alike as text, change it, write it back."""
    change(pd.read_csv(file, dtype=str, keep_default_na=False)).to_csv(file, index=False)


def test_the_look_alike_has_the_layout_and_the_quirks(folder):
    table = pd.read_csv(folder / TABLE, keep_default_na=False)
    assert len(table.columns) == 36
    assert (folder / TABLE).read_text().startswith(",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,")
    assert {"nan", "['normal']", "['cardiomegaly', ' exclude']"} < set(table["Labels"])
    with Image.open(folder / str(table["ImageDir"][0]) / table["ImageID"][0]) as image:
        assert image.mode == "I;16"
    assert set(table["Projection"]) == {"PA", "L", "AP_horizontal", "AP", "COSTAL", "UNK"}


def test_people_and_views(folder, caplog):
    caplog.set_level(logging.INFO)
    every = read(folder, ALL)
    assert set(every["view"].dropna()) == {"PA", "LATERAL", "AP SUPINE", "AP", "COSTAL"}
    assert every["view"].isna().any()
    assert every["age"][:3].tolist() == [84, 84, 85]
    assert set(every["sex"].dropna()) == {"M", "F"}
    frontal = read(folder, Config())
    assert set(frontal["view"]) == {"PA", "AP SUPINE", "AP"}
    assert "images are left out: their projection is not frontal" in caplog.text


@pytest.mark.parametrize(
    ("born", "studied"), [("", "20140505"), ("nan", "20140505"), ("1930.0", "nan"), ("2030", "2014")]
)
def test_an_age_that_cannot_be_told_is_missing(folder, born, studied):
    rewrite(folder / TABLE, lambda t: t.assign(PatientBirth=born, StudyDate_DICOM=studied))
    assert read(folder, ALL)["age"].isna().all()


def labels_of(folder, text, **options):
    rewrite(folder / TABLE, lambda t: t.assign(Labels=text))
    labels = read(folder, Config(**options)).filter(like="label:").iloc[0]
    return {name.removeprefix("label:") for name in labels.index[labels == 1]}, labels.isna().all()


@pytest.mark.parametrize(
    ("text", "positive"),
    [
        ("['normal']", {"No Finding"}),
        ("[' normal']", {"No Finding"}),
        ("['COPD signs', ' pleural effusion', '']", {"Pleural Effusion"}),
        ("[\"laminar atelectasis\", 'NSG tube']", {"Atelectasis", "Support Devices"}),
        ("['hydropneumothorax']", {"Pleural Effusion", "Pneumothorax"}),
        ("['callus rib fracture', 'unchanged']", {"Fracture", "Rib Fracture"}),
        ("['subcutaneous emphysema', 'pseudonodule', 'tuberculosis sequelae']", set()),
        ("[]", None),
        ("['unchanged']", None),
        ("['', 'unchanged']", None),
        ("['cardiomegaly', ' exclude']", None),
        ("nan", None),
        ("", None),
    ],
)
def test_lists_become_findings(folder, text, positive):
    told, blank = labels_of(folder, text)
    assert blank == (positive is None)
    assert told == (positive or set())


def test_other_names_can_be_asked_for(folder):
    assert labels_of(folder, "['scoliosis']", also=["scoliosis"]) == ({"Scoliosis"}, False)
    with pytest.raises(UserError, match=r"'pulmonary edema' is among the findings already \(Edema\)"):
        Config(also=["pulmonary edema"])


@given(st.lists(st.text(max_size=8), max_size=4))
def test_every_printed_list_of_text_is_read(names):
    assert _names(repr(names)) == {name.strip() for name in names}


@given(st.text(max_size=30))
def test_nothing_else_is_evaluated(text):
    names = _names(text)
    assert names is None or (text.startswith("[") and text.endswith("]"))


NO_LISTS = ["normal", "[" * 5000, "['a'" + ", 'a'" * 5000 + "]", "['a', 1]", "['a'] + ['b']", "[__import__('os')]"]


@pytest.mark.parametrize("text", [*NO_LISTS, r"['\d']", r"['\U00110000']"])
def test_what_is_no_list_names_the_row(folder, text):
    rewrite(folder / TABLE, lambda t: t.assign(Labels=["['normal']", text, *t["Labels"][2:]]))
    with pytest.raises(UserError, match=r"row 2 has the labels") as raised:
        read(folder, ALL)
    assert len(str(raised.value)) < 400


def test_the_findings_have_their_canonical_names():
    assert [canonical(finding) for finding in MEANING] == list(MEANING)


def test_missing_and_broken_files_are_listed_not_fatal(folder, tmp_path, caplog):
    table = read(folder, ALL)
    lost, broken = (folder / table["path"][row] for row in (0, 1))
    lost.unlink()
    broken.write_bytes(broken.read_bytes()[:100])
    pack = prepare("padchest", folder, tmp_path / "pack", options={"views": "all"}, size=16, workers=1)
    assert "1 of the 24 images of the table is not in the folder" in caplog.text
    assert pd.read_csv(pack.folder / "left_out.csv")["image_key"].tolist() == table["image_key"][:2].tolist()


def test_images_may_lie_in_one_folder(folder):
    before = read(folder, ALL)
    (folder / "images").mkdir()
    for path in before["path"]:
        (folder / path).rename(folder / "images" / path.rsplit("/", 1)[1])
    table = read(folder, ALL)
    assert table["path"].str.startswith(f"{folder}/images/").all()
    assert table.drop(columns="path").equals(before.drop(columns="path"))


def test_splits_are_drawn_by_patient(folder):
    halves = {"train": 0.5, "test": 0.5}
    table = read(folder, Config(views="all", shares=halves))
    assert table.groupby("split")["patient_id"].nunique().to_dict() == {"train": 4, "test": 4}
    assert not read(folder, Config(views="all", shares=halves, seed=1))["split"].equals(table["split"])
    frontal = read(folder, Config(shares=halves)).set_index("image_key")["split"]
    assert (table.set_index("image_key")["split"].loc[frontal.index] == frontal).all(), "the views move a patient"
    with pytest.raises(UserError, match="not 'dev'"):
        Config(shares={"train": 0.9, "dev": 0.1})


def test_rows_without_a_patient_are_left_out(folder, caplog):
    caplog.set_level(logging.INFO)
    rewrite(folder / TABLE, lambda t: t.assign(PatientID=["nan", *t["PatientID"][1:]]))
    assert len(read(folder, ALL)) == 23
    assert "1 of 24 images is left out: their row names no image or no patient" in caplog.text


def test_a_missing_table_and_a_name_that_leads_out(folder):
    rewrite(folder / TABLE, lambda t: t.assign(ImageDir="../.."))
    with pytest.raises(UserError, match=r"row 1 names the image '../../"):
        read(folder, ALL)
    (folder / TABLE).unlink()
    with pytest.raises(UserError, match=rf"lacks {TABLE}: see https"):
        read(folder, ALL)


def test_a_table_without_rows(folder):
    rewrite(folder / TABLE, lambda t: t.iloc[:0])
    with pytest.raises(UserError, match="no image is left to pack"):
        read(folder, ALL)


def test_labels_are_one_zero_or_blank(folder):
    values = read(folder, ALL).filter(like="label:").to_numpy(np.float32)
    assert set(np.unique(values[~np.isnan(values)])) == {0, 1}


def test_of_a_table_of_36_columns_a_few_are_told(folder):
    rewrite(folder / TABLE, lambda rows: rows.rename(columns={"PatientID": "Patient"}))
    with pytest.raises(UserError, match=r"lacks the column PatientID: it has .*ImageID, .* and 28 more$") as told:
        read(folder, Config())
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("seed", range(3))
def test_a_small_look_alike_can_be_trained_and_validated_on(tmp_path, seed):
    fake(tmp_path, patients=30, seed=seed, size=16)
    table = read(tmp_path, Config())
    for split in ("train", "validate"):
        labels = table[table["split"] == split].filter(like="label:")
        assert ((labels == 1).any() & (labels == 0).any()).any(), split
