"""What every source promises. The suite walks the folder: a new file gets its tests without another edit."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.data.labels import CHEXPERT_FINDINGS, canonical
from chexmsn.data.pack import IMAGES, INDEX, INFO, LEFT_OUT, open_pack, verify
from chexmsn.data.prepare import SOURCES, prepare
from chexmsn.data.source import LABEL, NUMBER_COLUMNS, TEXT_COLUMNS, Source, make_config
from chexmsn.data.splits import SPLITS
from chexmsn.recipes.arguments import run_command

NAMES = lookup.names(SOURCES)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(name) / "look-alike"
    lookup.load(SOURCES, name).fake(folder, patients=6, seed=1)
    return folder


@pytest.fixture(scope="module")
def pack(name, folder, tmp_path_factory):
    return prepare(name, folder, tmp_path_factory.mktemp("packs") / name, size=32, workers=1)


def test_the_three_sources_are_there():
    assert {"csv", "mimic-cxr-jpg", "phantom"} <= set(NAMES)


def test_it_says_what_it_is_and_each_option_has_a_default(name):
    module = lookup.load(SOURCES, name)
    assert isinstance(module.SOURCE, Source)
    assert module.SOURCE.title
    assert module.SOURCE.licence
    config = make_config(module, {})
    assert [field.name for field in fields(config)] == [field.name for field in fields(module.Config)]


def test_an_unknown_option_is_refused_with_those_there_are(name):
    with pytest.raises(UserError, match=r"misspelt.*its options are"):
        make_config(lookup.load(SOURCES, name), {"misspelt": 1})


def test_its_look_alike_reads_as_a_table(name, folder):
    module = lookup.load(SOURCES, name)
    table = module.read(folder, make_config(module, {}))
    labels = [column for column in table.columns if column.startswith(LABEL)]
    assert list(table.columns) == ["path", *TEXT_COLUMNS, *NUMBER_COLUMNS, *labels]
    assert table["image_key"].is_unique
    assert table["patient_id"].notna().all()
    assert set(table["split"]) <= set(SPLITS)
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    assert all(canonical(column.removeprefix(LABEL)) == column.removeprefix(LABEL) for column in labels)
    assert set(np.unique(table[labels].to_numpy(np.float32, na_value=9))) <= {-1, 0, 1, 9}


def test_its_look_alike_is_the_same_every_time(name, folder, tmp_path):
    lookup.load(SOURCES, name).fake(tmp_path, patients=6, seed=1)
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file())
    assert all((folder / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_its_look_alike_may_be_of_one_patient_and_any_seed(name, tmp_path):
    run_command("fake", [name, str(tmp_path / "fake"), "--patients", "1", "--seed", "-1", "--size", "64"])
    assert any(file.is_file() for file in (tmp_path / "fake").rglob("*"))


def test_its_look_alike_becomes_a_pack(name, folder, pack):
    module = lookup.load(SOURCES, name)
    table = module.read(folder, make_config(module, {}))
    assert pack.images.shape == (len(table), 32, 32)
    assert pack.images.dtype == np.uint8
    assert pack.index["image_key"].tolist() == table["image_key"].tolist()
    assert pack.info["source"] == name
    assert pack.info["left_out"] == 0
    assert sum(pack.info["splits"].values()) == len(table)
    assert pack.images.reshape(len(table), -1).std(axis=1).min() > 5, "an image of the look-alike is empty"
    assert pack.index["content_hash"].is_unique
    verify(pack)


def test_mean_and_deviation_are_those_of_the_training_pixels(pack):
    pixels = pack.images[pack.rows(["train"])] / 255
    assert pack.mean == pytest.approx(pixels.mean(), abs=1e-9)
    assert pack.std == pytest.approx(pixels.std(), abs=1e-9)


def test_a_pack_is_the_same_whatever_the_number_of_workers(name, folder, pack, tmp_path, monkeypatch):
    monkeypatch.setattr("chexmsn.data.prepare.CHUNK", 3)
    prepare(name, folder, tmp_path / name, size=32, workers=2)
    for file in (IMAGES, INDEX, INFO, LEFT_OUT):
        assert (tmp_path / name / file).read_bytes() == (pack.folder / file).read_bytes(), file
    assert not list(tmp_path.glob("*.partial"))


def test_no_such_folder_is_one_clear_line(name, tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere") as raised:
        prepare(name, tmp_path / "nowhere", tmp_path / "pack", workers=1)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_told_what_it_lacks(name, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"\.(csv|json|dcm|npz)"):
        prepare(name, tmp_path / "empty", tmp_path / "pack", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert (caplog.messages, capsys.readouterr().err) == ([], ""), "one line, and that is the error"


def test_splits_and_labels_of_the_pack(pack):
    every = pack.rows(list(pack.info["splits"]))
    assert every.tolist() == list(range(len(pack)))
    assert pack.raw_labels(pack.findings).shape == (len(pack), len(pack.findings))
    with pytest.raises(UserError, match="no split 'elsewhere'"):
        pack.rows(["elsewhere"])
    with pytest.raises(UserError, match="no labels of Scurvy"):
        pack.raw_labels(["Scurvy"])


@pytest.mark.parametrize("source", ["mimic-cxr-jpg", "phantom"])
def test_sources_of_chexpert_labels_have_all_fourteen(source, tmp_path):
    lookup.load(SOURCES, source).fake(tmp_path / "fake", patients=4)
    pack = prepare(source, tmp_path / "fake", tmp_path / "pack", size=16, workers=1)
    assert set(pack.findings) == set(CHEXPERT_FINDINGS)
    assert open_pack(pack.folder).fingerprint == pack.fingerprint
