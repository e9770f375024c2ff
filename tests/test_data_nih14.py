"""NIH ChestX-ray14 in its own layout, in the layouts of its copies, and what is told when something lacks."""

import gzip
import logging
import shutil

import numpy as np
import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.doctor import examine
from chexmsn.data.prepare import prepare
from chexmsn.data.source import LOOK_ALIKE
from chexmsn.data.sources.nih14 import LABELS, TABLES, TEST, TRAIN, Config, archive_of, fake, fake_copy, read


@pytest.fixture
def folder(tmp_path):
    fake(tmp_path, patients=8, seed=3, size=32)
    return tmp_path


def rewrite(file, change):
    """Read a table of the look-alike as text, change it, write it back."""
    change(pd.read_csv(file, dtype=str, keep_default_na=False)).to_csv(file, index=False)


def test_the_look_alike_has_the_layout_and_the_quirks(folder):
    header = (folder / TABLES[0]).read_text().splitlines()[0]
    assert header == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    assert (folder / "BBox_List_2017.csv").read_text().startswith("Image Index,Finding Label,Bbox [x,y,w,h],Unnamed")
    assert len(list(folder.glob("images_*"))) == 8
    assert all(file.parts[-3] == archive_of(file.name) for file in folder.glob("images_*/images/*"))
    assert len((folder / TRAIN).read_text().splitlines()) + len((folder / TEST).read_text().splitlines()) == 16


def test_a_table_may_be_packed_as_the_doctor_takes_it(folder):
    plain, file = read(folder, Config()), folder / TABLES[0]
    (folder / f"{TABLES[0]}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    pd.testing.assert_frame_equal(read(folder, Config()), plain)


def test_labels_are_those_between_the_bars(folder):
    told = pd.read_csv(folder / TABLES[0])["Finding Labels"]
    table = read(folder, Config())
    assert table["label:Pleural Effusion"].tolist() == [float("Effusion" in text.split("|")) for text in told]
    assert table["label:No Finding"].tolist() == [float(text == "No Finding") for text in told]
    labels = table.filter(like="label:")
    assert labels.shape[1] == len(LABELS)
    assert labels.sum().sum() == sum(len(text.split("|")) for text in told)


def test_the_table_is_understood(folder):
    first = read(folder, Config()).iloc[0]
    assert first["patient_id"] == "1"
    assert first["study_id"] == "1_0"
    assert first["view"] == "AP"
    assert first["age"] == 43
    assert first["sex"] in ("M", "F")


def test_a_pixel_is_that_of_the_squeezed_file_not_of_the_detector(folder):
    first = read(folder, Config()).iloc[0]
    assert first["pixel_mm_row"] == pytest.approx(0.139 * 2749 / 32)
    assert first["pixel_mm_column"] == pytest.approx(0.143 * 2682 / 32)
    for file in folder.glob("images_*/images/*"):
        file.write_bytes(b"")  # no file tells its size: that of the published ones
    assert read(folder, Config()).loc[0, "pixel_mm_row"] == pytest.approx(0.139 * 2749 / 1024)


def test_a_pack_keeps_the_size_of_a_pixel(folder, tmp_path):
    pack = prepare("nih14", folder, tmp_path / "pack", size=16, workers=1)
    assert pack.index["pixel_mm_row"][0] == pytest.approx(0.139 * 2749 / 16)
    assert pack.index["pixel_mm_column"][0] == pytest.approx(0.143 * 2682 / 16)


def test_other_copies_read_the_same(folder):
    before = read(folder, Config()).drop(columns="path")
    fake_copy(folder)
    header = (folder / TABLES[1]).read_text().splitlines()[0]
    assert "Patient Sex" in header
    assert header.endswith(",y],")
    table = read(folder, Config())
    pd.testing.assert_frame_equal(table.drop(columns="path"), before)
    assert table["path"].str.startswith(f"{folder}/images/").all()


def test_the_header_of_kaggle_reads_the_same(folder):
    before = read(folder, Config())
    spacing = "OriginalImagePixelSpacing"
    names = {"OriginalImage[Width": "OriginalImageWidth", "Height]": "OriginalImageHeight"}
    names |= {f"{spacing}[x": f"{spacing}_x", "y]": f"{spacing}_y"}
    rewrite(folder / TABLES[0], lambda table: table.rename(columns=names))
    pd.testing.assert_frame_equal(read(folder, Config()), before)


def test_the_lists_give_the_split_and_validation_is_drawn_by_patient(folder):
    table = read(folder, Config(validate_share=0.5))
    assert set(table.loc[table["split"] == "test", "image_key"]) == set((folder / TEST).read_text().splitlines())
    assert table.groupby("split")["patient_id"].nunique().to_dict() == {"test": 2, "train": 3, "validate": 3}
    assert not read(folder, Config(validate_share=0.5, seed=1)).equals(table)
    assert set(read(folder, Config(validate_share=0.0))["split"]) == {"train", "test"}


def test_unlisted_and_missing_images_are_told(folder, caplog):
    caplog.set_level(logging.INFO)
    names = (folder / TRAIN).read_text().splitlines()
    (folder / TRAIN).write_text("\n".join(names[1:]) + "\n")
    next(folder.glob(f"images_*/images/{names[2]}")).unlink()
    table = read(folder, Config())
    assert len(table) == 15
    assert "1 of 16 images is left out: neither train_val_list.txt nor test_list.txt names them" in caplog.text
    assert "1 of the 16 images of the table is not in the folder" in caplog.text
    assert (
        table.loc[table["image_key"] == names[2], "path"].item() == f"{folder}/{archive_of(names[2])}/images/{names[2]}"
    )


def test_what_lacks_is_named(folder, tmp_path):
    for name in (TABLES[0], TEST):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"lacks Data_Entry_2017_v2020.csv, test_list.txt: see https"):
        read(folder, Config())


SPOILT = {
    "finding": (lambda t: t.assign(**{"Finding Labels": "Scurvy"}), "row 1 has the finding 'Scurvy'"),
    "age": (lambda t: t.assign(**{"Patient Age": "old"}), "row 1 has the age 'old'"),
    "column": (lambda t: t.drop(columns="Patient ID"), "lacks the column Patient ID"),
    "outside": (lambda t: t.assign(**{"Image Index": "../a.png"}), r"row 1 names the image '\.\./a.png'"),
    "leak": (lambda t: t.assign(**{"Patient ID": "1"}), r"several \(1\)"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_tables_are_one_clear_line(folder, what):
    change, message = SPOILT[what]
    rewrite(folder / TABLES[0], change)
    with pytest.raises(UserError, match=message) as raised:
        read(folder, Config())
    assert "\n" not in str(raised.value)


def test_a_list_that_overlaps_or_is_no_text(folder):
    (folder / TEST).write_text((folder / TRAIN).read_text())
    with pytest.raises(UserError, match=r"is both in train_val_list.txt and in test_list.txt"):
        read(folder, Config())
    (folder / TEST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"test_list.txt cannot be read as a list"):
        read(folder, Config())


def test_labels_have_no_blank(folder):
    assert not np.isnan(read(folder, Config()).filter(like="label:").to_numpy(np.float32)).any()


@pytest.mark.parametrize("inner", ["images", ""], ids=["unpacked", "bare"])
def test_the_doctor_names_the_archive_of_a_missing_image(folder, inner):
    fake(folder / "large", patients=40, size=32)
    if not inner:
        for archive in (folder / "large").glob("images_*"):
            (archive / "images").rename(folder / "moved")
            archive.rmdir()
            (folder / "moved").rename(archive)
    victims = [next((folder / "large" / name / inner).iterdir()) for name in ("images_003", "images_012")]
    for victim in victims:
        victim.unlink()
    (folder / "large" / LOOK_ALIKE).touch()
    told = examine("nih14", folder / "large")
    assert [finding.kind for finding in told.findings] == ["image-missing"]
    assert sorted(told.to_fetch) == sorted(str(victim.relative_to(folder / "large")) for victim in victims)


def test_the_doctor_names_a_missing_archive(folder):
    (folder / LOOK_ALIKE).touch()
    shutil.rmtree(folder / "images_004")
    [finding] = examine("nih14", folder).findings
    assert (finding.kind, finding.examples) == ("folder-missing", ("images_004 (2)",))


def test_the_doctor_names_the_one_folder_of_a_copy(folder):
    fake_copy(folder)
    for archive in folder.glob("images_*"):
        shutil.rmtree(archive)
    (folder / LOOK_ALIKE).touch()
    victim = next((folder / "images").iterdir())
    victim.unlink()
    [finding] = examine("nih14", folder).findings
    assert (finding.kind, finding.examples) == ("image-missing", (f"images/{victim.name}",))
