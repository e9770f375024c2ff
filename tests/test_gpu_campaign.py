"""The campaign that a GPU still has to run: each of its stages works on a CPU, and goes on where it was."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def campaign(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_campaign

    return gpu_campaign


def run(campaign, tmp_path, *words):
    out = tmp_path / "out"
    campaign.main(["--tiny", "--device", "cpu", "--out", str(out), "--scratch", str(tmp_path / "scratch"), *words])
    return json.loads((out / "campaign.json").read_text())["stages"]


def test_stages_measure_and_go_on_where_they_were(campaign, tmp_path, capsys):
    first = run(campaign, tmp_path, "--stages", "limits", "agreement", "--minutes", "9")
    assert [row["what"] for row in first["limits"]] == ["bfloat16", "float32", "copy", "reader"]
    assert all("failed" not in row for rows in first.values() for row in rows)
    assert max(row["largest_difference"] for row in first["agreement"]) == 0, "a CPU agrees with itself"
    assert run(campaign, tmp_path, "--stages", "limits", "agreement", "--minutes", "0") == first, "nothing anew"
    assert "gaussian-noise" in capsys.readouterr().out


def test_what_there_was_no_time_for_is_told(campaign, tmp_path, capsys):
    assert run(campaign, tmp_path, "--stages", "sweep", "--minutes", "0") == {"sweep": []}
    assert "batch 4 not measured, the time is up" in capsys.readouterr().out


def test_a_measurement_that_fails_is_a_row(campaign):
    def fails():
        raise RuntimeError("out of memory")

    assert campaign.measured(fails)["failed"] == "RuntimeError: out of memory"


def test_training_is_measured_end_to_end_and_told_as_a_share_of_the_peak(campaign, tmp_path):
    tables = run(campaign, tmp_path, "--stages", "limits", "methods")
    mae, *_ = rows = tables["methods"]
    assert [row["what"] for row in rows] == ["mae", "simsiam", "dino", "fine-tune"]
    assert all(row["images_per_second"] > 0 and row["gflop_per_image"] > 0 for row in rows)
    peak = tables["limits"][0]["tflops"]
    assert mae["share_of_peak"] == pytest.approx(mae["images_per_second"] * mae["gflop_per_image"] / 1000 / peak)


def test_operations_of_the_published_setting_are_counted(campaign, tmp_path):
    """With all its prototypes and views, which --tiny does not have."""
    site = campaign.Site(torch.device("cpu"), tmp_path, campaign.Scale(images=64))
    assert 1 < campaign.gflop_per_image(site.job(encoder="vit_micro"), site.pack, site.device) < 20


@pytest.mark.campaign
def test_it_imports_nothing_that_its_page_does_not_name(campaign):
    """Beyond what the machine has and the wheels it is told to carry."""
    absent = {"beartype", "gdcm", "tensorboard", "lightly"}  # torchmetrics takes matplotlib where it is there
    code = (
        "import sys, importlib.abc\n"
        "class No(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name.split('.')[0] in {absent}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, No())\n"
        "import gpu_campaign\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=BENCHMARKS)
