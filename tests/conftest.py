"""Shared fixtures. Under test every annotated shape is checked by jaxtyping and beartype."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: a second thread only waits

install_import_hook("chexmsn", "beartype.beartype")

settings.register_profile("chexmsn", deadline=None)  # what a test says must not depend on how busy the machine is
settings.load_profile("chexmsn")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs beside the project, where there is one."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real radiographs (../shared/data) are not on this machine")
    return folder


class SmallRun(NamedTuple):
    """A pretraining run and a classifier trained on it, both of minutes' size, and the pack they were made from."""

    encoder: Path
    classifier: Path
    pack: Path


@pytest.fixture(scope="session")
def small_pack(tmp_path_factory) -> Path:
    """A pack of drawn radiographs, 64 px."""
    from chexmsn.recipes.arguments import run_command

    folder = tmp_path_factory.mktemp("small")
    run_command("fake", ["phantom", str(folder / "phantom"), "--patients", "40", "--size", "64"])
    run_command("prepare", ["phantom", str(folder / "phantom"), str(folder / "pack"), "--size", "64", "--workers", "2"])
    return folder / "pack"


@pytest.fixture(scope="session")
def small_run(small_pack, tmp_path_factory) -> SmallRun:
    """An encoder pretrained for an epoch, and a classifier fine-tuned for one."""
    from chexmsn.recipes.arguments import run_command

    folder = tmp_path_factory.mktemp("runs")
    shared = {"data": [str(small_pack)], "epochs": 1, "batch_size": 16, "device": "cpu"}
    encoder = {"name": "vit_micro", "patch": 16, "size": 48}
    options = {"prototypes": 8, "head_hidden": 16, "head_out": 8, "focal_views": 1, "focal_size": 32}
    pretrained = run_command("pretrain", shared | {"out": str(folder / "msn"), "encoder": encoder, "options": options})
    classifier = run_command(
        "train", shared | {"out": str(folder / "classifier"), "encoder_from": str(pretrained), "options": {"lr": 1e-3}}
    )
    return SmallRun(pretrained, classifier, small_pack)


@pytest.fixture(scope="session")
def two_processes():
    """Two processes that share a batch; started once, because loading torch takes seconds."""
    import two_processes

    pair = two_processes.start()
    yield pair
    two_processes.stop(pair)
