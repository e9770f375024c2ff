"""Classifiers of timm: a folder as its hub has them (`config.json` and weights), or a file of weights and a name.

https://github.com/huggingface/pytorch-image-models. Size, mean, std and share shown are those of the folder or, for a
bare file, those that timm states for the name. Nothing is downloaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_data_config
from torch import nn

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.evaluation.adapters._model import Model, Options, settled
from chexmsn.evaluation.adapters._weights import fill_network
from chexmsn.evaluation.result_folder import name_of
from chexmsn.models.artefact import fingerprint
from chexmsn.models.hubs._portable import read_weights

TITLE = "timm"


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What the folder or file does not say.

    Attributes:
        architecture: timm's name of the network, such as densenet121.
        arguments: more that timm.create_model takes, by name, such as img_size.
    """

    architecture: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def open(location: Path, config: Config) -> Model:
    """The classifier there. Raises UserError for an unknown name and for weights that do not fit it."""
    weights = read_weights(location)
    described = _described(location)
    architecture = config.architecture or described.get("architecture")
    if architecture is None:
        raise UserError(f"{location} does not say which network of timm it is: give --options.architecture")
    findings = config.findings or described.get("label_names")
    network = _build(architecture, findings, config, described)
    fill_network(network, weights, architecture, location)
    data = resolve_data_config(described.get("pretrained_cfg", {}), model=network)
    said = {
        "findings": findings,
        "size": config.arguments.get("img_size", data["input_size"][-1]),
        "shown": min(data["crop_pct"], 1.0),
        "channels": _channels(config, described),
        "mean": _per_channel(data["mean"], config, described),
        "std": _per_channel(data["std"], config, described),
        "answers": "logits" if network.num_classes == 1 else None,  # of several, no file of timm says what they are
    }
    return Model(
        name=name_of(location),
        adapter="timm",
        network=architecture,
        kind="transformer" if hasattr(network, "patch_embed") else "cnn",
        fingerprint=fingerprint(network),
        call=network.eval(),
        **settled(config, said, location),
    )


def _described(location: Path) -> dict[str, Any]:
    if not location.is_dir():
        return {}
    described = read_json(location / "config.json")
    if not isinstance(described, dict):
        raise UserError(f"{location}/config.json describes no network of timm: name the file of weights itself")
    return described


def _build(architecture: str, findings: Any, config: Config, described: Mapping[str, Any]) -> nn.Module:
    if not timm.is_model(architecture):
        near = ", ".join(timm.list_models(f"*{architecture.split('_')[0]}*")[:3])
        raise UserError(f"timm has no {architecture}{near and f' (it has {near} ...)'}: give --options.architecture")
    outputs = len(findings) if findings else described.get("num_classes")
    if not outputs:
        raise UserError("the names of the outputs are not known, nor how many there are: give --options.findings")
    ours = {"pretrained": False, "num_classes": outputs, "in_chans": _channels(config, described)}
    try:
        return timm.create_model(architecture, **{**described.get("model_args", {}), **config.arguments, **ours})
    except TypeError as error:
        raise UserError(f"timm cannot build {architecture} ({error}): see --options.arguments") from None


def _channels(config: Config, described: Mapping[str, Any]) -> int:
    return config.channels or described.get("pretrained_cfg", {}).get("input_size", (3,))[0]


def _per_channel(numbers: tuple[float, ...], config: Config, described: Mapping[str, Any]) -> tuple[float, ...]:
    """timm states three; a network of one channel takes their mean, as timm's own loader does for gray images."""
    return tuple(numbers) if _channels(config, described) == len(numbers) else (sum(numbers) / len(numbers),)
