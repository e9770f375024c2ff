"""The loop and the run folder; resuming exactly is in test_resume.py."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load
from chexmsn.data.labels import Policy
from chexmsn.models.artefact import load_classifier, load_encoder
from chexmsn.models.encoder import EncoderConfig
from chexmsn.training.config import PretrainConfig, TrainConfig
from chexmsn.training.precision import choose_precision
from chexmsn.training.run import pretrain, starting_encoder, train
from chexmsn.training.run_folder import RunFolder

ENCODER = EncoderConfig(name="vit_micro", patch=16, size=48)
OPTIONS = {
    "msn": {"prototypes": 8, "head_hidden": 16, "head_out": 8, "focal_views": 1, "focal_size": 32},
    "mae": {"lr": 1e-3},
    "simsiam": {},
}


def pretraining(pack: Path, out: Path, method: str = "msn", **changes) -> PretrainConfig:
    options = load("chexmsn.methods", method).Config(**OPTIONS[method])
    settings = {"epochs": 2, "batch_size": 16, "device": "cpu"} | changes
    return PretrainConfig(data=(pack,), out=out, method=method, options=options, encoder=ENCODER, **settings)


def downstream(pack: Path, out: Path, method: str = "fine-tune", **changes) -> TrainConfig:
    options = load("chexmsn.methods", method).Config(lr=1e-3)
    settings = {"epochs": 2, "batch_size": 16, "device": "cpu"} | changes
    return TrainConfig(data=(pack,), out=out, method=method, options=options, **settings)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_pretraining_leaves_an_encoder_and_its_record(method, small_pack, tmp_path):
    run = pretrain(pretraining(small_pack, tmp_path / method, method))
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["options"]["corruption"] is None
    assert record["data"]["images"] > 0 and record["data"]["fingerprint"]
    history = pd.read_csv(run / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    assert history["train/loss"].notna().all() and history["validation/loss"].notna().all()
    assert list((run / "logs").rglob("metrics.csv")) and list((run / "logs").rglob("events.*"))
    encoder = load_encoder(run)
    assert encoder.config == ENCODER
    assert encoder(torch.rand(2, 1, 48, 48)).pooled.shape == (2, encoder.width)


def test_a_run_that_diverges_says_so_and_keeps_nothing_of_it(small_pack, tmp_path):
    config = pretraining(small_pack, tmp_path / "run", "simsiam")
    with pytest.raises(UserError, match="diverged in epoch 1"):
        pretrain(replace(config, options=replace(config.options, lr=1e30)))
    assert not (config.out / "encoder").exists() and not RunFolder(config.out).finished


def test_a_finished_run_is_left_alone_and_another_configuration_refused(small_pack, tmp_path):
    config = pretraining(small_pack, tmp_path / "run", epochs=1)
    pretrain(config)
    before = (config.out / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    pretrain(replace(config, workers=1))  # how it computes may change
    assert (config.out / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"seed: 0 before, 1 now"):
        pretrain(replace(config, seed=1))


def test_a_finished_run_whose_encoder_is_damaged_says_so(small_pack, tmp_path):
    config = pretraining(small_pack, tmp_path / "run", "mae", epochs=1)
    weights = pretrain(config) / "encoder" / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"is finished and what it made is damaged .*: its last weights are in .*last"):
        pretrain(config)


def test_training_is_not_judged_on_what_it_learns_from(small_pack, tmp_path):
    with pytest.raises(UserError, match="validate_split 'validate' is among the train_splits"):
        pretraining(small_pack, tmp_path / "run", train_splits=("train", "validate"), validate_split="validate")


def test_a_run_does_not_go_on_with_other_data(small_pack, tmp_path):
    config = pretraining(small_pack, tmp_path / "run", "mae", epochs=1)
    run = RunFolder(pretrain(config))
    run.update(data=run.record["data"] | {"fingerprint": "of another pack"})
    with pytest.raises(UserError, match=r"data\.fingerprint: \"of another pack\" before"):
        pretrain(config)


def test_a_run_does_not_go_on_from_a_damaged_or_foreign_checkpoint(small_pack, small_run, tmp_path):
    config = pretraining(small_pack, tmp_path / "run", epochs=1)
    RunFolder(pretrain(config)).update(status="running")
    last = config.out / "checkpoints" / "last.ckpt"
    shutil.copyfile(small_run.classifier / "checkpoints" / "last.ckpt", last)
    with pytest.raises(UserError, match=r"last.ckpt is not of this run \(.*method: .*delete .*run to start anew"):
        pretrain(config)
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(
        UserError, match=r"cannot go on: .*last.ckpt is not a checkpoint, or .*delete .*run to start anew"
    ):
        pretrain(config)


def test_what_a_kill_leaves_of_a_record_is_no_foreign_file(small_pack, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.x7.json").write_text("{")
    assert RunFolder(pretrain(pretraining(small_pack, tmp_path / "run", "mae", epochs=1))).finished


def test_smooth_labels_are_learnt_and_not_judged_by(small_pack, tmp_path):
    config = downstream(small_pack, tmp_path / "run", "supervised", encoder=ENCODER, epochs=1)
    run = train(replace(config, labels=Policy(uncertain="smooth")))
    assert pd.read_csv(run / "history.csv")["validation/macro_auroc"].between(0, 1).all()


def test_a_record_that_describes_no_run_is_refused(small_pack, tmp_path):
    (tmp_path / "run").mkdir()
    for content in ("{}", "[]"):
        (tmp_path / "run" / "run.json").write_text(content)
        with pytest.raises(UserError, match=r"run.json does not describe a run"):
            pretrain(pretraining(small_pack, tmp_path / "run"))


def test_a_foreign_folder_is_refused(small_pack, tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(UserError, match=r"no run\.json"):
        pretrain(pretraining(small_pack, tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "do not touch"


def test_two_commands_do_not_work_in_one_folder(small_pack, tmp_path):
    config = pretraining(small_pack, tmp_path / "run", epochs=1)
    run = RunFolder(pretrain(config))
    run.update(status="running")  # as if it were not yet finished
    with run.alone(), pytest.raises(UserError, match="another process is at work"):
        pretrain(config)
    assert RunFolder(pretrain(config)).finished


def test_every_start_is_recorded_with_what_it_computed_on(small_pack, tmp_path, caplog):
    config = pretraining(small_pack, tmp_path / "run", "mae", epochs=1)
    run = RunFolder(pretrain(config))
    (first,) = run.record["starts"]
    assert first["device"] == run.record["device"] == {"type": "cpu", "precision": "32-true", "devices": 1, "nodes": 1}
    assert first["versions"] == run.record["versions"] and first["time"] >= run.record["started"]
    pretrain(config)
    assert run.record["starts"] == [first], "a finished run is not started"
    run.update(status="running")
    pretrain(config)
    assert len(run.record["starts"]) == 2 and "precision" not in caplog.text
    on_a_gpu = first | {"device": first["device"] | {"precision": "bf16-mixed"}}
    run.update(status="running", starts=[first, on_a_gpu])
    pretrain(config)
    assert caplog.text.count("in precision bf16-mixed until now and goes on in 32-true") == 1
    assert [start["device"]["precision"] for start in run.record["starts"]] == ["32-true", "bf16-mixed", "32-true"]


@pytest.mark.parametrize("method", ["fine-tune", "linear-probe", "supervised"])
def test_downstream_training_leaves_a_classifier(method, small_pack, small_run, tmp_path):
    start = {"encoder": ENCODER} if method == "supervised" else {"encoder_from": small_run.encoder}
    run = train(downstream(small_pack, tmp_path / "run", method, **start))
    artefact = load_classifier(run)
    history = pd.read_csv(run / "history.csv")
    assert artefact.provenance["epoch"] == history["validation/macro_auroc"].idxmax() + 1
    assert set(artefact.thresholds) <= set(artefact.findings)
    assert (run / "classifier" / "training.csv").is_file()
    assert (run / "classifier" / "pretraining.csv").is_file() == (method != "supervised")
    before = load_encoder(small_run.encoder).state_dict() if method != "supervised" else {}
    after = artefact.classifier.encoder.state_dict()
    unchanged = all(torch.equal(before[name], after[name]) for name in before)
    assert unchanged == (method in ("linear-probe", "supervised"))


def test_early_stopping_ends_a_run_that_no_longer_improves(small_pack, tmp_path):
    config = downstream(
        small_pack, tmp_path / "run", "supervised", encoder=ENCODER, epochs=6, patience=1, min_delta=0.9
    )
    run = train(config)
    RunFolder(run).update(status="running")  # as if it had been killed before it could say that it is done
    before = weights(run)
    train(config)
    assert len(pd.read_csv(run / "history.csv")) == 2
    assert same(before, weights(run))
    assert RunFolder(run).record["status"] == "finished" and RunFolder(run).record["epochs_done"] == 2


def test_a_share_of_the_patients_is_nested(small_pack, tmp_path):
    counts = []
    for share in (0.3, 0.6, 1.0):
        config = downstream(
            small_pack,
            tmp_path / str(share),
            "supervised",
            encoder=ENCODER,
            epochs=1,
            batch_size=4,
            share=share,
            findings=("support_devices",),
            validate_split=None,
        )
        counts.append(RunFolder(train(config)).record["data"])
    assert counts[0]["patients"] < counts[1]["patients"] < counts[2]["patients"]
    assert load_classifier(config.out).findings == ("Support Devices",)


def test_a_checkpoint_of_another_architecture_is_refused(small_pack, small_run, tmp_path):
    other = EncoderConfig(name="vit_tiny", patch=16, size=48)
    with pytest.raises(UserError, match=r"vit_micro.*vit_tiny"):
        train(downstream(small_pack, tmp_path / "run", encoder_from=small_run.encoder, encoder=other))
    assert not (tmp_path / "run").exists()


def test_an_encoder_of_an_unfinished_run_is_told(small_pack, tmp_path, caplog):
    run = RunFolder(pretrain(pretraining(small_pack, tmp_path / "mae", "mae", epochs=1)))
    run.update(status="running")
    starting_encoder(downstream(small_pack, tmp_path / "run", encoder_from=run.path))
    assert "mae is not finished" in caplog.text


def test_a_folder_that_cannot_be_made_is_told(small_pack, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        pretrain(pretraining(small_pack, tmp_path / "file" / "run", "mae", epochs=1))


def test_fine_tuning_without_pretraining_is_refused(small_pack, tmp_path):
    with pytest.raises(UserError, match="needs a pretrained encoder"):
        train(downstream(small_pack, tmp_path / "run"))


def test_corruption_in_training_is_recorded(small_pack, tmp_path):
    from chexmsn.corruptions import CorruptionPlan

    plan = CorruptionPlan(names=("gaussian-noise",), probability=0.5)
    config = pretraining(small_pack, tmp_path / "run", epochs=1)
    run = pretrain(replace(config, options=replace(config.options, corruption=plan)))
    assert "gaussian-noise" in json.dumps(RunFolder(run).record["corruptions_seen"])
    classifier = train(downstream(small_pack, tmp_path / "classifier", encoder_from=run, epochs=1))
    assert "gaussian-noise" in json.dumps(load_classifier(classifier).provenance["corruptions_seen"])


@pytest.mark.parametrize("name", ["16", "bf16"])
def test_half_precision_on_a_cpu_is_refused_with_the_remedy(name):
    with pytest.raises(UserError, match="-p 32"):
        choose_precision(name, torch.device("cpu"))
