"""Probes from end to end: trained by the command, read back, stressed with tokens removed, used on images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from chexmsn.data.pack import open_pack
from chexmsn.models.artefact import load_classifier, load_encoder
from chexmsn.recipes.arguments import run_command

LINEAR = {
    "mae": {"readout": "batch-norm", "optimiser": "lars", "lr": 0.1 * 16 / 256, "warmup_epochs": 10.0},
    "msn": {"readout": "layer-norm", "optimiser": "nesterov-sgd", "lr": 6.4 * 16 / 8192, "warmup_epochs": 0.0},
}
PUBLISHED = {"weight_decay": 0.0, "scale": [0.08, 1.0], "flip": 0.5}


def train(small_run, out: Path, method: str, **options) -> Path:
    shared = {"data": [str(small_run.pack)], "epochs": 1, "batch_size": 16, "device": "cpu"}
    start = {"encoder_from": str(small_run.encoder), "method": method, "out": str(out)}
    return run_command("train", shared | start | {"options": options})


@pytest.fixture(scope="module")
def attentive(small_run, tmp_path_factory) -> Path:
    return train(small_run, tmp_path_factory.mktemp("attentive") / "run", "attentive-probe", lr=1e-2)


def test_an_attentive_probe_is_kept_whole(attentive, small_run):
    artefact = load_classifier(attentive)
    assert artefact.classifier.reads == "attentive"
    (last,) = (attentive / "checkpoints").glob("last*.ckpt")
    images = torch.rand(2, 1, 48, 48)
    # after one epoch the best classifier is the last one
    assert torch.equal(load_classifier(last).classifier(images), artefact.classifier(images))
    pretrained, probed = (load_encoder(path).eval()(images).pooled for path in (small_run.encoder, attentive))
    assert torch.equal(pretrained, probed)


def test_an_attentive_probe_is_stressed(attentive, small_run, tmp_path):
    words = [attentive, small_run.pack, "--out", tmp_path / "stress", "--device", "cpu", "--resamples", "20"]
    conditions = ["--conditions", "tokens-removed:0.5", "patches-black:0.5"]
    folder = run_command("stress", [*map(str, words), *conditions])
    scores = pd.read_parquet(folder / "scores.parquet").set_index("corruption").filter(like="score:")
    assert scores.stack().between(0, 1).all()
    assert not np.allclose(scores.loc["tokens-removed"], scores.loc["clean"])
    assert not np.allclose(scores.loc["tokens-removed"], scores.loc["patches-black"])
    results = pd.read_parquet(folder / "results.parquet")
    assert set(results.loc[results["corruption"] == "tokens-removed", "status"]) >= {"ok"}


def test_an_attentive_probe_predicts(attentive, small_run, tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.asarray(open_pack(small_run.pack).images[0])).save(tmp_path / "images" / "one.png")
    words = [attentive, tmp_path / "images", "--out", tmp_path / "scores.csv", "--device", "cpu"]
    table = pd.read_csv(run_command("predict", [*map(str, words)]))
    assert table["image"].tolist() == ["one.png"]
    assert table.drop(columns="image").stack().between(0, 1).all()


@pytest.mark.parametrize("whose", LINEAR)
def test_the_published_linear_evaluations_are_settings(whose, small_run, tmp_path):
    run = train(small_run, tmp_path / "run", "linear-probe", **LINEAR[whose], **PUBLISHED)
    classifier = load_classifier(run).classifier
    assert classifier.reads == LINEAR[whose]["readout"]
    assert all(weight.isfinite().all() for weight in classifier.parameters())
