"""Operating points of any model: thresholds come with it, from a file, or from clean images that are not tested."""

import json
from pathlib import Path

import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.pack import open_pack
from chexmsn.evaluation.judge import JudgeConfig, judge
from chexmsn.evaluation.stress import StressConfig, stress
from chexmsn.metrics.thresholds import choose_thresholds
from chexmsn.models.artefact import load_classifier, save_classifier
from chexmsn.report.build import build_report
from evaluation_folders import write_model, write_pack

FOUND = ("Cardiomegaly", "Pleural Effusion")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("thresholds")
    write_pack(home / "data")
    write_model(home / "model")
    stress(asked(home, out=home / "run"))
    return home


def asked(home: Path, **changes) -> StressConfig:
    options = {"model": home / "model", "data": home / "data" / "pack", "conditions": ("gaussian-blur:3",)}
    return StressConfig(**options | {"resamples": 20, "device": "cpu"} | changes)


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_model_without_thresholds_gets_them_from_the_split_validate(home, tmp_path):
    stress(asked(home, out=tmp_path / "validate", split="validate", conditions=("clean",), thresholds="train"))
    scores, labels = (pd.read_parquet(tmp_path / "validate" / f"{name}.parquet") for name in ("scores", "labels"))
    scores, labels = (
        t[[f"{kind}:{f}" for f in FOUND]].to_numpy() for t, kind in ((scores, "score"), (labels, "label"))
    )
    record = record_of(home / "run")
    assert record["thresholds"] == pytest.approx(choose_thresholds(scores, labels, FOUND))
    assert record["thresholds_from"].startswith("chosen on 10 clean images of 5 patients of the split validate of pack")
    operating = pd.read_parquet(home / "run" / "operating.parquet")
    assert operating.query("metric == 'sensitivity' and finding in @FOUND")["value"].notna().all()


def test_they_are_recorded_for_who_resumes_judges_and_reports(home, tmp_path):
    before = pd.read_parquet(home / "run" / "operating.parquet")
    judge(JudgeConfig(runs=(home / "run",)))
    pd.testing.assert_frame_equal(pd.read_parquet(home / "run" / "operating.parquet"), before)
    build_report([home / "run"], tmp_path / "report", title="Operating points")
    assert record_of(home / "run")["thresholds_from"] in (tmp_path / "report" / "report.html").read_text().replace(
        "&#39;", "'"
    )


def test_thresholds_that_come_with_a_model_count(home, tmp_path):
    artefact = load_classifier(home / "model")
    save_classifier(tmp_path / "model", artefact.classifier, thresholds={"Pleural Effusion": 0.25}, provenance={})
    stress(asked(home, model=tmp_path / "model", out=tmp_path / "run"))
    record = record_of(tmp_path / "run")
    assert record["thresholds"] == {"Pleural Effusion": 0.25} and "came with the model" in record["thresholds_from"]
    stress(asked(home, model=tmp_path / "model", out=tmp_path / "other", thresholds="validate"))
    assert record_of(tmp_path / "other")["thresholds"] == record_of(home / "run")["thresholds"]


def test_a_file_of_thresholds_is_part_of_what_was_asked_for(home, tmp_path):
    file = tmp_path / "limits.csv"
    file.write_text("finding,threshold\neffusion,0.4\n")
    stress(asked(home, out=tmp_path / "run", thresholds=str(file)))
    assert record_of(tmp_path / "run")["thresholds"] == {"Pleural Effusion": 0.4}
    file.write_text("finding,threshold\neffusion,0.5\n")
    with pytest.raises(UserError, match=r"another configuration \(thresholds: "):
        stress(asked(home, out=tmp_path / "run", thresholds=str(file)))


def test_neither_tested_images_nor_those_of_training_choose_a_threshold(home, tmp_path):
    with pytest.raises(UserError, match="not chosen on the tested images, the split 'test'"):
        stress(asked(home, out=tmp_path / "run", thresholds="test"))
    used = {"packs": {open_pack(home / "data" / "pack").fingerprint: ["train", "validate"]}}
    write_model(tmp_path / "model", training={"config": {"method": "supervised"}, "data": used})
    with pytest.raises(UserError, match=r"thresholds is a split \(there is no other\)"):
        stress(asked(home, model=tmp_path / "model", out=tmp_path / "run", thresholds="validate"))
    assert not (tmp_path / "run").exists()
    stress(asked(home, model=tmp_path / "model", out=tmp_path / "run"))
    assert record_of(tmp_path / "run")["thresholds_from"].startswith("none: ")
