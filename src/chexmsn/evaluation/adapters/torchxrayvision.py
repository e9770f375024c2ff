"""Classifiers of TorchXRayVision: a file of weights of its DenseNet or ResNet.

https://github.com/mlmed/torchxrayvision (Cohen et al. 2022, arXiv 2111.00595). Images are one channel of -1024 to 1024.
The published files are named after what they were trained on, and that says the order of the 18 outputs, of which those
without a name mean nothing, and the thresholds that the library puts at a probability of 0.5; `published` says it where
a file has another name. Nothing is downloaded: the library keeps its files in ~/.torchxrayvision/models_data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet50

from chexmsn.core.errors import UserError
from chexmsn.core.libraries import library
from chexmsn.evaluation.adapters._model import Model, Options, settled
from chexmsn.evaluation.adapters._weights import fill_network
from chexmsn.evaluation.result_folder import name_of
from chexmsn.models.artefact import fingerprint, read_pickle, read_safetensors
from chexmsn.models.hubs._portable import only_tensors

TITLE = "TorchXRayVision"
THRESHOLDS = "op_threshs"
SAFELY = "in a Python that trusts it, save its state_dict() with torch.save, and name that file"


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What the file does not say.

    Attributes:
        published: the library's name of these weights, such as densenet121-res224-all; known from a published file's
            own name. Another DenseNet of the library, with weights of your own, needs findings instead.
    """

    published: str | None = None


class AtThresholds(nn.Module):
    """Logits become probabilities, scaled as the library does so that each operating threshold lies at 0.5."""

    def __init__(self, network: nn.Module, thresholds: Float[Tensor, "C"], scale: Any) -> None:
        super().__init__()
        self.network, self.scale = network, scale
        self.register_buffer(THRESHOLDS, thresholds)

    def forward(self, pixels: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B C"]:
        """The scaled probabilities; 0 for an output without a threshold."""
        return self.scale(self.network(pixels).sigmoid(), getattr(self, THRESHOLDS))


def open(location: Path, config: Config) -> Model:
    """The network of a file. Raises UserError for files that are none of the library's, or would run code."""
    models = library("torchxrayvision", "torchxrayvision").models
    known = _published(models, location, config)
    weights = _weights(models, location)
    findings = config.findings or known.get("labels")
    if findings is None:
        raise UserError(
            f"{location} is not named as a published file, so its outputs are not known: give --options.published "
            "(the library's name of the weights) or --options.findings"
        )
    thresholds = weights.pop(THRESHOLDS, None)
    if thresholds is None and THRESHOLDS in known and not config.findings:
        thresholds = torch.tensor(known[THRESHOLDS])
    network = _build(models, weights, len(findings))
    fill_network(network, weights, "the network of TorchXRayVision", location)
    said = {
        "findings": findings,
        "size": known.get("input_resolution", 224),
        "channels": 1,
        "value_range": (-1024.0, 1024.0),
        "answers": "logits" if thresholds is None else "probabilities",
    }
    network = network if thresholds is None else AtThresholds(network, thresholds, models.op_norm)
    return Model(
        name=name_of(location),
        adapter="torchxrayvision",
        network="resnet50" if "conv1.weight" in weights else "densenet121",
        kind="cnn",
        fingerprint=fingerprint(network),
        call=network.eval(),
        **settled(config, said, location),
    )


def _published(models: ModuleType, location: Path, config: Config) -> Mapping[str, Any]:
    """What the library knows of a published file; nothing of another."""
    if config.published is None:
        return next((about for about in models.model_urls.values() if _file(about) == location.name), {})
    if config.published not in models.model_urls:
        offered = ", ".join(name for name in models.model_urls if "-" in name)
        raise UserError(f"TorchXRayVision has no weights called {config.published!r}: choose one of {offered}")
    return models.model_urls[config.published]


def _file(about: Mapping[str, Any]) -> str:
    return about["weights_url"].rpartition("/")[2]


def _weights(models: ModuleType, location: Path) -> dict[str, Tensor]:
    """The table of weights. Published DenseNets are whole networks, of a few classes that do nothing when they load."""
    if not location.is_file():
        raise UserError(f"there is no file {location}: name a file of weights")
    if location.suffix == ".safetensors":
        return read_safetensors(location)
    kinds = [models.DenseNet, models._DenseLayer, models._DenseBlock, models._Transition]
    kinds += [nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear]
    with torch.serialization.safe_globals(kinds):
        content = read_pickle(location, SAFELY)
    if isinstance(content, nn.Module):
        for part in content.modules():  # files of torch 1.4 lack what modules have had since
            part.__dict__.setdefault("_non_persistent_buffers_set", set())
        content = content.state_dict()
    return only_tensors(content, location)


def _build(models: ModuleType, weights: Mapping[str, Tensor], outputs: int) -> nn.Module:
    if "conv1.weight" not in weights:
        return models.DenseNet(num_classes=outputs)
    network = resnet50(num_classes=outputs)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network
