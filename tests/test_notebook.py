"""The notebook runs from top to bottom, and says what it lacks."""

import os
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from chexmsn.evaluation.stress import StressConfig, stress

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "inference.ipynb"


def run_notebook(folder: Path, **variables: str) -> nbformat.NotebookNode:
    """The executed notebook; its kernel starts in an empty folder."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    ours = ("CHEXMSN_MODEL", "CHEXMSN_PACK", "MPLBACKEND")  # with the tests' MPLBACKEND no figure would be shown
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return client.execute(env=inherited | variables)


def shown(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """What the cells show of this kind."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output["data"][kind] for output in outputs if kind in output.get("data", ())]


def test_notebook_draws_the_curve_that_the_stress_test_computes(small_run, tmp_path):
    executed = run_notebook(tmp_path, CHEXMSN_MODEL=str(small_run.classifier), CHEXMSN_PACK=str(small_run.pack))
    assert len(shown(executed, "image/png")) == 1
    table = shown(executed, "text/plain")[-1].splitlines()
    rows = [line.split() for line in table if line[:1].isdigit()]
    assert [row[0] for row in rows][:3] == ["0%", "10%", "20%"]

    stressed = stress(
        StressConfig(
            model=small_run.classifier,
            data=small_run.pack,
            out=tmp_path / "stress",
            conditions=("tokens-removed:0.3",),
            resamples=10,
            device="cpu",
        )
    )
    results = pd.read_parquet(stressed / "results.parquet").query("finding == 'macro' and metric == 'auroc'")
    assert [float(rows[0][1]), float(rows[3][1])] == pytest.approx(results["value"].tolist(), abs=0.001)


def test_notebook_says_which_variable_is_missing(tmp_path):
    with pytest.raises(CellExecutionError, match="CHEXMSN_MODEL is not set: before Jupyter starts, set it to"):
        run_notebook(tmp_path)
