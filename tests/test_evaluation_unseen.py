"""A model is not tested on whom it was trained on: patients are known again in another pack of their collection."""

import json
from pathlib import Path

import numpy as np
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection
from chexmsn.data.pack import open_pack
from chexmsn.data.prepare import prepare
from chexmsn.evaluation.stress import StressConfig, stress
from chexmsn.evaluation.unseen import check_unseen
from chexmsn.training.trained_on import FILE, hashed, keep_trained_on, read_trained_on
from evaluation_folders import NIH, PACK_SIZE, write_images, write_model


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """One collection packed twice with other splits, and a third time under another name of its folder."""
    home = tmp_path_factory.mktemp("unseen")
    for folder in ("hospital", "elsewhere"):
        write_images(home / folder)
    options = {"split": "split", "findings": list(NIH)}
    turned = options | {"splits": {"test": ["train"], "train": ["validate", "test"]}, "key_prefix": "again/"}
    for name, folder, how in (
        ("first", "hospital", options),
        ("turned", "hospital", turned),
        ("other", "elsewhere", turned),
    ):
        prepare("csv", home / folder, home / name, options=how, size=PACK_SIZE, workers=1)
    write_model(home / "model")
    (home / "model" / "run.json").write_text("{}")
    images = Collection([open_pack(home / "first")], ["train"])
    keep_trained_on(home / "model", "training", images, np.arange(len(images)))
    return home


def asked(home: Path, **changes) -> StressConfig:
    options = {"model": home / "model", "conditions": ("clean",), "resamples": 20, "device": "cpu"}
    return StressConfig(**options | changes)


def test_patients_of_training_are_known_again_in_another_pack(home, tmp_path):
    told = r"5 of the 5 patients in .*turned \(test\) were in the training of .*model, in a pack of the same collection"
    with pytest.raises(UserError, match=told):
        stress(asked(home, data=home / "turned", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    for place in ("model/classifier", "model/classifier/classifier.safetensors"):
        with pytest.raises(UserError, match="5 of the 5 patients"):
            stress(asked(home, model=home / place, data=home / "turned", out=tmp_path / "run"))


def test_a_model_of_several_collections_knows_the_patients_of_each(home, tmp_path):
    write_model(tmp_path / "model")
    (tmp_path / "model" / "run.json").write_text("{}")
    write_images(tmp_path / "third", NIH[:1], images=12)
    options = {"split_as": "train", "findings": [NIH[0]], "key_prefix": "third/"}
    third = prepare("csv", tmp_path / "third", tmp_path / "pack", options=options, size=PACK_SIZE, workers=1)
    images = Collection([open_pack(home / "first"), third], ["train"])
    keep_trained_on(tmp_path / "model", "pretraining", images, np.arange(len(images)))
    with pytest.raises(UserError, match=r"5 of the 5 patients .* were in the pretraining"):
        stress(asked(home, model=tmp_path / "model", data=home / "turned", out=tmp_path / "run"))


def test_other_patients_of_the_collection_may_test(home, tmp_path):
    stress(asked(home, data=home / "first", out=tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["patients_of_training"] == "none of the 5 tested patients is among the 5 of training"


def test_the_same_names_in_another_collection_are_a_doubt(home, tmp_path):
    stress(asked(home, data=home / "other", out=tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "5 of 5 tested patients are called as patients of hospital" in record["doubts"][0]


def test_a_model_without_its_run_can_only_be_checked_by_packs_and_splits(home, tmp_path):
    write_model(tmp_path / "model")
    images = Collection([open_pack(home / "turned")], ["test"])
    assert check_unseen(images, {}, tmp_path / "model")["patients_of_training"].startswith(
        "its patients are not recorded"
    )


def test_runs_keep_whom_they_were_trained_on_and_nobody_by_name(small_run):
    table = read_trained_on(small_run.classifier / "checkpoints" / "last.ckpt")
    everybody = set(Collection([open_pack(small_run.pack)], ["train"]).patients)
    for stage in ("pretraining", "training"):
        assert sorted(table.loc[table["stage"] == stage, "patient"]) == sorted(hashed(everybody))
    assert set(table["origin"]) == {"phantom-0"} and list(table) == ["stage", "origin", "patient"]
    assert len(list(small_run.classifier.rglob(FILE))) == 1, "it goes into no artefact"
