"""`chexmsn bench`: a user's machine, measured."""

import json
from functools import partial

import pytest
import torch

from chexmsn.cli.main import main
from chexmsn.core.errors import UserError
from chexmsn.recipes.arguments import parse, run_command
from chexmsn.training import speed
from chexmsn.training.speed import STAGES, Clock, matrix_peak

SMALL = {
    "encoder": {"name": "vit_micro", "patch": 16, "size": 48},
    "options": {"prototypes": 8, "head_hidden": 16, "head_out": 8, "focal_views": 1, "focal_size": 32},
    "batch_size": 4,
    "seconds": 0,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def a_small_product(monkeypatch):
    """The peak of small matrices: that of large ones takes seconds, and no test asks how high it is."""
    monkeypatch.setattr(speed, "matrix_peak", partial(matrix_peak, side=256))


def test_a_pack_is_measured_and_estimated(small_pack, tmp_path, capsys):
    told = run_command("bench", SMALL | {"data": str(small_pack), "epochs": 10, "json": str(tmp_path / "speed.json")})
    assert json.loads((tmp_path / "speed.json").read_text()) == told
    assert told["steps"] == 3 and set(told["seconds_per_step"]) == set(STAGES)
    rate = told["images_per_second"]
    assert rate == pytest.approx(4 / sum(told["seconds_per_step"].values()))
    assert told["share_of_peak"] == pytest.approx(rate * told["gflop_per_image"] / told["matrix_peak_gflop_per_second"])
    estimate = told["estimate"]
    assert estimate["hours"] == pytest.approx(estimate["images"] * 10 / rate / 3600)
    assert f"{estimate['images']:,} images x 10 epochs" in capsys.readouterr().out


def test_operations_are_those_of_arithmetic(small_pack):
    options = SMALL["options"] | {"mask_ratio": 0.0, "focal_views": 0}
    told = run_command("bench", SMALL | {"data": str(small_pack), "options": options})
    tokens, width, depth = 1 + 9, 128, 6
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    last = 2 * tokens * 2 * width**2 + 2 * 10 * width**2 + 4 * tokens * width
    head = 2 * (width * 16 + 16 * 16 + 16 * 8)
    stem = 2 * 9 * 16**2 * width
    forward = (depth - 1) * block + last + head + stem
    # the target's forward and three of the anchor's; attention computes its scores anew on the way back, and nobody
    # needs the gradient of the pixels
    anew = (depth - 1) * 2 * tokens**2 * width + 2 * tokens * width
    assert told["gflop_per_image"] * 1e9 == pytest.approx(4 * forward + anew - stem, rel=0.01)


def test_without_a_pack_radiographs_are_drawn(capsys):
    told = run_command("bench", SMALL | {"images": 1000, "encoder": {"name": "vit_micro", "patch": 16, "size": 32}})
    assert told["estimate"]["images"] == 1000


def test_what_cannot_work_is_refused_in_one_line(small_pack, capsys):
    assert main(["bench", "--data", str(small_pack), "--device", "cpu", "--batch_size", "32"]) == 2
    assert "the pack holds 64 px" in capsys.readouterr().err
    with pytest.raises(UserError, match="precision bf16 needs a GPU"):
        from chexmsn.recipes.arguments import check_command

        check_command("bench", parse("bench", SMALL | {"precision": "bf16"}))


def test_a_place_that_is_missing_is_told_before_anything_is_measured(tmp_path, capsys):
    assert main(["bench", "--json", str(tmp_path / "no" / "speed.json")]) == 2
    told = capsys.readouterr().err
    assert "there is no folder" in told and "packing" not in told


def test_a_matrix_product_and_a_clock():
    assert matrix_peak(torch.device("cpu"), side=128) > 0
    clock = Clock(torch.device("cpu"))
    clock.lap("nothing")
    assert 0 <= clock.wall["nothing"] < 5
