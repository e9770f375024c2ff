"""Stress folders in the exact schema, made up from a few numbers: what the tests of the report read."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
LEFT_OUT = {"Pleural Other": "no positives among 226 labelled images"}
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
NOISES = ("poisson-noise", "gaussian-noise", "speckle-noise", "impulse-noise", "gaussian-blur")
HARM = {"poisson-noise": 0.3, "gaussian-noise": 0.5, "speckle-noise": 0.45, "impulse-noise": 0.8, "gaussian-blur": 0.35}
NO_TOKENS = "a CNN has no tokens to remove: see the pixel fills"
GRID = [
    ("clean", 0.0),
    *(("tokens-removed", share) for share in SHARES),
    *((f"patches-{fill}", share) for fill in ("black", "dataset-mean") for share in SHARES),
    *((noise, float(severity)) for noise in NOISES for severity in range(1, 6)),
]
SMALL = [(c, s) for c, s in GRID if c == "clean" or s == 0.7 or (c == "gaussian-noise" and s in (3, 5))]


def write_run(
    folder: Path,
    name: str,
    *,
    clean: float = 0.78,
    fragility: float = 1.0,
    kind: str = "transformer",
    method: str = "msn",
    data: str = "nih14",
    width: float = 0.03,
    seen: Sequence[str] = (),
    curves: bool = True,
    grid: Sequence[tuple[str, float]] = GRID,
    **info: object,
) -> Path:
    """One model's folder: `clean` is its macro AUROC, `fragility` how fast it falls, `width` half its interval."""
    folder.mkdir(parents=True)
    rows = [
        _row(name, corruption, severity, finding, metric, clean, fragility, kind, width, seen)
        for corruption, severity in grid
        for metric in ("auroc", "average_precision")
        for finding in ("macro", *FINDINGS)
    ]
    table = pd.DataFrame(rows)
    table.to_parquet(folder / "results.parquet", index=False)
    table.to_csv(folder / "results.csv", index=False)
    (folder / "run.json").write_text(json.dumps(_record(name, kind, method, data, seen) | info))
    if curves:
        _training(name, clean).to_csv(folder / "training.csv", index=False)
    if curves and method in ("msn", "mae", "simsiam"):
        _pretraining(method).to_csv(folder / "pretraining.csv", index=False)
    return folder


def four_runs(folder: Path) -> list[Path]:
    """Three transformers and a CNN; one was trained on blur, one logged no curves."""
    return [
        write_run(folder / "msn", "MSN", clean=0.784, fragility=0.45, method="msn"),
        write_run(folder / "mae", "MAE", clean=0.771, fragility=0.62, method="mae", seen=["gaussian-blur"]),
        write_run(folder / "simsiam", "SimSiam", clean=0.742, fragility=1.6, method="simsiam"),
        write_run(
            folder / "cnn",
            "ResNet-50 from scratch",
            clean=0.726,
            fragility=1.2,
            kind="cnn",
            method="supervised",
            curves=False,
        ),
    ]


def _row(name, corruption, severity, finding, metric, clean, fragility, kind, width, seen):
    base = {"model": name, "corruption": corruption, "severity": severity, "finding": finding, "metric": metric}
    counts = {"images": 226, "patients": 180, "positives": 610 if finding == "macro" else _noise(finding, 4, 90)}
    status = _status(corruption, finding, kind)
    if status != "ok":
        return base | counts | {"positives": 0, "status": status, "seen_in_training": corruption in seen}
    start = clean + (0 if finding == "macro" else _noise(finding, -90, 90) / 1000)
    left = _left(corruption, severity, fragility) + (
        0 if finding == "macro" else _noise(name + corruption + finding, -9, 9) / 400
    )
    left = 1.0 if corruption == "clean" else min(left, 1.04)
    value = 0.5 + (start - 0.5) * left
    half = width if finding == "macro" else 2.5 * width
    known = finding != "Fracture"  # too few positive patients for an interval
    drops = {}
    for kind_of_drop, scale in (("absolute", 1), ("relative", 1 / start), ("above_chance", 1 / (start - 0.5))):
        drop, spread = (start - value) * scale, (0 if corruption == "clean" else 0.6 * half * scale)
        drops[f"{kind_of_drop}_drop"] = drop
        drops[f"{kind_of_drop}_drop_low"] = drop - spread if known else np.nan
        drops[f"{kind_of_drop}_drop_high"] = drop + spread if known else np.nan
    interval = {"value": value, "low": value - half if known else np.nan, "high": value + half if known else np.nan}
    return base | interval | drops | counts | {"status": status, "seen_in_training": corruption in seen}


def _status(corruption: str, finding: str, kind: str) -> str:
    if corruption == "tokens-removed" and kind == "cnn":
        return NO_TOKENS
    return LEFT_OUT.get(finding, "ok")


def _left(corruption: str, severity: float, fragility: float) -> float:
    if corruption == "clean":
        return 1.0
    if corruption in HARM:
        return float(np.exp(-fragility * HARM[corruption] * severity / 5 * 2))
    return float(np.exp(-fragility * (severity**2) * (0.7 if corruption == "tokens-removed" else 1.1)))


def _noise(key: str, low: int, high: int) -> int:
    return low + zlib.crc32(key.encode()) % (high - low + 1)


def _record(name: str, kind: str, method: str, data: str, seen: Sequence[str]) -> dict:
    return {
        "schema_version": 1,
        "kind": "stress",
        "status": "finished",
        "command": f"chexmsn stress --model runs/{method} --pack packs/{data} --split test --out stress/{method}",
        "started": "2026-03-01T09:30:00+00:00",
        "seconds": 312.4,
        "device": "cpu (2 threads)",
        "model": {
            "name": name,
            "method": method,
            "fingerprint": f"{zlib.crc32(name.encode()):08x}c0ffee",
            "kind": kind,
            "encoder": "vit_tiny" if kind == "transformer" else "resnet50",
            "size": 112,
        },
        "data": {
            "name": data,
            "source": "csv",
            "fingerprint": f"{zlib.crc32(data.encode()):08x}5eed",
            "split": "test",
            "images": 226,
            "patients": 180,
        },
        "findings": [finding for finding in FINDINGS if finding not in LEFT_OUT],
        "left_out": LEFT_OUT,
        "policy": {"uncertain": "zeros", "blank": "zeros"},
        "conditions": [{"corruption": c, "severity": s, "mechanism": "pixels"} for c, s in GRID],
        "seed": 0,
        "repeats": 1,
        "resamples": 1000,
        "level": 0.95,
        "seen_in_training": list(seen),
        "config": {"batch_size": 64, "workers": 2},
        "versions": {"chexmsn": "0.1.0", "torch": "2.15.0", "python": "3.11.9"},
        "provenance": {"epochs": 30, "splits": ["train"]},
    }


def _pretraining(method: str) -> pd.DataFrame:
    start, end = {"msn": (6.9, 4.1), "mae": (1.0, 0.42), "simsiam": (-0.1, -0.92)}[method]
    epochs = np.arange(60)
    loss = end + (start - end) * np.exp(-epochs / 14) + 0.01 * np.sin(epochs)
    return pd.DataFrame(
        {"epoch": epochs, "step": 40 * epochs + 39, "train/loss": loss, "validation/loss": loss + 0.05, "lr": 1e-3}
    )


def _training(name: str, clean: float) -> pd.DataFrame:
    """As a logger writes it: a row for training, then a row for validation, blanks elsewhere."""
    rows = []
    for epoch in range(20):
        rest = np.exp(-epoch / 5)
        rows.append({"epoch": epoch, "step": 30 * epoch + 29, "train/loss": 0.98 - clean + 0.35 * rest})
        rows.append({"epoch": epoch, "step": 30 * epoch + 29, "validation/loss": 1.05 - clean + 0.28 * rest,
                     "validation/macro_auroc": clean - (clean - 0.5) * rest})  # fmt: skip
    return pd.DataFrame(rows)
