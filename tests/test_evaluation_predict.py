"""Probabilities for a folder of images."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from chexmsn.core.errors import UserError
from chexmsn.evaluation.predict import PredictConfig, predict
from chexmsn.evaluation.stress import StressConfig, stress
from chexmsn.models.artefact import load_classifier, save_classifier
from evaluation_folders import write_model, write_pack


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("predict")
    write_pack(home)
    write_model(home / "model")
    return home


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Images of many kinds in subfolders, with some that are none."""
    folder = tmp_path / "mixed"
    (folder / "b").mkdir(parents=True)
    gray = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 60), dtype=np.uint8))
    gray.save(folder / "b" / "z.jpg")
    gray.resize((200, 100)).convert("RGB").save(folder / "b" / "a.PNG")
    gray.save(folder / "c.jpeg")
    (folder / "empty.jpg").touch()
    (folder / "broken.png").write_bytes((folder / "b" / "a.PNG").read_bytes()[:200])
    (folder / "notes.txt").write_text("not an image")
    return folder


def asked(home: Path, out: Path, images: Path, **changes) -> PredictConfig:
    return PredictConfig(model=home / "model", images=images, out=out, device="cpu", **changes)


def test_one_row_per_image_sorted_and_the_unreadable_listed(home, mixed, tmp_path, caplog):
    out = predict(asked(home, tmp_path / "p.csv", mixed))
    table = pd.read_csv(out)
    assert table["image"].tolist() == ["b/a.PNG", "b/z.jpg", "c.jpeg"]
    assert table.columns.tolist() == ["image", "Cardiomegaly", "Edema", "Pleural Effusion"]
    assert table.drop(columns="image").stack().between(0, 1).all()
    faults = pd.read_csv(tmp_path / "p.unreadable.csv").set_index("image")["reason"]
    assert faults.index.tolist() == ["broken.png", "empty.jpg"] and faults["empty.jpg"] == "empty file"
    assert "2 images could not be read" in caplog.text


def test_scores_are_those_of_the_stress_test_on_clean_images(home, tmp_path):
    stress(
        StressConfig(
            model=home / "model",
            data=home / "pack",
            out=tmp_path / "run",
            conditions=("clean",),
            resamples=5,
            device="cpu",
        )
    )
    clean = pd.read_parquet(tmp_path / "run" / "scores.parquet").set_index("image_key")["score:Pleural Effusion"]
    table = pd.read_csv(predict(asked(home, tmp_path / "p.csv", home / "source"))).set_index("image")
    np.testing.assert_allclose(table.loc[clean.index, "Pleural Effusion"], clean, atol=1e-6)


def test_batch_size_and_workers_change_nothing(home, mixed, tmp_path):
    tables = [
        pd.read_csv(predict(asked(home, tmp_path / f"{workers}.csv", mixed, batch_size=batch, workers=workers)))
        for batch, workers in ((64, 0), (1, 0), (2, 1))
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1], atol=1e-6)
    pd.testing.assert_frame_equal(tables[0], tables[2], atol=1e-6)


def test_an_old_list_of_the_unreadable_goes(home, mixed, tmp_path):
    predict(asked(home, tmp_path / "p.csv", mixed))
    (mixed / "empty.jpg").unlink()
    (mixed / "broken.png").unlink()
    predict(asked(home, tmp_path / "p.csv", mixed))
    assert not (tmp_path / "p.unreadable.csv").exists()


def test_nothing_readable(home, mixed, tmp_path):
    shutil.rmtree(mixed / "b")
    (mixed / "c.jpeg").unlink()
    with pytest.raises(UserError, match=r"none of the 2 images .* could be read: see .*p.unreadable.csv"):
        predict(asked(home, tmp_path / "p.csv", mixed))
    assert not (tmp_path / "p.csv").exists() and (tmp_path / "p.unreadable.csv").exists()


def test_bad_folders(home, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        predict(asked(home, tmp_path / "p.csv", tmp_path / "nowhere"))
    (tmp_path / "texts").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        predict(asked(home, tmp_path / "p.csv", tmp_path / "texts"))
    with pytest.raises(UserError, match="is a folder: add a file name"):
        predict(asked(home, tmp_path, home / "source"))
    assert not (tmp_path / "p.csv").exists()
    os.mkfifo(tmp_path / "pipe")  # as /dev/stdout is one: a file in its place would be lost on everybody
    with pytest.raises(UserError, match="is none: choose another place"):
        predict(asked(home, tmp_path / "pipe", home / "source"))


def test_a_model_that_diverged_is_told(home, tmp_path):
    classifier = load_classifier(home / "model").classifier
    torch.nn.init.constant_(classifier.head.weight, float("nan"))
    save_classifier(tmp_path / "model", classifier, thresholds={}, provenance={})
    with pytest.raises(UserError, match="not numbers"):
        predict(asked(tmp_path, tmp_path / "p.csv", home / "source"))
    assert not (tmp_path / "p.csv").exists()
