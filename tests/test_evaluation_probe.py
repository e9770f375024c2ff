"""Probes on a small pack: they read features, choose on one split and are judged on another."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from chexmsn.core.batch import to_images
from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load, names
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy
from chexmsn.data.pack import open_pack
from chexmsn.data.prepare import prepare
from chexmsn.evaluation.features import features_of
from chexmsn.evaluation.judgement import TABLES
from chexmsn.evaluation.probe import ProbeConfig, probe
from chexmsn.evaluation.probes._base import Bank
from chexmsn.evaluation.results import COLUMNS
from chexmsn.evaluation.scoring import Parts
from chexmsn.metrics.neighbours import knn_scores
from chexmsn.models.artefact import load_encoder, save_encoder
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.recipes.arguments import run_command
from chexmsn.report.build import build_report
from chexmsn.report.results import read_run
from chexmsn.views import evaluation_view
from evaluation_folders import NIH, SIZE, write_pack

PROBES = names("chexmsn.evaluation.probes")
NETWORK = EncoderConfig(name="vit_micro", patch=8, size=SIZE, mean=0.45, std=0.2)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A pack, an encoder, and a finished probe of each kind."""
    home = tmp_path_factory.mktemp("probe")
    write_pack(home / "nih", images=90)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = build_encoder(NETWORK)
    seen = [{"corruption": "gaussian-blur"}]
    about = {"pretraining": {"config": {"method": "msn"}, "corruptions_seen": seen}}
    save_encoder(home / "msn" / "encoder", encoder, about)
    (home / "msn" / "history.csv").write_text("epoch,train/loss\n1,0.5\n")
    for method in PROBES:
        probe(asked(home, method, out=home / method))
    return home


def asked(home: Path, method: str = "knn", **changes) -> ProbeConfig:
    options = {
        "data": home / "nih" / "pack",
        "encoder_from": home / "msn",
        "method": method,
        "options": load("chexmsn.evaluation.probes", method).Config(),
        "resamples": 20,
        "device": "cpu",
    }
    return ProbeConfig(**options | changes)


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def read(home: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of a split, without the functions that the probe uses."""
    pack = open_pack(home / "nih" / "pack")
    images = to_images(torch.from_numpy(pack.images[pack.rows([split])]))
    with torch.inference_mode():
        features = load_encoder(home / "msn").eval()(evaluation_view(images, SIZE)).pooled
    return features.numpy(), pack.raw_labels(pack.findings)[pack.rows([split])]


def scores_of(folder: Path) -> np.ndarray:
    return pd.read_parquet(folder / "scores.parquet").filter(like="score:").to_numpy()


def toy_bank(seed: int = 0, missing: float = 0.2) -> tuple[Bank, torch.Tensor]:
    """Two findings that the features tell, some labels missing; and features to score."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(80, 5, generator=generator)
    labels = (features[:, :2] + 0.5 * torch.randn(80, 2, generator=generator) > 0).float()
    labels[torch.rand(80, 2, generator=generator) < missing] = torch.nan
    return Bank(features, labels), torch.randn(30, 5, generator=generator)


# --- every probe


@pytest.mark.parametrize("method", PROBES)
def test_scores_are_probabilities_for_every_setting(method):
    module, (bank, queries) = load("chexmsn.evaluation.probes", method), toy_bank()
    reader = module.Probe(module.Config(), bank)
    scores = reader.scores(queries, reader.settings)
    assert len(scores) == len(reader.settings) > 1
    for one, setting in zip(scores, reader.settings, strict=True):
        assert one.shape == (30, 2) and one.min() >= 0 and one.max() <= 1
        np.testing.assert_allclose(reader.scores(queries, [setting])[0], one, atol=1e-6)
        assert roc_auc_score(queries[:, 0] > 0, one[:, 0]) > 0.85


def test_a_missing_label_leaves_an_image_out_of_that_regression_alone():
    module, (bank, queries) = load("chexmsn.evaluation.probes", "logistic"), toy_bank()
    (ours,) = module.Probe(module.Config(), bank).scores(queries, [{"C": 0.1}])
    scaler = StandardScaler().fit(bank.features.double().numpy())
    for finding, labels in enumerate(bank.labels.T):
        known = ~labels.isnan()
        model = LogisticRegression(C=0.1).fit(scaler.transform(bank.features[known].double()), labels[known])
        wanted = model.predict_proba(scaler.transform(queries.double()))[:, 1]
        np.testing.assert_allclose(ours[:, finding], wanted, atol=1e-6)


def test_a_regression_that_is_stopped_is_told(monkeypatch, caplog):
    module, (bank, queries) = load("chexmsn.evaluation.probes", "logistic"), toy_bank()
    monkeypatch.setattr(module, "PASSES", 2)
    module.Probe(module.Config(), bank).scores(queries, [{"C": 10.0}, {"C": 10.0}])
    assert caplog.text.count("C = 10: 2 of 2 regressions stopped after 2 passes") == 1


@pytest.mark.parametrize("method", PROBES)
def test_the_files_of_a_probe_are_those_of_a_stress_test(home, method):
    folder = home / method
    assert {path.name for path in folder.iterdir()} == {
        *("run.json", "scores.parquet", "labels.parquet", "results.csv", "pretraining.csv"),
        *(f"{name}.parquet" for name in TABLES if name != "operating"),  # these models have no thresholds
    }
    results = pd.read_parquet(folder / "results.parquet")
    assert tuple(results.columns) == COLUMNS
    assert set(results["corruption"]) == {"clean"}
    labels, scores = (pd.read_parquet(folder / f"{name}.parquet") for name in ("labels", "scores"))
    assert scores["image_key"].tolist() == labels["image_key"].tolist()
    value = results.query("finding == 'Mass' and metric == 'auroc'")["value"].item()
    assert value == pytest.approx(roc_auc_score(labels["label:Mass"], scores["score:Mass"]))


@pytest.mark.parametrize("method", PROBES)
def test_the_record_says_what_was_tried_and_chosen(home, method):
    record = record_of(home / method)
    assert (record["kind"], record["status"], record["schema_version"]) == ("probe", "finished", 1)
    assert record["model"]["name"] == f"msn-{method}" and record["model"]["method"] == f"msn + {method}"
    assert record["data"]["split"] == "test" and record["data"]["images"] == 30
    assert record["seen_in_training"] == ["gaussian-blur"]
    best = max(record["tried_on_validation"], key=lambda tried: tried["macro_auroc"])
    assert record["chosen"].items() <= best.items()


def test_the_choice_is_made_on_validation_alone(home):
    """The recorded merits are those of the validation split, computed here in another way."""
    (fitted, labels), (queries, wanted) = read(home, "train"), read(home, "validate")
    for tried in record_of(home / "knn")["tried_on_validation"]:
        setting = {"k": tried["k"], "temperature": tried["temperature"]}
        scores = knn_scores(*map(torch.from_numpy, (queries, fitted, labels)), **setting)
        assert roc_auc_score(wanted, scores.numpy(), average="macro") == pytest.approx(tried["macro_auroc"], abs=1e-6)


def test_neighbours_score_the_test_split(home):
    (fitted, labels), (queries, _) = read(home, "train"), read(home, "test")
    wanted = knn_scores(*map(torch.from_numpy, (queries, fitted, labels)), **record_of(home / "knn")["chosen"])
    np.testing.assert_allclose(scores_of(home / "knn"), wanted.numpy(), atol=1e-5)


def test_regressions_score_the_test_split(home):
    (fitted, labels), (queries, _) = read(home, "train"), read(home, "test")
    scaler = StandardScaler().fit(fitted.astype(np.float64))
    model = LogisticRegression(**record_of(home / "logistic")["chosen"], max_iter=1000)
    for finding, scores in zip(labels.T, scores_of(home / "logistic").T, strict=True):
        model.fit(scaler.transform(fitted.astype(np.float64)), finding)
        wanted = model.predict_proba(scaler.transform(queries.astype(np.float64)))[:, 1]
        np.testing.assert_allclose(scores, wanted, atol=1e-4)


def test_the_report_reads_probes_beside_each_other(home, tmp_path):
    runs = [home / method for method in PROBES]
    assert [read_run(folder).label for folder in runs] == ["msn-knn", "msn-logistic"]
    assert "msn-logistic" in build_report(runs, tmp_path / "report", title="Probes", note=None).read_text()


# --- resuming, random weights, options


def test_a_stopped_probe_goes_on(home, tmp_path, monkeypatch):
    keep = Parts.keep

    def stop_in_the_second_split(parts, *kept):
        if parts.folder.name == "validate":
            raise KeyboardInterrupt
        keep(parts, *kept)

    monkeypatch.setattr(Parts, "keep", stop_in_the_second_split)
    with pytest.raises(KeyboardInterrupt):
        probe(asked(home, out=tmp_path / "run", batch_size=7))
    assert record_of(tmp_path / "run")["status"] == "running"
    made = []
    monkeypatch.setattr(Parts, "keep", lambda parts, *kept: (made.append(parts.folder.name), keep(parts, *kept)))
    probe(asked(home, out=tmp_path / "run"))
    assert set(made) == {"validate", "test"}
    np.testing.assert_allclose(scores_of(tmp_path / "run"), scores_of(home / "knn"), atol=1e-5)
    assert not (tmp_path / "run" / "parts").exists()


def test_a_finished_probe_says_so_and_another_one_is_refused(home, caplog):
    with caplog.at_level("INFO"):
        probe(asked(home, out=home / "knn", batch_size=7))
    assert "is finished: nothing to do" in caplog.text
    with pytest.raises(UserError, match="features: "):
        probe(asked(home, out=home / "knn", features="before-norm"))


def test_random_weights_are_a_baseline(home, tmp_path):
    folders = [
        probe(asked(home, encoder_from=None, encoder=NETWORK, seed=seed, out=tmp_path / f"{i}"))
        for i, seed in enumerate((0, 0, 1))
    ]
    assert record_of(folders[0])["model"]["name"] == "random-knn"
    assert np.array_equal(scores_of(folders[0]), scores_of(folders[1]))
    assert not np.array_equal(scores_of(folders[0]), scores_of(folders[2]))


def test_msns_low_shot_evaluation(home, tmp_path):
    """Each sample centred and of unit length, no intercept, on the class token before the last LayerNorm."""
    options = load("chexmsn.evaluation.probes", "logistic").Config(C=(400.0,), scaling="per-sample")
    folder = probe(asked(home, "logistic", out=tmp_path / "run", options=options, features="before-norm"))
    pack = open_pack(home / "nih" / "pack")
    encoder = load_encoder(home / "msn")
    scaled = []
    for split in ("train", "test"):
        images = Collection([pack], [split])
        features = features_of(images, encoder, "before-norm", Parts(tmp_path / split), batch_size=8).astype(np.float64)
        centred = features - features.mean(axis=1, keepdims=True)
        scaled.append(centred / np.sqrt((centred**2).sum(axis=1, keepdims=True)))
    labels = Collection([pack], ["train"]).labels(pack.findings, Policy())
    model = LogisticRegression(C=400.0, fit_intercept=False, max_iter=1000).fit(scaled[0], labels[:, 0])
    np.testing.assert_allclose(scores_of(folder)[:, 0], model.predict_proba(scaled[1])[:, 1], atol=1e-4)


def test_features_are_those_of_the_evaluation_view_in_whatever_batches(home, tmp_path):
    encoder, images = load_encoder(home / "msn"), Collection([open_pack(home / "nih" / "pack")], ["test"])
    few, many = (
        features_of(images, encoder, "pooled", Parts(tmp_path / str(size)), batch_size=size) for size in (7, 64)
    )
    np.testing.assert_allclose(few, many, atol=1e-5)
    np.testing.assert_allclose(many, read(home, "test")[0], atol=1e-5)


def test_the_command(home, tmp_path):
    words = (
        f"--data {home / 'nih' / 'pack'} --encoder_from {home / 'msn'} --out {tmp_path / 'run'} --device cpu".split()
    )
    run_command("probe", [*words, "--method", "knn", "--options.k", "[3]", "--resamples", "20"])
    record = record_of(tmp_path / "run")
    assert record["chosen"]["k"] == 3 and len(record["tried_on_validation"]) == 4


# --- bad input


def test_bad_options(home, tmp_path):
    knn, logistic = (load("chexmsn.evaluation.probes", name) for name in ("knn", "logistic"))
    for make, message in [
        (lambda: asked(home, out=tmp_path, encoder=NETWORK), "takes encoder_from, or encoder"),
        (lambda: asked(home, out=tmp_path, encoder_from=None), "takes encoder_from, or encoder"),
        (lambda: asked(home, out=tmp_path, split="train"), "'train' comes twice"),
        (lambda: asked(home, out=tmp_path, resamples=0), "resamples must be at least 1"),
        (lambda: asked(home, out=tmp_path, labels=Policy(uncertain="smooth")), "choose zeros, ones or ignore"),
        (lambda: knn.Config(k=(0,)), "k must be at least 1"),
        (lambda: knn.Config(temperature=(0.1, 0.2, -1.0)), "temperature must be above 0"),
        (lambda: logistic.Config(C=(0.0,)), "C must be above 0"),
    ]:
        with pytest.raises(UserError, match=message):
            make()


def test_an_encoder_of_an_unfinished_run_is_told(home, tmp_path, caplog):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=r"give the run.s command again, or name .*last\.ckpt"):
        probe(asked(home, encoder_from=tmp_path / "run", out=tmp_path / "out"))
    save_encoder(tmp_path / "run" / "encoder", load_encoder(home / "msn"), {})
    (tmp_path / "run" / "run.json").write_text('{"status": "running"}')
    probe(asked(home, encoder_from=tmp_path / "run", out=tmp_path / "out"))
    assert "run is not finished" in caplog.text


def test_findings_of_one_class_are_left_out_or_refused(home, tmp_path, caplog):
    source = home / "nih" / "source"
    table = pd.read_csv(source / "labels.csv")
    for name, splits, findings in [
        ("some", ["train"], ["Effusion"]),
        ("all", ["train"], list(NIH)),
        ("no-choice", ["validate"], list(NIH)),
    ]:
        changed = table.copy()
        changed.loc[changed["split"].isin(splits), findings] = 0
        changed.to_csv(source / f"{name}.csv", index=False)
        options = {"table": f"{name}.csv", "split": "split", "findings": list(NIH)}
        prepare("csv", source, tmp_path / name, options=options, size=37, workers=1)
    with caplog.at_level("INFO"):
        probe(asked(home, data=tmp_path / "some", out=tmp_path / "run"))
    assert "no positive or no negative label in the splits train" in caplog.text
    assert record_of(tmp_path / "run")["findings"] == ["Cardiomegaly", "Mass"]
    with pytest.raises(UserError, match="there is nothing to learn"):
        probe(asked(home, data=tmp_path / "all", out=tmp_path / "out"))
    with pytest.raises(UserError, match="choose another validate_split"):
        probe(asked(home, data=tmp_path / "no-choice", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_an_encoder_was_trained_on_cannot_test_it(home, tmp_path):
    fingerprint = open_pack(home / "nih" / "pack").fingerprint
    about = {"pretraining": {"config": {"method": "mae"}, "data": {"packs": {fingerprint: ["train", "test"]}}}}
    save_encoder(tmp_path / "mae" / "encoder", load_encoder(home / "msn"), about)
    with pytest.raises(UserError, match=r"'test'.*was used in the pretraining"):
        probe(asked(home, encoder_from=tmp_path / "mae", out=tmp_path / "out"))


def test_a_diverged_encoder_is_told(home, tmp_path):
    encoder = load_encoder(home / "msn")
    torch.nn.init.constant_(encoder.vit.norm.weight, float("nan"))
    save_encoder(tmp_path / "encoder", encoder, {})
    with pytest.raises(UserError, match="features are not numbers"):
        probe(asked(home, encoder_from=tmp_path, out=tmp_path / "out"))


def test_an_unknown_method_is_told(home, tmp_path):
    with pytest.raises(UserError, match="did you mean knn"):
        run_command("probe", {"method": "kn", "data": str(home / "nih" / "pack"), "out": str(tmp_path / "out")})


def test_features_before_a_norm_are_those_of_a_transformer(home, tmp_path):
    encoder = EncoderConfig(name="resnet18", patch=8, size=32)
    config = asked(home, out=tmp_path / "run", encoder_from=None, encoder=encoder, features="before-norm")
    with pytest.raises(UserError, match="resnet18 has no class token"):
        probe(config)
