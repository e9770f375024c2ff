"""The sources that are DICOM: whose images, which splits, whose labels; and what never gets into a pack."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from chexmsn.cli.main import main
from chexmsn.core.errors import UserError
from chexmsn.data.dicom import decode_dicom
from chexmsn.data.doctor import examine
from chexmsn.data.look_alike import picture
from chexmsn.data.pack import LEFT_OUT
from chexmsn.data.prepare import prepare
from chexmsn.data.source import LOOK_ALIKE
from chexmsn.data.sources import csv, mimic_cxr, mimic_cxr_jpg, vindr_cxr
from chexmsn.data.sources import dicom as folder_of_dicom
from dicom_files import dicom


def read_dicom(folder, **options) -> pd.DataFrame:
    return folder_of_dicom.read(folder, folder_of_dicom.Config(**options))


# --- dicom


def test_of_two_copies_the_one_that_was_cut_off_is_left_out(tmp_path):
    whole = dicom(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    for name, content in {"a": whole[: len(whole) // 2], "b": whole, "c": whole}.items():
        (tmp_path / f"{name}.dcm").write_bytes(content)
    assert [Path(path).name for path in read_dicom(tmp_path)["path"]] == ["b.dcm"]


@pytest.fixture
def archive(tmp_path) -> Path:
    folder_of_dicom.fake(tmp_path / "archive", patients=6)
    return tmp_path / "archive"


def headers(folder: Path) -> list[pydicom.Dataset]:
    files = sorted(file for file in folder.rglob("IM0*"))
    return [pydicom.dcmread(file, force=True, stop_before_pixels=True) for file in files]


def test_radiographs_are_found_whatever_they_are_called(archive):
    table = read_dicom(archive)
    assert len(table) == 18  # 6 patients, every other with two studies, two images each; raw ones are left out
    assert table["patient_id"].nunique() == 6
    assert table["study_id"].nunique() == 9
    assert set(table["view"]) == {"PA", "LL"}  # the second from its code


def test_no_tag_about_a_patient_gets_into_a_pack(archive, tmp_path):
    pack = prepare("dicom", archive, tmp_path / "pack", size=16, workers=1)
    told = b"".join(file.read_bytes() for file in pack.folder.iterdir() if file.suffix != ".npy")
    told += pack.index.to_csv().encode()
    for header in headers(archive):
        for tag in ("PatientID", "PatientBirthDate", "StudyInstanceUID", "SOPInstanceUID"):
            assert str(header[tag].value).encode() not in told, tag
    assert b"Doe" not in told
    assert pack.index[["sex", "age"]].isna().all().all()


def test_sex_and_age_come_when_they_are_named(archive):
    table = read_dicom(archive, patient_tags=["sex", "age"])
    assert set(table["sex"].dropna()) == {"M", "F"}
    assert set(table["age"].dropna()) == {58, 90}  # 93 is told as 90
    assert read_dicom(archive, patient_tags=["age"])["sex"].isna().all()


def test_identifiers_are_kept_on_request(archive):
    table = read_dicom(archive, identifiers="keep")
    assert set(table["patient_id"]) == {header.PatientID for header in headers(archive)}
    assert set(table["image_key"]) == {header.SOPInstanceUID for header in headers(archive)}


def test_hashes_depend_on_all_that_is_in_the_folder_or_on_a_secret(archive, tmp_path):
    before = read_dicom(archive)
    assert before.equals(read_dicom(archive))
    assert before["image_key"].tolist() == read_dicom(archive, modalities=["DX"])["image_key"].tolist()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(32)))
    with_key = read_dicom(archive, key_file=str(secret))
    (archive / "new.dcm").write_bytes(dicom(np.arange(256, dtype=np.uint16).reshape(16, 16), PatientID="new"))
    assert not set(read_dicom(archive)["patient_id"]) & set(before["patient_id"])
    assert set(read_dicom(archive, key_file=str(secret))["patient_id"]) > set(with_key["patient_id"])
    secret.write_bytes(b"short")
    with pytest.raises(UserError, match="at least 16 bytes"):
        read_dicom(archive, key_file=str(secret))


def test_patients_keep_their_split_whatever_they_are_called(archive):
    hashed, kept = read_dicom(archive), read_dicom(archive, identifiers="keep")
    assert hashed["split"].tolist() == kept["split"].tolist()
    shares = {"train": 0.5, "test": 0.5}
    assert read_dicom(archive, shares=shares).groupby("split")["patient_id"].nunique().to_dict() == {
        "train": 3,
        "test": 3,
    }
    with pytest.raises(UserError, match="a split is one of"):
        read_dicom(archive, shares={"training": 1.0})


def test_what_is_left_out_is_told(archive, caplog):
    caplog.set_level(logging.INFO)
    first = archive / "DOE_001" / "ST0000" / "IM0000"
    (archive / "copy.dcm").write_bytes(first.read_bytes())
    (archive / "report.dcm").write_bytes(dicom(np.zeros((16, 16), np.uint16), Rows=None, SOPInstanceUID="1.9"))
    (archive / "slice.dcm").write_bytes(dicom(np.zeros((16, 16), np.uint16), Modality="CT", SOPInstanceUID="1.8"))
    assert len(read_dicom(archive)) == 18
    for reason in ("hold no image", "modality is none of CR, DX, RG", "for processing", "another file holds the same"):
        assert reason in caplog.text
    assert len(read_dicom(archive, modalities=["DX", "CT"])) == 19


def test_damaged_files_are_listed_and_left_out(archive, tmp_path):
    (archive / "empty.dcm").write_bytes(b"")
    cut = archive / "DOE_001" / "ST0000" / "IM0001"
    cut.write_bytes(cut.read_bytes()[:-1000])
    (archive / "notes.txt").write_text("no image")
    pack = prepare("dicom", archive, tmp_path / "pack", size=16, workers=1)
    assert len(pack) == 17
    assert sorted(pd.read_csv(pack.folder / LEFT_OUT)["file"]) == ["DOE_001/ST0000/IM0001", "empty.dcm"]


def test_without_patients_each_study_is_one(tmp_path, caplog):
    for number in range(4):
        image = np.arange(number, 256 + number, dtype=np.uint16).reshape(16, 16)
        uids = {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.3.{number // 2}"}
        (tmp_path / f"{number}.dcm").write_bytes(dicom(image, **uids))
    assert read_dicom(tmp_path)["patient_id"].nunique() == 2
    assert "4 images without a patient" in caplog.text


def test_a_patient_who_stands_for_everybody_is_told(tmp_path, caplog):
    for number in range(4):
        image = np.arange(number, 256 + number, dtype=np.uint16).reshape(16, 16)
        uids = {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.3.{number}", "PatientID": "ANONYMOUS"}
        (tmp_path / f"{number}.dcm").write_bytes(dicom(image, **uids))
    assert read_dicom(tmp_path)["split"].nunique() == 1
    assert "name one patient" in caplog.text


def test_tags_are_the_same_read_by_several_processes(archive, monkeypatch):
    before = read_dicom(archive)
    monkeypatch.setattr(folder_of_dicom, "FEW", 0)
    monkeypatch.setattr(folder_of_dicom, "CHUNK", 3)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert read_dicom(archive).equals(before)


def test_a_folder_without_radiographs_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="holds no DICOM file"):
        read_dicom(tmp_path)
    (tmp_path / "a.dcm").write_bytes(dicom(np.zeros((16, 16), np.uint16), Modality="CT"))
    with pytest.raises(UserError, match="none to pack"):
        read_dicom(tmp_path)


def test_pixel_sizes_and_rendering_get_into_the_pack(archive, tmp_path):
    packs = [
        prepare("dicom", archive, tmp_path / how, size=32, workers=1, options={"rendering": how}, dtype="uint16")
        for how in ("window", "mimic-cxr-jpg")
    ]
    assert packs[0].index["pixel_mm_row"].between(0.2 * 96 / 32 - 1e-6, 0.2 * 120 / 32).all()
    assert not np.array_equal(packs[0].images, packs[1].images)
    assert len(np.unique(packs[0].images)) > 256 * 4, "sixteen bits are kept"


def test_csv_lists_dicom_files_too(tmp_path):
    light = picture(64, 64, np.random.default_rng(0))
    content = dicom((4000 * light**3).astype(np.uint16), BitsStored=12)
    (tmp_path / "a.dcm").write_bytes(content)
    (tmp_path / "labels.csv").write_text("image,patient_id,Effusion\na.dcm,p1,1\n")
    for rendering in ("window", "mimic-cxr-jpg"):
        config = csv.Config(findings=["Effusion"], rendering=rendering)
        [record] = csv.read(tmp_path, config).to_dict("records")
        assert np.array_equal(csv.load(record, config, 16).pixels, decode_dicom(content, rendering).pixels)


# --- mimic-cxr


def test_mimic_in_dicom_is_mimic_in_jpeg_but_for_its_files(tmp_path):
    mimic_cxr.fake(tmp_path / "dicom", seed=3)
    mimic_cxr_jpg.fake(tmp_path / "jpg", seed=3)
    ours = mimic_cxr.read(tmp_path / "dicom", mimic_cxr.Config(views="all"))
    theirs = mimic_cxr_jpg.read(tmp_path / "jpg", mimic_cxr_jpg.Config(views="all"))
    assert ours.drop(columns="path").equals(theirs.drop(columns="path"))
    assert all(Path(path).is_file() and path.endswith(".dcm") for path in ours["path"])
    records = pd.read_csv(tmp_path / "dicom" / mimic_cxr.RECORDS)
    assert {f"{tmp_path}/dicom/{path}" for path in records["path"]} == set(ours["path"])


def test_tables_of_mimic_may_lie_elsewhere(tmp_path):
    mimic_cxr.fake(tmp_path / "dicom")
    beside = mimic_cxr.read(tmp_path / "dicom", mimic_cxr.Config())
    (tmp_path / "tables").mkdir()
    for table in (tmp_path / "dicom").glob("mimic-cxr-2*"):
        table.rename(tmp_path / "tables" / table.name)
    with pytest.raises(UserError, match=r"lacks mimic-cxr-2.0.0-metadata.csv.gz.*the option tables"):
        mimic_cxr.read(tmp_path / "dicom", mimic_cxr.Config())
    assert mimic_cxr.read(tmp_path / "dicom", mimic_cxr.Config(tables=str(tmp_path / "tables"))).equals(beside)


def test_mimic_is_rendered_as_its_jpegs_unless_told_otherwise(tmp_path):
    mimic_cxr.fake(tmp_path)
    [record, *_] = mimic_cxr.read(tmp_path, mimic_cxr.Config()).to_dict("records")
    content = Path(record["path"]).read_bytes()
    for config, rendering in (({}, "mimic-cxr-jpg"), ({"rendering": "window"}, "window")):
        pixels = mimic_cxr.load(record, mimic_cxr.Config(**config), 16).pixels
        assert np.array_equal(pixels, decode_dicom(content, rendering).pixels)


# --- vindr-cxr

READINGS = pd.DataFrame(
    {
        "image_id": ["a", "a", "a", "b", "b", "b"],
        "rad_id": ["R1", "R8", "R9", "R1", "R8", "R9"],
        "Cardiomegaly": [1, 1, 0, 1, 1, 1],
        "Edema": [1, 0, 0, 0, 0, 0],
        "Other diseases": [0, 0, 0, 1, 0, 1],
    }
)
AGREED = {
    "majority": {"Cardiomegaly": [1, 1], "Edema": [0, 0], "Other Diseases": [0, 1]},
    "any": {"Cardiomegaly": [1, 1], "Edema": [1, 0], "Other Diseases": [0, 1]},
    "unanimous": {"Cardiomegaly": [-1, 1], "Edema": [-1, 0], "Other Diseases": [0, -1]},
}


@pytest.fixture
def vindr(tmp_path) -> Path:
    (tmp_path / "annotations").mkdir()
    READINGS.to_csv(tmp_path / vindr_cxr.TRAIN, index=False)
    test = {"image_id": ["c"], "Cardiomegaly": [0], "Edema": [1], "Other disease": [1]}
    pd.DataFrame(test).to_csv(tmp_path / vindr_cxr.TEST, index=False)
    return tmp_path


@pytest.mark.parametrize("readers", AGREED)
def test_what_three_readers_come_to(vindr, readers):
    table = vindr_cxr.read(vindr, vindr_cxr.Config(readers=readers, validate_share=0.0)).set_index("image_key")
    for finding, expected in AGREED[readers].items():
        assert table[f"label:{finding}"][["a", "b"]].tolist() == expected
    assert table.loc["c", ["label:Cardiomegaly", "label:Edema", "label:Other Diseases"]].tolist() == [0, 1, 1]
    assert table["split"].to_dict() == {"a": "train", "b": "train", "c": "test"}
    assert table["path"]["a"] == f"{vindr}/train/a.dicom"
    assert table["path"]["c"] == f"{vindr}/test/c.dicom"


def test_the_copy_of_kaggle_gives_the_labels_of_its_boxes(tmp_path, caplog):
    vindr_cxr.fake(tmp_path)
    published = vindr_cxr.read(tmp_path, vindr_cxr.Config())
    vindr_cxr.fake_kaggle(tmp_path)
    caplog.set_level(logging.INFO)
    copy = vindr_cxr.read(tmp_path, vindr_cxr.Config())
    assert "Kaggle's boxes" in caplog.text
    assert set(copy["split"]) == {"train", "validate"}
    both = published.set_index("image_key").loc[copy["image_key"]]
    for finding in [name for name in copy if name.startswith("label:") and name != "label:No Finding"]:
        assert copy[finding].tolist() == both[finding].tolist(), finding
    assert copy["path"].tolist() == both["path"].tolist()


def test_the_doctor_asks_of_the_copy_of_kaggle_what_kaggle_gave(tmp_path, capsys):
    vindr_cxr.fake(tmp_path)
    vindr_cxr.fake_kaggle(tmp_path)
    (tmp_path / LOOK_ALIKE).touch()
    assert main(["doctor", "vindr-cxr", str(tmp_path)]) == 0
    assert "VinDr-CXR (Kaggle's copy)" in capsys.readouterr().out
    victim = min((tmp_path / "train").iterdir())
    victim.unlink()
    told = examine("vindr-cxr", tmp_path)
    assert [finding.kind for finding in told.findings] == ["image-missing"]
    assert told.to_fetch == (f"train/{victim.name}",)
    (tmp_path / LOOK_ALIKE).unlink()
    kinds = {finding.kind: finding.what for finding in examine("vindr-cxr", tmp_path).findings}
    assert kinds["split-count"] == "the tables list 12 images of the split train+validate, and 15,000 were published"
    (tmp_path / "train.csv").unlink()
    told = examine("vindr-cxr", tmp_path)
    assert {finding.kind for finding in told.findings} == {"table-missing"}


def test_images_of_a_copy_in_another_format_are_found(vindr):
    (vindr / "train").mkdir()
    (vindr / "train" / "a.png").write_bytes(b"")
    paths = vindr_cxr.read(vindr, vindr_cxr.Config()).set_index("image_key")["path"]
    assert paths["a"] == f"{vindr}/train/a.png"


def test_validation_images_of_vindr_are_drawn_once(tmp_path):
    vindr_cxr.fake(tmp_path, patients=40, size=16)
    splits = [vindr_cxr.read(tmp_path, vindr_cxr.Config(seed=seed))["split"] for seed in (0, 0, 1)]
    assert splits[0].equals(splits[1])
    assert not splits[0].equals(splits[2])
    assert (splits[0] == "validate").sum() == 6  # a tenth of 60


def test_tables_of_vindr_that_make_no_sense(vindr):
    READINGS.drop(columns=["Cardiomegaly", "Edema", "Other diseases"]).to_csv(vindr / vindr_cxr.TRAIN, index=False)
    with pytest.raises(UserError, match="none of the labels of VinDr-CXR"):
        vindr_cxr.read(vindr, vindr_cxr.Config())
    READINGS.assign(Edema=2).to_csv(vindr / vindr_cxr.TRAIN, index=False)
    with pytest.raises(UserError, match=r"column Edema, row 1 holds '2'"):
        vindr_cxr.read(vindr, vindr_cxr.Config())
    READINGS.assign(image_id="../a").to_csv(vindr / vindr_cxr.TRAIN, index=False)
    with pytest.raises(UserError, match="a path inside the folder"):
        vindr_cxr.read(vindr, vindr_cxr.Config())
