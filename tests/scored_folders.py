"""Result folders of known truth: labels of patients, and scores that are better or worse by construction."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.core.files import write_json

FINDINGS = ("Edema", "Mass")
CONDITIONS = (("clean", 0.0), ("gaussian-blur", 1.0), ("gaussian-blur", 3.0), ("patches-black", 0.5))
CLEAN_ONLY = CONDITIONS[:1]


def labels_of(images: int = 240, *, patients: int | None = None, seed: int = 0, prefix: str = "") -> pd.DataFrame:
    """Two images a patient unless said otherwise; a finding is a patient's, as most are."""
    draw = np.random.default_rng(seed)
    patient_of = np.arange(images) % (patients or images // 2)
    ill = draw.random((patient_of.max() + 1, len(FINDINGS))) < 0.4
    table = pd.DataFrame(
        {
            "image_key": [f"{prefix}{number:05}" for number in range(images)],
            "patient_id": [f"{prefix}p{number}" for number in patient_of],
            "sex": np.where(patient_of % 2 == 0, "F", "M"),
            "age": 20.0 + patient_of % 60,
            "view": "PA",
        }
    )
    return table.join(pd.DataFrame(ill[patient_of].astype(float), columns=[f"label:{f}" for f in FINDINGS]))


def write_scored(
    folder: Path,
    name: str,
    labels: pd.DataFrame,
    *,
    noise: float = 1.0,
    harm: float = 1.0,
    seed: int = 0,
    conditions: Sequence[tuple[str, float]] = CONDITIONS,
    absent: Sequence[str] = (),
    **record: object,
) -> Path:
    """One model's folder. Scores are the labels under noise, which grows with severity by `harm`."""
    folder.mkdir(parents=True)
    findings = [column.removeprefix("label:") for column in labels if column.startswith("label:")]
    truth = labels[[f"label:{finding}" for finding in findings]].fillna(0.5).to_numpy()
    cells = []
    for corruption, severity in conditions:
        if corruption in absent:
            continue
        draw = np.random.default_rng([seed, int(10 * severity)])
        spread = noise * (1 + harm * severity)
        logits = truth - 0.5 + spread * draw.normal(size=truth.shape)
        scores = pd.DataFrame(1 / (1 + np.exp(-logits)), columns=[f"score:{f}" for f in findings], dtype=np.float32)
        about = labels[["image_key", "patient_id"]].assign(corruption=corruption, severity=severity, repeat=0)
        cells.append(about.join(scores))
    pd.concat(cells).sample(frac=1, random_state=0).to_parquet(folder / "scores.parquet", index=False)
    labels.to_parquet(folder / "labels.parquet", index=False)
    told = {
        "schema_version": 1,
        "kind": "stress",
        "status": "finished",
        "model": {"name": name, "fingerprint": f"{name}-{seed}"},
        "data": {"name": "made up", "images": len(labels)},
        "conditions": [{"corruption": corruption, "severity": severity} for corruption, severity in conditions],
        "seen_in_training": [],
        "resamples": 100,
        "seed": 0,
    }
    write_json(folder / "run.json", told | record)
    return folder


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())
