"""What does a run that collapses look like? MSN made to collapse, MSN that is well, and what each says of itself.

    python benchmarks/collapse.py runs/real-cpu/packs/nih14 runs/real-cpu/packs/kermany --out runs/collapse

About six minutes on 2 cores with these two packs (3,800 training images); without a pack, radiographs are drawn. The
run that collapses has no me-max, no Sinkhorn and frozen prototypes: nothing keeps the images from all going to one
prototype. Printed are both health curves, as a Markdown table, and the sentences; `collapse.svg` shows them.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from chexmsn.methods import msn
from chexmsn.models.encoder import EncoderConfig
from chexmsn.recipes.arguments import run_command
from chexmsn.training.config import HealthConfig, PretrainConfig, ProbeConfig
from chexmsn.training.run import pretrain
from chexmsn.training.run_folder import RunFolder

RUNS: dict[str, dict[str, Any]] = {
    "well": {},
    "made to collapse": {"me_max": 0.0, "sinkhorn": 0, "prototypes_trained": False},
}
SHOWN = {
    "train/loss": "loss",
    "health/effective_rank": "effective rank",
    "train/prototypes_used": "prototypes used",
    "train/prototype_entropy": "their entropy",
    "train/agreement": "agreement",
    "train/prototype_agreement": "same prototype",
    "train/gradient_norm": "gradient norm",
}


def trained(
    packs: tuple[Path, ...], out: Path, options: dict[str, Any], *, epochs: int, size: int, batch_size: int, every: int
) -> Path:
    """A small MSN with these options."""
    config = msn.Config(
        **{"prototypes": 64, "head_hidden": 256, "head_out": 64, "focal_views": 2, "focal_size": 32, "lr": 0.001}
        | {"ema_start": 0.98}
        | options
    )
    return pretrain(
        PretrainConfig(
            data=packs,
            out=out,
            options=config,
            encoder=EncoderConfig(name="vit_micro", size=size),
            validate_split=None,
            epochs=epochs,
            batch_size=batch_size,
            device="cpu",
            health=HealthConfig(every=every, images=min(512, 4 * batch_size)),
            probe=ProbeConfig(images=256, every=1),
        )
    )


def curve(run: Path) -> pd.DataFrame:
    """The numbers of single steps and looks, by step; a number stays until there is a newer one."""
    logged = pd.concat([pd.read_csv(file) for file in sorted((run / "logs" / "csv").rglob("metrics.csv"))])
    names = {f"{name}_step": label for name, label in SHOWN.items()}
    return logged[["step", *names]].rename(columns=names).groupby("step").mean().dropna(how="all").ffill()


def drawn(out: Path) -> Path:
    """A pack of drawn radiographs."""
    run_command("fake", ["phantom", str(out / "phantom"), "--patients", "300", "--size", "96"])
    words = ["phantom", str(out / "phantom"), "--out", str(out / "pack"), "--size", "96"]
    return run_command("prepare", words).folder


def figure(curves: dict[str, pd.DataFrame]) -> Figure:
    """One panel per number, a line per run."""
    matplotlib.use("Agg")
    chosen = ["loss", "prototypes used", "their entropy", "effective rank", "agreement", "gradient norm"]
    sheet = Figure(figsize=(9, 4.6), layout="constrained")
    for axis, label in zip(sheet.subplots(2, 3).ravel(), chosen, strict=True):
        for (name, table), style in zip(curves.items(), ("-", "--"), strict=True):
            axis.plot(table.index, table[label], style, label=name)
        axis.set(title=label, xlabel="step")
    axis.legend(frameon=False)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    packs = tuple(given.packs) or (drawn(given.out),)
    how = {"epochs": given.epochs, "size": 64, "batch_size": 64, "every": 20}
    runs = {name: trained(packs, given.out / name.replace(" ", "-"), options, **how) for name, options in RUNS.items()}
    curves = {name: curve(run) for name, run in runs.items()}
    for name, run in runs.items():
        table = curves[name].round(3)
        print(f"\n{name}\n\n{markdown(table.iloc[:: max(1, len(table) // 12)])}\n")
        history = pd.read_csv(run / "history.csv")
        if "probe/knn_macro_auroc" in history:
            print("kNN macro AUROC by epoch:", *history["probe/knn_macro_auroc"].round(3))
        for symptom in RunFolder(run).record.get("symptoms", []):
            print(f"step {symptom['step']}: {symptom['told']}")
    figure(curves).savefig(given.out / "collapse.svg")


def markdown(table: pd.DataFrame) -> str:
    rows = [["step", *table.columns], ["---"] * (len(table.columns) + 1)]
    rows += [[str(step), *(f"{value:g}" for value in row)] for step, row in zip(table.index, table.values, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
