"""The doctor: silent where all is well, and every planted fault is told. Every source is examined."""

import gzip
import json
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.cli.main import main
from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.data._tree import fault_of, walk
from chexmsn.data.doctor import examine
from chexmsn.data.pack import sha256
from chexmsn.data.prepare import SOURCES
from chexmsn.data.source import LOOK_ALIKE, find_table, make_config
from chexmsn.data.splits import chosen
from chexmsn.recipes.arguments import run_command

NAMES = lookup.names(SOURCES)
OF_FILES = [name for name in NAMES if lookup.load(SOURCES, name).SOURCE.files]
MIMIC = "mimic-cxr-jpg"


@pytest.fixture(scope="module")
def look_alikes(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("look-alikes")


@pytest.fixture
def folder(request, look_alikes, tmp_path) -> Path:
    """A look-alike of the source that the test names, to be spoilt."""
    name = request.param
    if not (look_alikes / name).exists():
        run_command("fake", [name, str(look_alikes / name), "--patients", "6", "--size", "64"])
    return shutil.copytree(look_alikes / name, tmp_path / name)


def of_all(names=NAMES):
    return pytest.mark.parametrize("folder", names, indirect=True)


mimic = pytest.mark.parametrize("folder", [MIMIC], indirect=True)


def kinds(folder: Path, **how) -> dict[str, int]:
    diagnosis = examine(folder.name, folder, workers=1, **how)
    return {finding.kind: finding.count for finding in diagnosis.findings}


def images(folder: Path) -> list[Path]:
    module = lookup.load(SOURCES, folder.name)
    return [Path(path) for path in module.read(folder, make_config(module, {}))["path"]]


# --- every source


@of_all()
def test_a_look_alike_is_whole(folder):
    diagnosis = examine(folder.name, folder)
    assert (diagnosis.findings, diagnosis.to_fetch) == ((), ())
    assert diagnosis.whole
    assert sum(split["whole"] for split in diagnosis.images.values()) == len(images(folder))


@of_all()
def test_a_look_alike_is_whole_when_every_byte_is_read(folder):
    assert kinds(folder, thorough=True) == {}


@of_all(OF_FILES)
def test_a_deleted_image_is_told(folder):
    victim = images(folder)[0]
    victim.unlink()
    if victim in images(folder):  # a source without tables knows of no image that is not there
        told = examine(folder.name, folder)
        assert {finding.kind for finding in told.findings} <= {"image-missing", "folder-missing"}
        assert told.to_fetch == (str(victim.relative_to(folder)),)


@of_all(OF_FILES)
def test_an_empty_image_is_told(folder):
    images(folder)[1].write_bytes(b"")
    assert kinds(folder) == {"image-empty": 1}


@of_all(OF_FILES)
def test_a_truncated_image_is_told(folder):
    victim = images(folder)[1]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    assert kinds(folder) == kinds(folder, thorough=True) == {"image-truncated": 1}


@of_all(OF_FILES)
def test_a_web_page_under_the_name_of_an_image_is_told(folder):
    images(folder)[-1].write_text("\n<!DOCTYPE html><html><title>Log in</title></html>")
    assert kinds(folder) == {"image-page": 1}


@of_all()
def test_what_downloads_and_systems_leave_is_told_and_harmless(folder):
    for name in ("index.html", "index.html?C=M;O=A", "._a.jpg", "Thumbs.db", "b.zip.part"):
        (folder / name).write_bytes(b"\0")
    told = examine(folder.name, folder)
    assert {f.kind: f.count for f in told.findings} == {"index-pages": 2, "system-files": 2, "unfinished-downloads": 1}
    assert told.whole


@of_all()
def test_a_table_without_one_of_its_columns_is_told(folder):
    for table in lookup.load(SOURCES, folder.name).SOURCE.tables:
        file = find_table(folder, table.name)
        if file is None or not table.columns:
            continue
        whole = file.read_bytes()
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
        rows.drop(columns=table.columns[0]).to_csv(file, index=False)
        diagnosis = examine(folder.name, folder)
        assert diagnosis.findings[0].kind == "table-columns"
        assert table.columns[0] in diagnosis.findings[0].what
        assert table.name in diagnosis.to_fetch
        assert not diagnosis.whole
        file.write_bytes(whole)


@of_all()
def test_a_missing_table_is_told_and_to_be_fetched_first(folder):
    needed = [table.name for table in lookup.load(SOURCES, folder.name).SOURCE.tables if table.needed]
    for name in needed:
        find_table(folder, name).unlink()
    told = examine(folder.name, folder)
    assert [finding.kind for finding in told.findings] == ["table-missing"] * len(needed) or not needed
    assert list(told.to_fetch) == needed


@of_all()
def test_published_counts_are_compared_where_the_folder_is_no_look_alike(folder):
    (folder / LOOK_ALIKE).unlink()
    source = lookup.load(SOURCES, folder.name).SOURCE
    told = kinds(folder)
    assert ("split-count" in told) == bool(source.counts)
    assert ("table-rows" in told) == any(table.rows and find_table(folder, table.name) for table in source.tables)


@of_all(["chexpert"])
def test_of_a_part_only_what_is_missing_of_it_counts(folder, capsys):
    (folder / LOOK_ALIKE).unlink()  # its tables are shorter than the published ones
    for image in (folder / "train").rglob("*.jpg"):
        image.unlink()
    words = ["doctor", "chexpert", str(folder), "--splits", "validate"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "note: the tables list 3 images of the split validate, and 234 were published" in said
    assert "FAULT" not in said
    assert "split train" not in said
    assert "everything chosen is there and whole" in said
    next((folder / "valid").rglob("*frontal.jpg")).unlink()
    assert main(words) == 1
    assert "FAULT: 1 image is missing from folders that are there" in capsys.readouterr().out
    assert main(words[:3]) == 1


# --- MIMIC-CXR-JPG, as it is downloaded


@mimic
def test_a_missing_part_is_told_by_its_folder(folder):
    shutil.rmtree(folder / "files" / "p11")
    told = examine(MIMIC, folder, options={"views": "all"})
    [finding] = told.findings
    assert (finding.kind, finding.count, finding.examples) == ("folder-missing", 3, ("files/p11 (3)",))
    assert len(told.to_fetch) == 3


@mimic
def test_without_any_image_the_list_holds_all_of_the_chosen_ones(folder):
    shutil.rmtree(folder / "files")
    every = examine(MIMIC, folder, options={"views": "all"})
    assert len(every.to_fetch) == 18
    frontal = examine(MIMIC, folder, splits=["test"])
    assert 0 < len(frontal.to_fetch) < 6
    assert set(frontal.to_fetch) < set(every.to_fetch)
    with pytest.raises(UserError, match="no image lies in the split 'dev'"):
        examine(MIMIC, folder, splits=["dev"])


@mimic
def test_a_folder_above_or_below_is_told(folder):
    [first, *_] = examine(MIMIC, folder.parent).findings
    assert first.kind == "table-missing"
    assert f"one lies in {MIMIC}: give that folder" in first.remedy
    [first, *_] = examine(MIMIC, folder / "files").findings
    assert f"one lies in {folder}: give that folder" in first.remedy


@mimic
def test_images_that_lie_elsewhere_are_told(folder):
    victim = images(folder)[0]
    victim.rename(folder / victim.name)
    [finding] = examine(MIMIC, folder).findings
    assert f"lie elsewhere, such as {victim.name}" in finding.remedy


@mimic
def test_archives_are_told_where_images_are_missing(folder):
    (folder / "p11.tar.gz").touch()
    assert kinds(folder) == {}
    shutil.rmtree(folder / "files")
    assert kinds(folder)["archives"] == 1


@mimic
@pytest.mark.parametrize("content", [b"", gzip.compress(b"a,b\n" * 500, mtime=0)[:25], b"<html>Log in</html>"])
def test_a_damaged_table_is_told(folder, content):
    (folder / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(content)
    told = examine(MIMIC, folder)
    assert told.findings[0].kind == "table-damaged"
    assert ("web page" in told.findings[0].what) == (b"<html" in content)
    assert told.to_fetch == ("mimic-cxr-2.0.0-split.csv.gz",)


@mimic
def test_checksums_are_compared_where_they_lie_in_the_folder(folder):
    sums = "".join(f"{sha256(file)}  {file.relative_to(folder)}\n" for file in folder.rglob("*.jpg"))
    (folder / "SHA256SUMS.txt").write_text(sums)
    assert kinds(folder, thorough=True) == {}
    victim = images(folder)[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1  # decodes, and nobody would see it
    victim.write_bytes(content)
    assert kinds(folder) == {}
    assert kinds(folder, thorough=True) == {"image-changed": 1}


@mimic
def test_nothing_is_read_or_fetched_through_links_that_lead_out(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    victim, other = images(folder)[0], images(folder)[-1]
    (secret / victim.name).write_bytes(victim.read_bytes())
    victim.unlink()
    victim.symlink_to(secret / victim.name)
    shutil.move(other.parent, secret / "study")
    other.parent.symlink_to(secret / "study")
    told = examine(MIMIC, folder)
    [finding] = told.findings
    assert finding.kind == "image-outside"
    assert {str(place.relative_to(folder)) for place in (victim, other)} <= {*finding.examples}
    assert told.to_fetch == ()  # a download through a link would overwrite what it leads to
    assert kinds(folder, follow_links=True, thorough=True) == {}
    (secret / victim.name).write_bytes(b"")
    told = examine(MIMIC, folder, follow_links=True)
    assert [finding.kind for finding in told.findings] == ["image-empty"]
    assert told.to_fetch == ()


@mimic
def test_links_inside_the_folder_are_followed_and_circles_left(folder):
    (folder / "store").mkdir()
    victim = images(folder)[0]
    victim.rename(folder / "store" / "blob")
    victim.symlink_to(folder / "store" / "blob")
    (folder / "files" / "again").symlink_to(folder)
    assert kinds(folder) == {}
    assert len(walk(folder, 2).folders) < 200


# --- the command


@mimic
def test_exit_codes_list_and_the_command_that_fetches(folder, tmp_path, capsys):
    words = ["doctor", MIMIC, str(folder), "--list", str(tmp_path / "list.txt")]
    assert main(words) == 0
    assert (tmp_path / "list.txt").read_text() == ""
    assert "everything chosen is there and whole" in capsys.readouterr().out
    victim = images(folder)[0]
    victim.unlink()
    assert main(words) == 1
    assert (tmp_path / "list.txt").read_text() == f"{victim.relative_to(folder)}\n"
    said = capsys.readouterr().out
    assert "FAULT: 1 image is missing" in said or "FAULT: 1 folder is missing" in said
    assert f"-P {folder} --base=https://physionet.org/files/mimic-cxr-jpg/2.1.0/ -i {tmp_path}/list.txt" in said
    assert main(["doctor", MIMIC, str(tmp_path / "nowhere")]) == 2


@mimic
def test_json_holds_everything(folder, capsys):
    images(folder)[0].unlink()
    assert main(["doctor", MIMIC, str(folder), "--json", "--thorough", "--workers", "1"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["whole"] is False
    assert len(said["to_fetch"]) == 1
    assert {"kind", "what", "remedy", "count", "examples", "harmless"} == set(said["findings"][0])


# --- its parts


@given(
    patients=st.lists(st.sampled_from([f"p{i}" for i in range(40)]), min_size=1, max_size=80),
    shares=st.tuples(*[st.floats(0.01, 1)] * 2),
    seed=st.integers(0, 9),
)
def test_chosen_shares_are_nested_and_leave_other_splits_whole(patients, shares, seed):
    split = ["test" if patient.endswith("7") else "train" for patient in patients]
    index = pd.DataFrame({"patient_id": patients, "split": split, "row": range(len(patients))})
    few, many = (chosen(index, (), share, seed) for share in sorted(shares)) if "train" in split else (index, index)
    assert set(few["row"]) <= set(many["row"])
    assert (few["split"] == "test").sum() == split.count("test")
    train = few[few["split"] == "train"]
    for patient in train["patient_id"].unique():
        assert (train["patient_id"] == patient).sum() == patients.count(patient)


@pytest.mark.parametrize(
    ("head", "tail", "reason"),
    [
        (b"\xff\xd8\xff\xe0", b"\xff\xd9", None),
        (b"\xff\xd8\xff\xe0", b"\xff\xd9\0\0\n", None),
        (b"\xff\xd8\xff\xe0", b"\0" * 64, "truncated"),
        (b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82", None),
        (b"\x89PNG\r\n\x1a\n", b"", "truncated"),
        (b"\0" * 128 + b"DICM", b"", None),
        (b"<HTML>", b"", "a web page"),
        (b"GIF89a", b"", "neither JPEG, PNG nor DICOM"),
    ],
)
def test_what_first_and_last_bytes_tell(head, tail, reason):
    assert fault_of(head, tail) == reason


@pytest.mark.campaign
def test_a_hundred_thousand_files_are_found_within_seconds(tmp_path):
    for study in range(50_000):
        place = tmp_path / f"p{study % 10}" / f"s{study}"
        place.mkdir(parents=True)
        for image in range(2):
            (place / f"{image}.jpg").touch()
    start = time.perf_counter()
    tree = walk(tmp_path, 8)
    assert len(tree.sizes) == 100_000
    assert time.perf_counter() - start < 20


# --- the list


def test_a_list_that_cannot_be_written_is_refused_before_anything_is_looked_at(tmp_path):
    for place, told in ((tmp_path, "is a folder"), (tmp_path / "no" / "list.txt", "does not exist")):
        with pytest.raises(UserError, match=told):
            run_command("doctor", ["nih14", str(tmp_path / "nowhere"), "--list", str(place)])
    assert not list(tmp_path.iterdir())
