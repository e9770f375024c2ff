"""OpenI: reports as XML and the tables of Kaggle, terms that become findings, reports that cannot be read."""

import logging
import os

import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.labels import canonical
from chexmsn.data.prepare import prepare
from chexmsn.data.sources.openi import MEANING, PROJECTIONS, REPORTS, XML, Config, fake, fake_tables, read


@pytest.fixture
def folder(tmp_path):
    fake(tmp_path, patients=8, seed=3, size=32)
    return tmp_path


@pytest.fixture
def tables(folder):
    fake_tables(folder)
    return folder


def test_reports_as_xml(folder):
    table = read(folder, Config())
    assert len(table) == 16
    assert table["patient_id"][:3].tolist() == ["CXR1", "CXR1", "CXR2"]
    assert table["image_key"][0] == "CXR1_1_IM-0001-3001.png"
    assert table["view"].isna().all()
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()


def test_the_tables_of_kaggle_say_the_same_and_the_view_besides(folder):
    before = read(folder, Config())
    fake_tables(folder)
    assert list(pd.read_csv(folder / REPORTS).columns) == [
        "uid",
        "MeSH",
        "Problems",
        "image",
        "indication",
        "comparison",
        "findings",
        "impression",
    ]
    table = read(folder, Config())
    same = ["patient_id", "split", *(f"label:{finding}" for finding in MEANING)]
    pd.testing.assert_frame_equal(table[same], before[same])
    assert table["view"][:2].tolist() == ["FRONTAL", "LATERAL"]
    assert table["image_key"][0] == "1_IM-0001-3001.dcm.png"
    assert prepare("openi", folder, folder / "pack", size=16, workers=1).info["left_out"] == 0


def test_frontal_images_are_known_to_kaggle_alone(folder):
    with pytest.raises(UserError, match="does not tell which images are frontal: give views=all, or the tables"):
        read(folder, Config(views="frontal"))
    fake_tables(folder)
    assert len(read(folder, Config(views="frontal"))) == 8


@pytest.mark.parametrize(
    ("terms", "positive"),
    [
        ("normal", {"No Finding"}),
        ("Cardiomegaly/borderline;Pulmonary Artery/enlarged", {"Cardiomegaly"}),
        ("Opacity/lung/base/left;Opacity/ribs/anterior", {"Lung Opacity"}),
        ("Opacity/ribs/anterior;Opacity/retrocardiac", set()),
        ("Airspace Disease/lung/base/bilateral/mild", {"Lung Opacity"}),
        ("Thickening/pleura/apex/left;Thickening/bronchovascular", {"Pleural Thickening"}),
        ("Thickening/bronchovascular", set()),
        ("Fractures, Bone/ribs/left/healed;Hernia, Hiatal/large", {"Fracture", "Hernia"}),
        ("Hydropneumothorax/left", {"Pleural Effusion", "Pneumothorax"}),
        ("Subcutaneous Emphysema;Nipple Shadow;Cystic Fibrosis", set()),
        ("Technical Quality of Image Unsatisfactory ", set()),
        ("No Indexing", None),
        ("", None),
    ],
)
def test_terms_become_findings(tables, terms, positive):
    pd.read_csv(tables / REPORTS, dtype=str).assign(MeSH=terms).to_csv(tables / REPORTS, index=False)
    labels = read(tables, Config()).filter(like="label:").iloc[0]
    assert labels.isna().all() == (positive is None)
    assert {name.removeprefix("label:") for name in labels.index[labels == 1]} == (positive or set())


def test_the_findings_have_their_canonical_names():
    assert [canonical(finding) for finding in MEANING] == list(MEANING)


STRANGE = b'<?xml version="1.0" encoding="u5f-8"?><eCitation/>'
BOMB = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><eCitation><uId id="CXR1"/>&b;</eCitation>'


LARGE = b"<a>" + b" " * 1_000_001 + b"</a>"


@pytest.mark.parametrize("content", [b"", b"no xml", BOMB, b"<eCitation/>", LARGE, b"<a>" * 9000, b"\xff\xfe", STRANGE])
def test_a_report_that_cannot_be_read_is_told_and_left_out(folder, content, caplog):
    (folder / XML / "1.xml").write_bytes(content)
    assert "CXR1" not in set(read(folder, Config())["patient_id"])
    assert "1 of 9 reports cannot be read and are left out, such as 1.xml (" in caplog.text


def test_a_report_that_is_no_file_is_told_and_left_out(folder, caplog):
    (folder / XML / "1.xml").unlink()
    os.mkfifo(folder / XML / "1.xml")
    (folder / XML / "2.xml").unlink()
    (folder / XML / "2.xml").mkdir()
    assert not {"CXR1", "CXR2"} & set(read(folder, Config())["patient_id"])
    assert "2 of 9 reports cannot be read and are left out, such as 1.xml (no file)" in caplog.text


def test_nothing_but_broken_reports(folder):
    for file in (folder / XML).iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"no report in .* can be read and has images"):
        read(folder, Config())


def test_missing_images_are_told(folder, caplog):
    next((folder / "NLMCXR_png").iterdir()).unlink()
    read(folder, Config())
    assert "1 of the 16 images of the table is not in the folder" in caplog.text


def test_an_image_outside_the_folder_is_refused(folder):
    report = folder / XML / "1.xml"
    report.write_text(report.read_text().replace("CXR1_1_IM-0001-3001", "../secret"))
    with pytest.raises(UserError, match=r"names the image '../secret.png'"):
        read(folder, Config())


def test_tables_that_do_not_belong_together(tables):
    pd.read_csv(tables / REPORTS, dtype=str).iloc[1:].to_csv(tables / REPORTS, index=False)
    with pytest.raises(UserError, match=rf"lacks the report 1 of {PROJECTIONS}"):
        read(tables, Config())


def test_an_empty_folder_is_told_both_forms(tmp_path):
    with pytest.raises(UserError, match=r"neither ecgen-radiology/ with reports nor indiana_reports.csv"):
        read(tmp_path, Config())


def test_reports_are_told_apart_from_each_other(folder, caplog):
    caplog.set_level(logging.INFO)
    halves = read(folder, Config(shares={"train": 0.5, "test": 0.5}))
    assert halves.groupby("split")["patient_id"].nunique().to_dict() == {"train": 4, "test": 4}
    with pytest.raises(UserError, match="not 'dev'"):
        Config(shares={"dev": 1.0})
