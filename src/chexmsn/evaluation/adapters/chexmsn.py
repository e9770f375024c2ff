"""Classifiers trained, imported or saved with CheXMSN: run folders, classifier folders and checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from chexmsn.evaluation.adapters._model import Input, Model
from chexmsn.evaluation.result_folder import name_of
from chexmsn.models.artefact import ClassifierArtefact, fingerprint, load_classifier
from chexmsn.views import EVALUATED_SHARE

TITLE = "CheXMSN"
CURVES = ("pretraining.csv", "training.csv")


@dataclass(frozen=True, kw_only=True)
class Config:
    """There is nothing to choose: the artefact says it all."""


def open(location: Path, config: Config) -> Model:
    """The classifier there. Raises UserError as `load_classifier` does."""
    return model_of(load_classifier(location))


def model_of(artefact: ClassifierArtefact) -> Model:
    """A loaded artefact; it normalises itself."""
    encoder, path = artefact.classifier.encoder, artefact.path
    return Model(
        name=name_of(path),
        adapter="chexmsn",
        network=encoder.config.name,
        kind=encoder.kind,
        findings=artefact.findings,
        input=Input(size=encoder.config.size, shown=EVALUATED_SHARE, channels=1),
        answers="logits",
        patch=encoder.config.patch,
        fingerprint=fingerprint(artefact.classifier),
        call=artefact.classifier,
        supports_token_removal=encoder.kind == "transformer",
        thresholds=artefact.thresholds,
        provenance=artefact.provenance,
        curves={name: path / name for name in CURVES},
    )
