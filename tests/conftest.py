"""Shared fixtures. Under test every annotated shape is checked by jaxtyping and beartype."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "2")

install_import_hook("chexmsn", "beartype.beartype")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs beside the project, where there is one."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real radiographs (../shared/data) are not on this machine")
    return folder
