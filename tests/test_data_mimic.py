"""MIMIC-CXR-JPG in its own layout: which split, which views, whose labels, and what is told when something lacks."""

import gzip
import logging
import shutil

import numpy as np
import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.prepare import prepare
from chexmsn.data.source import LABEL
from chexmsn.data.sources import mimic_cxr_jpg
from chexmsn.data.sources.mimic_cxr_jpg import Config, fake, read

SPLIT, EHR = "mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-ehr-split.csv"
ALL = Config(views="all")


@pytest.fixture
def folder(tmp_path):
    fake(tmp_path, patients=8, seed=3, size=32)
    return tmp_path


def rewrite(file, change):
    """Read a table of the look-alike as text, change it, write it back."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    change(table).to_csv(file, index=False)


def test_the_look_alike_has_the_layout_and_the_quirks(folder):
    metadata = pd.read_csv(folder / "mimic-cxr-2.0.0-metadata.csv.gz", keep_default_na=False)
    assert list(metadata.columns) == [
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
        "StudyDate",
        "StudyTime",
        "ProcedureCodeSequence_CodeMeaning",
        "ViewCodeSequence_CodeMeaning",
        "PatientOrientationCodeSequence_CodeMeaning",
    ]
    first = metadata.iloc[0]
    patient, study = f"p{first.subject_id}", f"s{first.study_id}"
    assert (folder / "files" / patient[:3] / patient / study / f"{first.dicom_id}.jpg").is_file()
    assert metadata["StudyTime"].dtype == float
    assert {"", "LATERAL"} < set(metadata["ViewPosition"])
    assert metadata["study_id"].duplicated().any(), "no study has two images"
    chexpert = pd.read_csv(folder / "mimic-cxr-2.0.0-chexpert.csv.gz")
    assert list(chexpert.columns[:3]) == ["subject_id", "study_id", "Atelectasis"]
    assert {-1.0, 0.0, 1.0} <= set(chexpert.iloc[:, 2:].to_numpy().ravel())
    assert chexpert.isna().any().any()
    assert len(chexpert) < metadata["study_id"].nunique(), "every study is labelled"
    assert set(pd.read_csv(folder / SPLIT)["split"]) == {"train", "validate", "test"}
    radiologist = pd.read_csv(folder / "mimic-cxr-2.1.0-test-set-labeled.csv")
    assert "Airspace Opacity" in radiologist
    assert "subject_id" not in radiologist


@pytest.mark.parametrize("source", ["mimic-cxr-jpg", "mimic-cxr"])
def test_a_name_that_leads_out_of_the_folder_is_refused(source, folder):
    def lead_out(table):
        return table.assign(dicom_id=["../" * 6 + "secret", *table["dicom_id"][1:]])

    for name in ("metadata", "split"):
        rewrite(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", lead_out)
    with pytest.raises(UserError, match=r"metadata.csv.gz: row 1 names the image .*: give a path inside the folder"):
        prepare(source, folder, folder / "pack", size=16, workers=1, follow_links=True)


def test_views(folder, caplog):
    caplog.set_level(logging.INFO)
    assert set(read(folder, Config())["view"]) == {"AP", "PA"}
    assert "neither AP nor PA" in caplog.text
    every = read(folder, ALL)
    assert len(every) == 24
    assert every["view"].isna().any()
    assert every.loc[0, "path"].startswith(f"{folder}/files/p10/p10000032/s50414267/")


def test_labels_of_a_study_belong_to_each_of_its_images(folder):
    chexpert = pd.read_csv(folder / "mimic-cxr-2.0.0-chexpert.csv.gz").set_index("study_id")
    table = read(folder, ALL)
    for row, study in enumerate(table["study_id"]):
        for finding in ("Edema", "Support Devices"):
            value = chexpert[finding].get(int(study.removeprefix("s")), np.nan)
            assert np.array_equal(table.loc[row, LABEL + finding], value, equal_nan=True)


def test_label_columns_are_known_by_name_not_by_place(folder):
    before = read(folder, ALL)
    rewrite(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", lambda table: table[table.columns[::-1]])
    pd.testing.assert_frame_equal(read(folder, ALL), before)


def test_the_other_labeller(folder):
    assert not read(folder, Config(labeller="negbio", views="all")).equals(read(folder, ALL))


def test_unpacked_tables_read_the_same(folder):
    before = read(folder, ALL)
    for file in folder.glob("*.csv.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    pd.testing.assert_frame_equal(read(folder, ALL), before)


def ehr_split(folder, validate=(), test=()):
    """What MedFuse's create_split.py writes: everybody is train but the subjects listed."""
    rows = pd.read_csv(folder / SPLIT)
    rows["split"] = "train"
    rows.loc[rows["subject_id"].isin(validate), "split"] = "validate"
    rows.loc[rows["subject_id"].isin(test), "split"] = "test"
    rows.to_csv(folder / EHR, index=False)


def test_the_ehr_split_is_taken_where_there_is_one(folder, caplog):
    caplog.set_level(logging.INFO)
    official = read(folder, ALL)
    assert "split: mimic-cxr-2.0.0-split.csv" in caplog.text
    ehr_split(folder, validate=[10000032], test=[11000035])
    parted = read(folder, ALL)
    assert "split: mimic-cxr-ehr-split.csv" in caplog.text
    assert set(parted.loc[parted["split"] == "validate", "patient_id"]) == {"p10000032"}
    assert set(parted.loc[parted["split"] == "test", "patient_id"]) == {"p11000035"}
    pd.testing.assert_frame_equal(read(folder, Config(views="all", split="official")), official)


def test_an_ehr_split_without_effect_is_refused(folder):
    """Its script compares text with numbers, which matches nobody in a current pandas: all would be train."""
    ehr_split(folder, test=["10000032"])
    with pytest.raises(UserError, match="puts every image into train"):
        read(folder, ALL)


def test_an_ehr_split_that_is_not_there(folder):
    with pytest.raises(UserError, match=r"has no mimic-cxr-ehr-split.csv.*`chexmsn split medfuse`"):
        read(folder, Config(split="ehr"))


def test_images_of_unlabelled_studies(folder, caplog):
    caplog.set_level(logging.INFO)
    kept = read(folder, ALL)
    labels = [column for column in kept if column.startswith(LABEL)]
    assert kept.loc[kept["study_id"] == "s50414338", labels].isna().all().all()
    assert "1 image of a study without labels" in caplog.text
    dropped = read(folder, Config(views="all", unlabelled="drop"))
    assert len(dropped) == len(kept) - 1
    assert "their study has no labels" in caplog.text


def test_radiologists_label_the_test_split_only(folder):
    file = folder / "mimic-cxr-2.1.0-test-set-labeled.csv"
    uncovered = pd.read_csv(file)["study_id"].iloc[0]
    rewrite(file, lambda table: table.iloc[1:].assign(**{"Airspace Opacity": "1.0"}))
    official, relabelled = read(folder, ALL), read(folder, Config(views="all", radiologist_test_labels=True))
    assert f"s{uncovered}" not in set(relabelled["study_id"])
    test = relabelled["split"] == "test"
    assert (relabelled.loc[test, "label:Lung Opacity"] == 1).all()
    pd.testing.assert_frame_equal(
        relabelled[~test].reset_index(drop=True), official[official["split"] != "test"].reset_index(drop=True)
    )


def test_images_without_a_split_are_left_out_and_told(folder, caplog):
    caplog.set_level(logging.INFO)
    rewrite(folder / SPLIT, lambda table: table.iloc[2:])
    assert len(read(folder, ALL)) == 22
    assert "2 of 24 images are left out: mimic-cxr-2.0.0-split.csv.gz does not list them" in caplog.text


@pytest.mark.parametrize("file", [SPLIT, "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-chexpert.csv.gz"])
def test_a_missing_table_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"lacks {file}"):
        read(folder, Config())


def test_a_folder_of_something_else_is_told_all_that_it_lacks(tmp_path):
    with pytest.raises(UserError, match=r"no MIMIC-CXR-JPG folder.*metadata.*split.*chexpert"):
        read(tmp_path, Config())


SPOILT = {
    "label": ("chexpert", lambda t: t.assign(Edema=["2.0", *t["Edema"][1:]]), r"column Edema, row 1 holds '2.0'"),
    "finding": ("chexpert", lambda t: t.drop(columns="Edema"), "lacks the column Edema"),
    "column": ("metadata", lambda t: t.drop(columns="ViewPosition"), "lacks the column ViewPosition"),
    "study twice": ("chexpert", lambda t: pd.concat([t, t.iloc[:1]]), "study_id 50414267 is listed more than once"),
    "image twice": ("split", lambda t: pd.concat([t, t.iloc[:1]]), "dicom_id .* is listed more than once"),
    "split name": ("split", lambda t: t.assign(split="trian"), r"the split 'trian'"),
    "leak": ("split", lambda t: t.assign(split=["test", *t["split"][1:]]), r"several \(p10000032\)"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_tables_are_one_clear_line(folder, what):
    table, change, message = SPOILT[what]
    rewrite(folder / f"mimic-cxr-2.0.0-{table}.csv.gz", change)
    with pytest.raises(UserError, match=message) as raised:
        read(folder, ALL)
    assert "\n" not in str(raised.value)


def test_what_is_no_table_is_named(folder):
    (folder / SPLIT).write_bytes(b"\x1f\x8b and no gzip after its mark")
    with pytest.raises(UserError, match=r"split.csv.gz cannot be read as a CSV table"):
        read(folder, Config())


def test_frontal_is_ap_and_pa():
    assert mimic_cxr_jpg.FRONTAL == ("AP", "PA")


def test_tables_without_images_are_told_to_see_the_doctor(folder):
    shutil.rmtree(folder / "files")
    with pytest.raises(UserError, match=r"none of the 10 images .* No such file.*`chexmsn doctor mimic-cxr-jpg"):
        prepare("mimic-cxr-jpg", folder, folder / "pack", workers=1)
    assert not list(folder.glob("pack*"))
