"""Models for other software: tokens and logits stay what they are.

A colour network meets a radiograph as a gray image, the same in its three channels. So one input channel becomes
three with a third of its weights each. Mean and std are stated as ours: nothing is folded, and what a CNN pads its
border with stays the same too. `models/hubs/` knows the names and files of each library.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from chexmsn.core.errors import UserError
from chexmsn.core.files import new_folder, refuse_filled, write_atomic, write_json
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load, names
from chexmsn.models.artefact import (
    fingerprint,
    holds_classifier,
    load_classifier,
    load_encoder,
    preprocessing,
    provenance_of,
)
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import Encoder
from chexmsn.models.hubs._portable import HEAD, HUBS, PREFIX, RECORD, RECORD_FORMAT, STEM, Portable, to_theirs

_PLACES = ("data", "encoder_from")  # of a recorded configuration: folders of the machine it was trained on


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to hand over.

    Attributes:
        model: run folder, encoder or classifier folder, or checkpoint; a classifier goes with its head.
        to: the software (a file in chexmsn/models/hubs).
        out: a new folder.
        size: image size that position embeddings are resized to; the encoder's own when empty.
    """

    model: Path
    to: str
    out: Path
    size: int | None = None

    def __post_init__(self) -> None:
        check_limits(self, size="[1, inf)")


def targets() -> list[str]:
    """The software that models can be written for."""
    return [name for name in names(HUBS) if hasattr(load(HUBS, name), "describe")]


def export_model(config: ExportConfig) -> Path:
    """Write a model as other software wants it, with the lines that load it there; returns the folder.

    Raises:
        UserError: no such software, a model that it has no class for, or a folder that holds something already.
    """
    hub = load(HUBS, config.to)
    if config.to not in targets():
        raise UserError(f"models can be read from {hub.TITLE}, not written: choose one of {', '.join(targets())}")
    refuse_filled(config.out)
    record, model = _ours(config.model, config.size)
    described = hub.describe(model)
    try:
        with new_folder(config.out) as folder:
            weights = to_theirs(model.weights, hub.theirs, bool(model.findings))
            write_atomic(folder / "model.safetensors", lambda file: save_file(weights, file, metadata={"format": "pt"}))
            for name, content in (described | {RECORD: record}).items():
                write_json(folder / name, content)
            (folder / "README.md").write_text(_readme(hub, model, record), encoding="utf-8")
    except SafetensorError as error:  # its word for a full disk
        raise UserError(f"cannot write {config.out}: {error}; make room or choose another place") from None
    return config.out


def _ours(path: Path, size: int | None) -> tuple[dict[str, Any], Portable]:
    """What is told of a model, and the model on its way."""
    if holds_classifier(path):
        artefact = load_classifier(path)
        told = {"kind": "classifier", "findings": list(artefact.findings), "thresholds": artefact.thresholds}
        encoder, findings = artefact.classifier.encoder, artefact.findings
        head, whole = _linear_head(artefact.classifier, path), artefact.classifier
        provenance = artefact.provenance
    else:
        told, findings, head = {"kind": "encoder"}, (), {}
        encoder = whole = load_encoder(path)
        provenance = provenance_of(path)
    record = {
        "format": RECORD_FORMAT,
        "chexmsn": version("chexmsn"),
        **told,
        "encoder": asdict(encoder.config),
        "fingerprint": fingerprint(whole),
    }
    encoder.resize(size or encoder.config.size)
    record |= {"preprocessing": preprocessing(encoder.config), "provenance": _public(provenance)}
    return record, _portable(encoder, head, findings)


def _linear_head(classifier: Classifier, path: Path) -> dict[str, Tensor]:
    """The linear layer; a batch normalisation before it, which is linear once trained, is folded in."""
    head = classifier.head.state_dict()
    if classifier.reads == "pooled":
        return head
    if classifier.reads == "batch-norm":
        norm = classifier.readout.norm
        weight = head["weight"].double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = head["bias"].double() - weight @ norm.running_mean.double()
        return {"weight": weight.float(), "bias": bias.float()}
    raise UserError(
        f"{path} reads its features by {classifier.reads}, which other software has no class for: export the encoder "
        "that it was trained on (its encoder_from), which such a probe leaves as it was"
    )


def _portable(encoder: Encoder, head: Mapping[str, Tensor], findings: tuple[str, ...]) -> Portable:
    weights = {name.removeprefix(PREFIX[encoder.kind]): w.cpu() for name, w in encoder.state_dict().items()}
    stem = f"{STEM[encoder.kind]}.weight"
    weights[stem] = three_channels(weights[stem])
    weights |= {HEAD[encoder.kind] + name: w.cpu() for name, w in head.items()}
    return Portable(config=replace(encoder.config, channels=3), findings=findings, weights=weights)


def three_channels(stem: Float[Tensor, "width channels rows columns"]) -> Float[Tensor, "width 3 rows columns"]:
    """The same answer to a gray image in three equal channels as to its one.

    >>> import torch
    >>> three_channels(torch.ones(1, 1, 1, 1)).flatten()
    tensor([0.3333, 0.3333, 0.3333])
    """
    return stem if stem.shape[1] == 3 else stem.repeat(1, 3, 1, 1) / 3


def _public(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance without the places of the machine it comes from."""
    return {
        name: _public({k: v for k, v in value.items() if k not in _PLACES} if name == "config" else value)
        if isinstance(value, Mapping)
        else value
        for name, value in provenance.items()
    }


def _making(provenance: Mapping[str, Any]) -> str:
    """The methods and data of every stage of training, as far as they were recorded."""
    stages = [stage for name in ("pretraining", "training") if isinstance(stage := provenance.get(name), Mapping)]
    told = [
        f"{stage.get('config', {}).get('method')} on data of fingerprint {stage.get('data', {}).get('fingerprint')}"
        for stage in stages
    ]
    origin = provenance.get("imported", {})
    begun = f"Imported from {origin.get('layout')} ({origin.get('source')}). " if origin else ""
    return begun + (f"Trained by {', then '.join(told)}." if told else "How it was trained was not recorded.")


def _readme(hub: ModuleType, model: Portable, record: Mapping[str, Any]) -> str:
    c, lines = model.config, hub.usage(model)
    holds = f"a classifier of {len(model.findings)} findings" if model.findings else "an encoder"
    answers = f"logits, one for each of: {', '.join(model.findings)}" if model.findings else "features"
    return f"""\
# {c.name} for {hub.TITLE}

This is {holds} of chest radiographs, written by CheXMSN. For research only, not for clinical use.

{_making(record["provenance"])} All that was recorded of its making is in `{RECORD}`.

In this folder:

```python
import torch
{lines.load}
model.eval()

mean, std = torch.tensor({list(model.mean)}).view(3, 1, 1), torch.tensor({list(model.std)}).view(3, 1, 1)
images = torch.rand(2, 1, {c.size}, {c.size})  # yours: one channel in [0, 1]
pixels = (images.expand(-1, 3, -1, -1) - mean) / std
with torch.no_grad():
    {lines.call}
```

`outputs` are {answers}. An image is {record["preprocessing"]["view"]}; it is then copied to three equal channels.
Mean and std are those of this model and not ImageNet's.
"""
