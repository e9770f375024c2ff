"""Small packs and untrained classifiers for the tests of evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from chexmsn.data.pack import Pack
from chexmsn.data.prepare import prepare
from chexmsn.evaluation.adapters._model import Model
from chexmsn.evaluation.adapters.chexmsn import model_of
from chexmsn.models.artefact import ClassifierArtefact, save_classifier
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import EncoderConfig, build_encoder

NIH = ("Effusion", "Cardiomegaly", "Mass")
SIZE, PACK_SIZE = 32, 37  # the pack of the size that the network's view is cut from: 32 * 256 / 224


def write_images(folder: Path, findings: Sequence[str] = NIH, images: int = 30) -> Path:
    """A csv folder: two images a patient, one third each in train, validate and test; the first finding is bright."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(images):
        patient = number // 2
        labels = draw.random(len(findings)) < 0.4
        pixels = 90 + 60 * labels[0] + draw.normal(0, 30, (48, 40))
        name = f"images/{number:03}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
        split = ("train", "validate", "test")[patient % 3]
        rows.append(
            {"image": name, "patient_id": f"p{patient}", "split": split} | dict(zip(findings, labels * 1, strict=True))
        )
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


def write_pack(folder: Path, findings: Sequence[str] = NIH, images: int = 30) -> Pack:
    source = write_images(folder / "source", findings, images)
    options = {"split": "split", "findings": list(findings)}
    return prepare("csv", source, folder / "pack", options=options, size=PACK_SIZE, workers=1)


def untrained(**config) -> Model:
    """A classifier of one finding as the stress test sees it."""
    classifier = Classifier(build_encoder(EncoderConfig(**config)), ("Edema",)).eval()
    return model_of(ClassifierArtefact(classifier, ("Edema",), {}, {}, Path("model")))


def write_model(
    folder: Path,
    name: str = "vit_micro",
    findings: Sequence[str] = ("Cardiomegaly", "Edema", "Pleural Effusion"),
    **seen,
) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = build_encoder(EncoderConfig(name=name, patch=8, size=SIZE, mean=0.45, std=0.2))
        classifier = Classifier(encoder, findings)
        torch.nn.init.normal_(classifier.head.weight, std=1.0)
    save_classifier(folder / "classifier", classifier, thresholds={}, provenance=seen)
    return folder
