"""The stress test on small packs: what it writes, that it resumes, that nothing but the seed and the images decides."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from chexmsn.core.batch import to_images
from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load
from chexmsn.data.labels import CHEXPERT_FINDINGS, Policy
from chexmsn.data.pack import open_pack
from chexmsn.data.prepare import prepare
from chexmsn.evaluation import result_folder
from chexmsn.evaluation.judgement import TABLES
from chexmsn.evaluation.results import COLUMNS
from chexmsn.evaluation.scoring import Parts, Scorer
from chexmsn.evaluation.so_far import PeekConfig, peek
from chexmsn.evaluation.stress import ADAPTERS, StressConfig, stress
from chexmsn.models.artefact import load_classifier, save_classifier
from chexmsn.report.results import read_run
from chexmsn.views import evaluation_view
from evaluation_folders import NIH, SIZE, write_model, write_pack

FEW = ("tokens-removed:0.7", "patches-black:0.7", "poisson-noise:3", "gaussian-blur:2")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Packs, models and one finished run of everything."""
    home = tmp_path_factory.mktemp("stress")
    write_pack(home / "nih")
    seen = [{"corruption": "poisson-noise", "severity": [1, 5]}]
    training = {"config": {"method": "fine-tune"}}
    write_model(home / "vit", corruptions_seen=seen, pretraining={"config": {"method": "msn"}}, training=training)
    (home / "vit" / "classifier" / "training.csv").write_text("epoch,loss\n1,0.5\n")
    write_model(home / "cnn", name="resnet18")
    stress(asked(home, out=home / "full", conditions=("standard", "fills")))
    stress(asked(home, out=home / "few"))
    return home


def asked(home: Path, **changes) -> StressConfig:
    options = {
        "model": home / "vit",
        "data": home / "nih" / "pack",
        "conditions": FEW,
        "resamples": 20,
        "device": "cpu",
    }
    return StressConfig(**options | changes)


def scores_of(folder: Path) -> pd.DataFrame:
    keys = ["corruption", "severity", "repeat", "image_key"]
    return pd.read_parquet(folder / "scores.parquet").set_index(keys).sort_index()


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def assert_same_scores(a: Path, b: Path) -> None:
    pd.testing.assert_frame_equal(scores_of(a), scores_of(b), check_exact=False, atol=1e-5, rtol=0)


def test_the_files_of_a_run(home):
    folder = home / "full"
    assert {path.name for path in folder.iterdir()} == {
        *("run.json", "scores.parquet", "labels.parquet", "results.csv", "training.csv"),
        *(f"{name}.parquet" for name in TABLES),
    }
    results = pd.read_parquet(folder / "results.parquet")
    assert tuple(results.columns) == COLUMNS
    assert len(results.drop_duplicates(["corruption", "severity"])) == 66
    pd.testing.assert_frame_equal(results, pd.read_csv(folder / "results.csv"), check_dtype=False, atol=1e-12)
    scores = pd.read_parquet(folder / "scores.parquet")
    assert scores.dtypes[["score:Cardiomegaly", "score:Pleural Effusion"]].tolist() == [np.float32] * 2
    assert scores.filter(like="score:").stack().between(0, 1).all()
    assert set(scores.groupby(["corruption", "severity"]).size()) == {10}


def test_the_report_reads_it(home):
    run = read_run(home / "full")
    assert run.label == "vit" and set(run.curves) == {"training"}


def test_the_record_says_everything(home):
    record = record_of(home / "full")
    assert record["status"] == "finished" and record["schema_version"] == 1
    assert record["model"]["method"] == "msn + fine-tune" and record["model"]["kind"] == "transformer"
    assert record["data"]["images"] == 10 and record["data"]["split"] == "test"
    assert record["seen_in_training"] == ["poisson-noise"]
    assert len(record["conditions"]) == 66
    assert record["findings"] == ["Cardiomegaly", "Pleural Effusion"]


def test_findings_are_those_that_model_and_pack_share(home):
    """The model says Pleural Effusion and knows Edema; the pack says Effusion and knows Mass."""
    labels = pd.read_parquet(home / "few" / "labels.parquet")
    assert [c for c in labels if c.startswith("label:")] == ["label:Cardiomegaly", "label:Pleural Effusion"]
    source = pd.read_csv(home / "nih" / "source" / "labels.csv").query("split == 'test'")
    assert labels["label:Pleural Effusion"].tolist() == source["Effusion"].tolist()
    scores = scores_of(home / "few")
    artefact = load_classifier(home / "vit")
    pack = open_pack(home / "nih" / "pack")
    images = to_images(torch.from_numpy(pack.images[pack.rows(["test"])]))
    with torch.inference_mode():
        want = artefact.classifier.probabilities(evaluation_view(images, SIZE)).numpy()
    got = scores.loc[("clean", 0.0, 0)].loc[labels["image_key"]]
    for finding in ("Cardiomegaly", "Pleural Effusion"):
        np.testing.assert_allclose(got[f"score:{finding}"], want[:, artefact.findings.index(finding)], atol=1e-6)


def test_results_are_those_of_the_scores(home):
    scores, labels = scores_of(home / "few"), pd.read_parquet(home / "few" / "labels.parquet").set_index("image_key")
    results = (
        pd.read_parquet(home / "few" / "results.parquet").set_index(["corruption", "finding", "metric"]).sort_index()
    )
    shown = scores.loc[("patches-black", 0.7, 0)].loc[labels.index]
    want = roc_auc_score(labels["label:Cardiomegaly"], shown["score:Cardiomegaly"])
    assert results.loc[("patches-black", "Cardiomegaly", "auroc"), "value"] == pytest.approx(want)
    assert results.loc["poisson-noise", "seen_in_training"].all()
    assert not results.loc["gaussian-blur", "seen_in_training"].any()


def test_scores_do_not_depend_on_the_batch_size_or_on_other_conditions(home, tmp_path):
    stress(asked(home, out=tmp_path / "one", batch_size=3))
    assert_same_scores(tmp_path / "one", home / "few")
    both = scores_of(home / "full").index.intersection(scores_of(home / "few").index)
    assert len(both) == 50
    pd.testing.assert_frame_equal(scores_of(home / "full").loc[both], scores_of(home / "few").loc[both], atol=1e-5)


def test_another_seed_is_another_noise_and_the_same_clean_image(home, tmp_path):
    stress(asked(home, out=tmp_path / "other", seed=1))
    ours, other = scores_of(home / "few"), scores_of(tmp_path / "other")
    np.testing.assert_allclose(ours.filter(like="score:").loc["clean"], other.filter(like="score:").loc["clean"])
    for corruption in ("poisson-noise", "tokens-removed"):
        assert not np.allclose(ours.filter(like="score:").loc[corruption], other.filter(like="score:").loc[corruption])


def test_repeats_draw_anew(home, tmp_path):
    stress(asked(home, out=tmp_path / "twice", repeats=2))
    scores = scores_of(tmp_path / "twice").filter(like="score:")
    pd.testing.assert_frame_equal(
        scores.xs(0, level="repeat"), scores_of(home / "few").filter(like="score:").xs(0, level="repeat"), atol=1e-5
    )
    first, second = (scores.xs(repeat, level="repeat").loc["poisson-noise"] for repeat in (0, 1))
    assert not np.allclose(first, second)


def test_a_stopped_run_goes_on_with_any_batch_size(home, tmp_path, monkeypatch):
    keep, passes, scored = Parts.keep, Scorer.passes, []

    def stop_at_the_third(parts, rows, scores, seconds):
        if len(list(parts.folder.glob("*.npz"))) == 2:
            raise KeyboardInterrupt
        keep(parts, rows, scores, seconds + 1000)

    def counted(scorer, pixels, keys, rows):
        scored.append(len(rows))
        return passes(scorer, pixels, keys, rows)

    monkeypatch.setattr(Parts, "keep", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        stress(asked(home, out=tmp_path / "run", batch_size=3))
    assert record_of(tmp_path / "run")["status"] == "running"
    monkeypatch.setattr(Parts, "keep", keep)
    monkeypatch.setattr(Scorer, "passes", counted)
    stress(asked(home, out=tmp_path / "run", batch_size=64))
    assert scored == [4]  # ten images, six of them done
    assert not (tmp_path / "run" / "parts").exists()
    assert record_of(tmp_path / "run")["seconds"] > 2000  # of both starts
    assert_same_scores(tmp_path / "run", home / "few")


def stopped(home: Path, out: Path, monkeypatch) -> Path:
    """An unfinished run of which all scores are kept."""
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(result_folder, "_judge", lambda run, terms: exec("raise KeyboardInterrupt"))
        stress(asked(home, out=out, batch_size=4))
    return out


def test_results_so_far(home, tmp_path, monkeypatch):
    out = stopped(home, tmp_path / "run", monkeypatch)
    whole = Parts(out / "parts").all(len(FEW) + 1)[1]
    sorted(out.glob("parts/*.npz"))[-1].unlink()
    before = {file: file.read_bytes() for file in out.rglob("*.*")}
    peek(PeekConfig(run=out, out=tmp_path / "look"))
    assert before == {file: file.read_bytes() for file in out.rglob("*.*")}
    assert read_run(tmp_path / "look").label == "vit, 8 of 10 images"
    record = record_of(tmp_path / "look")
    assert record["status"] == "so far" and record["data"]["images"] == 8
    looked, ours = (folder / "scores.parquet" for folder in (tmp_path / "look", home / "few"))
    np.testing.assert_allclose(
        pd.read_parquet(looked).filter(like="score:").to_numpy(), whole[:, :8].reshape(-1, 2), atol=1e-6
    )
    assert len(pd.read_parquet(looked)) == 8 * len(pd.read_parquet(ours)) / 10
    with pytest.raises(UserError, match="there already"):
        peek(PeekConfig(run=out, out=tmp_path / "look"))


def test_results_so_far_of_a_record_that_does_not_tell_thresholds_and_repeats(home, tmp_path, monkeypatch):
    out = stopped(home, tmp_path / "run", monkeypatch)
    record = json.loads((out / "run.json").read_text())
    told = {name: value for name, value in record.items() if name not in ("thresholds", "repeats")}
    (out / "run.json").write_text(json.dumps(told))
    look = peek(PeekConfig(run=out, out=tmp_path / "look"))
    assert len(pd.read_parquet(look / "labels.parquet"))


def test_there_is_nothing_to_look_at(home, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is finished: its results are there"):
        peek(PeekConfig(run=home / "few", out=tmp_path / "look"))
    out = stopped(home, tmp_path / "run", monkeypatch)
    shutil.rmtree(out / "parts")
    with pytest.raises(UserError, match="no image is scored yet"):
        peek(PeekConfig(run=out, out=tmp_path / "look"))
    assert not (tmp_path / "look").exists()


def test_what_does_not_apply_is_recorded(home, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(result_folder, "_judge", lambda run, terms: exec("raise KeyboardInterrupt"))
        stress(asked(home, out=tmp_path / "run", model=home / "cnn", conditions=("tokens-removed:0.7",)))
    results = pd.read_parquet(peek(PeekConfig(run=tmp_path / "run", out=tmp_path / "look")) / "results.parquet")
    told = results.set_index("corruption")["status"]
    assert told["tokens-removed"].str.contains("has no tokens to remove").all()
    assert (told["patches-black"] == "ok").any()


def test_a_damaged_part_is_told_and_its_images_are_scored_again(home, tmp_path, monkeypatch):
    out = stopped(home, tmp_path / "run", monkeypatch)
    (out / "scores.parquet").unlink()
    part = sorted(out.glob("parts/*.npz"))[1]
    for content in (b"", b"no zip", part.read_bytes()[:-40]):
        part.write_bytes(content)
        with pytest.raises(UserError, match=rf"{part.name} is damaged: remove it"):
            stress(asked(home, out=out))
    part.unlink()
    stress(asked(home, out=out))
    assert_same_scores(out, home / "few")


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_damaged_table_of_scores_is_told_and_made_again(kept, home, tmp_path, monkeypatch):
    out = stopped(home, tmp_path / "run", monkeypatch)
    content = (out / "scores.parquet").read_bytes()
    (out / "scores.parquet").write_bytes(content[:kept])
    with pytest.raises(UserError, match=r"scores.parquet is damaged .*: remove it and give the same") as told:
        stress(asked(home, out=out))
    assert "\n" not in str(told.value)
    (out / "scores.parquet").unlink()
    stress(asked(home, out=out))
    assert_same_scores(out, home / "few")


def test_parts_of_another_version_are_told(home, tmp_path, monkeypatch):
    out = stopped(home, tmp_path / "run", monkeypatch)
    (out / "scores.parquet").unlink()
    parts = Parts(out / "parts")
    rows, scores = parts.all(len(FEW) + 1)
    parts.keep(rows[:4], scores[:2, :4], 0.0)
    sorted(out.glob("parts/*.npz"))[-1].unlink()
    monkeypatch.setattr(Scorer, "passes", lambda *_: pytest.fail("a pass was made"))
    with pytest.raises(UserError, match="scores under 2 conditions, not 5: it was begun by another version"):
        stress(asked(home, out=out))


def test_a_killed_run_goes_on(home, tmp_path):
    out = tmp_path / "run"
    code = (
        "from pathlib import Path; from chexmsn.evaluation.stress import ADAPTERS, StressConfig, stress; "
        f"stress(StressConfig(model=Path({str(home / 'vit')!r}), data=Path({str(home / 'nih' / 'pack')!r}), "
        f"out=Path({str(out)!r}), conditions=('standard', 'fills'), resamples=20, batch_size=1, device='cpu'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while not list(out.glob("parts/[0-9]*.npz")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert record_of(out)["status"] == "running"
    stress(asked(home, out=out, conditions=("standard", "fills")))
    assert_same_scores(out, home / "full")
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "results.parquet").drop(columns="model"),
        pd.read_parquet(home / "full" / "results.parquet").drop(columns="model"),
    )


def test_a_finished_run_says_so_and_is_left_alone(home, caplog):
    before = {path.name: path.stat().st_mtime_ns for path in (home / "few").iterdir()}
    with caplog.at_level("INFO"):
        stress(asked(home, out=home / "few", batch_size=7))
    assert "is finished: nothing to do" in caplog.text
    assert before == {path.name: path.stat().st_mtime_ns for path in (home / "few").iterdir()}


def test_another_configuration_is_refused_with_the_differences(home):
    with pytest.raises(UserError, match=r"resamples: 20 before, 30 now.*seed: 0 before, 5 now"):
        stress(asked(home, out=home / "few", seed=5, resamples=30))
    with pytest.raises(UserError, match=r"model: .*weights: "):
        stress(asked(home, out=home / "few", model=home / "cnn"))


def test_a_place_for_something_else_is_refused_before_the_model_is_opened(home, tmp_path):
    (tmp_path / "training").mkdir()
    trained = {"kind": "training", "status": "finished", "config": dict.fromkeys("abcdefgh", 1)}
    (tmp_path / "training" / "run.json").write_text(json.dumps(trained))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("precious")
    for out, message in (
        ("training", r"training holds a run of another kind \(training, not stress\): choose another --out$"),
        ("thesis", "is no run folder"),
        ("thesis/thesis.txt/run", "thesis.txt is no folder that can be written"),
    ):
        with pytest.raises(UserError, match=message):
            stress(asked(home, out=tmp_path / out, model=home / "absent"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["run.json", "thesis", "thesis.txt", "training"]


def test_of_many_differences_a_few_are_named(home):
    other = asked(home, out=home / "few", model=home / "cnn", seed=5, resamples=30, repeats=2, conditions=("fills",))
    with pytest.raises(
        UserError, match=r"\(conditions: .*; model: .*; repeats: .*; resamples: .*; and 2 more\): choose another"
    ):
        stress(other)


def test_tokens_of_a_cnn_are_cells_that_say_so_beside_black_pixels(home, tmp_path):
    stress(asked(home, out=tmp_path / "run", model=home / "cnn", conditions=("tokens-removed:0.7",)))
    results = pd.read_parquet(tmp_path / "run" / "results.parquet").set_index("corruption")
    assert results.loc["tokens-removed", "status"].str.contains("has no tokens to remove").all()
    assert results.loc["tokens-removed", "value"].isna().all()
    assert results.loc["patches-black", "value"].notna().all()
    assert "tokens-removed" not in set(pd.read_parquet(tmp_path / "run" / "scores.parquet")["corruption"])


def test_a_model_of_the_fourteen_findings_meets_another_collection(home, tmp_path):
    """Generalizability: the same command on a pack whose labels are called otherwise."""
    write_model(tmp_path / "model", findings=CHEXPERT_FINDINGS)
    stress(asked(home, model=tmp_path / "model", out=tmp_path / "run"))
    assert record_of(tmp_path / "run")["findings"] == ["Cardiomegaly", "Pleural Effusion"]


def test_no_shared_finding_names_both_lists(home, tmp_path):
    write_model(tmp_path / "model", findings=("Edema", "Fracture"))
    with pytest.raises(UserError, match=r"Edema, Fracture.*Pleural Effusion, Cardiomegaly, Mass"):
        stress(asked(home, model=tmp_path / "model", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_finding_without_positives_is_named(home, tmp_path, caplog):
    source = home / "nih" / "source"
    table = pd.read_csv(source / "labels.csv")
    table.loc[table["split"] == "test", "Effusion"] = 0
    table.to_csv(source / "healthy.csv", index=False)
    options = {"table": "healthy.csv", "split": "split", "findings": list(NIH)}
    prepare("csv", source, tmp_path / "pack", options=options, size=48, workers=1)
    stress(asked(home, data=tmp_path / "pack", out=tmp_path / "run"))
    assert "Pleural Effusion is left out of the macro value: no positives among 10 labelled images" in caplog.text
    record = record_of(tmp_path / "run")
    assert record["left_out"] == {"Pleural Effusion": "no positives among 10 labelled images"}
    assert record["findings"] == ["Cardiomegaly"]


def test_a_model_that_diverged_is_told(home, tmp_path):
    artefact = load_classifier(home / "vit")
    torch.nn.init.constant_(artefact.classifier.head.weight, float("nan"))
    save_classifier(tmp_path / "model", artefact.classifier, thresholds={}, provenance={})
    with pytest.raises(UserError, match="not numbers"):
        stress(asked(home, model=tmp_path / "model", out=tmp_path / "run"))


def test_answers_that_are_no_numbers_under_a_condition_name_it_and_the_row(home, tmp_path):
    (tmp_path / "net.py").write_text(
        "def score(x):\n    flat = x.std(dim=(1, 2, 3)) < 0.03\n    dark = x.mean(dim=(1, 2, 3))\n"
        "    return dark.masked_fill(flat, float('nan'))[:, None].expand(-1, 2)\n"
        "def build():\n    return score\n"
    )
    options = load(ADAPTERS, "python").Config(findings=("Effusion", "Mass"), size=SIZE, channels=1, patch=8)
    config = asked(home, model=tmp_path / "net.py:build", adapter="python", options=options, out=tmp_path / "run")
    told = (
        r"to 4 of 4 images are not numbers under contrast at 5 \(repeat 0\), "
        "the first to row 1 of labels.parquet, for Effusion"
    )
    with pytest.raises(UserError, match=told) as caught:
        stress(dataclasses.replace(config, conditions=("brightness:1", "contrast:5"), batch_size=4))
    labels = pd.read_parquet(tmp_path / "run" / "labels.parquet")
    assert not any(key in str(caught.value) for key in labels["image_key"])


def test_bad_options(home, tmp_path):
    with pytest.raises(UserError, match="batch_size must be at least 1, not 0"):
        asked(home, out=tmp_path, batch_size=0)
    with pytest.raises(UserError, match="choose zeros, ones or ignore"):
        asked(home, out=tmp_path, labels=Policy(uncertain="smooth"))
    with pytest.raises(UserError, match="split"):
        stress(asked(home, out=tmp_path / "run", split="holdout"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_names_the_remedy():
    with pytest.raises(UserError, match="--device cpu"):
        choose_device("gpu")
    assert choose_device("auto").type == "cpu"


def test_there_is_no_third_device():
    with pytest.raises(UserError, match="auto, cpu, gpu"):
        choose_device("tpu")


@pytest.mark.parametrize("stage", ["pretraining", "training"])
def test_what_a_model_was_trained_on_cannot_test_it(stage, home, tmp_path):
    used = {"packs": {open_pack(home / "nih" / "pack").fingerprint: ["train", "validate"]}}
    write_model(tmp_path / "model", **{stage: {"config": {"method": "msn"}, "data": used}})
    with pytest.raises(UserError, match=rf"'train'.*was used in the {stage}"):
        stress(asked(home, model=tmp_path / "model", out=tmp_path / "out", split="train"))
    assert not (tmp_path / "out").exists()
    stress(asked(home, model=tmp_path / "model", out=tmp_path / "out", split="test"))
