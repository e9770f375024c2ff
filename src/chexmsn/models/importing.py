"""Models from other software: tokens and logits stay what they are, for gray images.

Three input channels become one by the sum of their weights, each divided by its channel's std; what their means take
off a gray value goes into the bias. That is exact for a transformer, whose patches have no padding. A CNN pads its
border with each channel's mean, which one channel can only hold where the means are equal; elsewhere it keeps three.
`models/hubs/` knows the names and files of each library.
"""

import hashlib
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json, refuse_filled
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load
from chexmsn.models.artefact import empty_encoder, fill, save_classifier, save_encoder
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import VIT_SIZES, Encoder, EncoderConfig
from chexmsn.models.hubs._portable import (
    HEAD,
    HUBS,
    PREFIX,
    RECORD,
    RECORD_FORMAT,
    STEM,
    Colours,
    Found,
    colours,
    first,
    to_ours,
    weights_file,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What to take over.

    Attributes:
        source: file of weights, or folder as the software saves it.
        out: a new folder.
        findings: names of the outputs in their order, to import the classifier too; else the encoder alone,
            unless the source says itself that its outputs are findings.
        mean: what was taken off the pixels in [0, 1], one number or one per channel; that of the source when empty.
        std: what the difference was divided by, one number or one per channel; that of the source when empty.
        heads: attention heads of a block, for sources that do not say.
        channels: 1 sums the weights of the colours, 3 keeps them; 1 wherever that is exact when empty.
        size: image size that position embeddings are resized to; that of the source when empty.
    """

    source: Path
    out: Path
    findings: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    heads: int | None = None
    channels: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        check_limits(self, mean="[0, 1]", std="(0, inf)", heads="[1, inf)", size="[1, inf)")
        if self.channels not in (None, 1, 3):
            raise UserError(f"an encoder takes 1 or 3 channels, not {self.channels}: leave channels out")


def import_model(layout: str, config: ImportConfig) -> Path:
    """Make an encoder folder (with findings, a classifier folder) of other software's weights; returns it.

    Raises:
        UserError: no such layout, weights of another one or of a network that is none of ours, something that must be
            known and is said nowhere, or a folder that holds something already.
    """
    hub = load(HUBS, layout)
    refuse_filled(config.out)
    if not config.source.exists():
        raise UserError(f"there is no {config.source}: name a file of weights or a folder")
    found = _completed(hub.read(config.source), config)
    record = _record(config.source)
    findings = config.findings or found.findings or tuple(record.get("findings", ()))
    encoder, head = _encoder(found, hub, config)
    provenance = record.get("provenance", {}) | {"imported": _origin(layout, config.source)}
    if findings:
        classifier = _classifier(encoder, head, findings, config.source)
        thresholds = {name: t for name, t in record.get("thresholds", {}).items() if name in findings}
        save_classifier(config.out, classifier, thresholds=thresholds, provenance=provenance)
    else:
        save_encoder(config.out, encoder, provenance)
    if head and not findings:
        log.info("the classifier of %s was left out: name its outputs with --findings to have it too", config.source)
    return config.out


def _completed(found: Found, config: ImportConfig) -> Found:
    """What the source says, and what the user says of it, who knows better."""
    said = {name: colours(v) for name in ("mean", "std") if (v := getattr(config, name)) is not None}
    found = replace(found, **said, heads=config.heads or found.heads)
    for name in ("mean", "std"):
        if getattr(found, name) is None:
            raise UserError(f"{config.source} does not say what {name} its images were normalised with: give --{name}")
    return found


def _record(source: Path) -> dict[str, Any]:
    """What we wrote into a folder, if it was us."""
    file = source / RECORD
    record = read_json(file) if file.is_file() else {"format": RECORD_FORMAT}
    if not isinstance(record, dict) or record.get("format") != RECORD_FORMAT:
        raise UserError(f"{file} is not in format {RECORD_FORMAT}: use the version of chexmsn that made it")
    return record


def _origin(layout: str, source: Path) -> dict[str, str]:
    with weights_file(source).open("rb") as file:
        return {"layout": layout, "source": source.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


# --- which network it is


def recognise(found: Found, hub: ModuleType, source: Path) -> EncoderConfig:
    """The encoder of ours that these weights are of; its mean and std are still to come.

    Raises UserError where there is none.
    """
    if first(hub.theirs("patch_embed.proj.weight", found.classifier)) in found.weights:
        return _transformer(found, hub, source)
    if {"conv1.weight", "layer1.0.conv1.weight"} <= found.weights.keys():
        name = "resnet50" if "layer1.0.conv3.weight" in found.weights else "resnet18"
        channels = found.weights["conv1.weight"].shape[1]
        return EncoderConfig(name=name, size=found.size or EncoderConfig.size, channels=channels)
    begins = ", ".join(list(found.weights)[:2])
    raise UserError(
        f"{source} holds no vision transformer or ResNet with the names of {hub.TITLE} (they begin {begins}): "
        "choose another --from"
    )


def _transformer(found: Found, hub: ModuleType, source: Path) -> EncoderConfig:
    def named(name: str) -> str:
        return first(hub.theirs(name, found.classifier))

    stem = found.weights[named("patch_embed.proj.weight")]
    positions = found.weights.get(named("pos_embed"))
    if positions is None:
        raise UserError(f"{source} has no {named('pos_embed')}: our transformers have learned or fixed positions")
    if stem.ndim != 4 or stem.shape[2] != stem.shape[3]:
        raise UserError(f"{source} has patches of shape {tuple(stem.shape)}: ours are square")
    width, channels, patch, _ = stem.shape
    side = math.isqrt(max(positions.shape[-2] - 1, 0)) if positions.ndim == 3 else 0
    if side == 0 or positions.shape[1] != 1 + side**2:
        raise UserError(
            f"{source} has positions of shape {tuple(positions.shape)}: ours are one of the class token and a square"
        )
    depth = 0
    while named(f"blocks.{depth}.norm1.weight") in found.weights:
        depth += 1
    name = next((name for name, size in VIT_SIZES.items() if size[:2] == (width, depth)), None)
    if name is None:
        ours = ", ".join(f"{name} ({size.width}, {size.depth})" for name, size in VIT_SIZES.items())
        raise UserError(f"{source} is {width} wide with {depth} blocks, which is none of our transformers: {ours}")
    _check_heads(found.heads, VIT_SIZES[name].heads, source)
    return EncoderConfig(name=name, patch=patch, size=side * patch, channels=channels)


def _check_heads(heads: int | None, ours: int, source: Path) -> None:
    if heads is None:
        raise UserError(
            f"{source} does not say how many attention heads it has, and weights do not show it: give --heads"
        )
    if heads != ours:
        raise UserError(
            f"{source} has {heads} attention heads, ours of its width {ours}: it would compute something else"
        )


# --- its weights


def _encoder(found: Found, hub: ModuleType, config: ImportConfig) -> tuple[Encoder, dict[str, Tensor]]:
    """The encoder, and the weights of the linear layer that came with it, if one did."""
    described = recognise(found, hub, config.source)
    encoder = empty_encoder(described)
    prefix, head = PREFIX[encoder.kind], HEAD[encoder.kind]
    wanted = [name.removeprefix(prefix) for name in encoder.state_dict()]
    wanted += [f"{head}weight", f"{head}bias"] if found.classifier else []
    weights = to_ours(found, wanted, hub.theirs, config.source)
    linear = {name.removeprefix(head): weights.pop(name) for name in list(weights) if name.startswith(head)}
    stem = _stem(weights, found, encoder, config)
    weights |= stem.weights(STEM[encoder.kind])
    encoder = empty_encoder(replace(described, channels=stem.weight.shape[1], mean=stem.mean, std=stem.std))
    fill(encoder, {prefix + name: tensor for name, tensor in weights.items()}, config.source)
    encoder.resize(config.size or described.size)
    return encoder, linear


def _classifier(encoder: Encoder, head: dict[str, Tensor], findings: tuple[str, ...], source: Path) -> Classifier:
    outputs = len(head["weight"]) if head else 0
    if outputs != len(findings):
        raise UserError(f"{source} has {outputs} outputs, not the {len(findings)} of {', '.join(findings)}")
    classifier = Classifier(encoder, findings)
    classifier.head.load_state_dict(head)
    return classifier


class Stem(NamedTuple):
    """The first convolution (a CNN's has no bias) and the normalisation before it."""

    weight: Float[Tensor, "width channels rows columns"]
    bias: Float[Tensor, " width"] | None
    mean: float | Colours
    std: float | Colours

    def weights(self, name: str) -> dict[str, Tensor]:
        """Under their names in a table."""
        weights = {f"{name}.weight": self.weight, f"{name}.bias": self.bias}
        return {name: tensor for name, tensor in weights.items() if tensor is not None}


def _stem(weights: dict[str, Tensor], found: Found, encoder: Encoder, config: ImportConfig) -> Stem:
    """The first convolution with as many channels as were asked for. Raises UserError where that is not possible."""
    name = STEM[encoder.kind]
    mean, std = (v[0] if len(set(v)) == 1 else v for v in (found.mean, found.std))
    stem = Stem(weights[f"{name}.weight"], weights.get(f"{name}.bias"), mean, std)
    if encoder.config.channels == 1:
        if config.channels == 3 or isinstance(mean, tuple) or isinstance(std, tuple):
            raise UserError(f"{config.source} has one channel: leave channels out, and give one --mean and one --std")
        return stem
    exact = encoder.kind == "transformer" or not isinstance(mean, tuple)
    if config.channels == 1 and not exact:
        raise UserError(
            f"{encoder.config.name} pads its border with the mean of each colour, which one channel cannot hold: "
            "choose --channels 3"
        )
    return stem if config.channels == 3 or not exact else one_channel(stem, found.mean, found.std)


def one_channel(stem: Stem, mean: Colours, std: Colours) -> Stem:
    """The same answer to a gray image in its one channel as to three equal ones.

    sum_c w_c (x - m_c) / s_c  =  (sum_c w_c S / s_c) (x - M) / S  +  sum_c w_c (M - m_c) / s_c

    M and S are the middle ones of the three: exactly theirs where they are equal, and then the constant is 0.
    Computed in float64.

    >>> gray = one_channel(Stem(torch.ones(1, 3, 1, 1), torch.zeros(1), 0.5, 0.25), (0.4, 0.5, 0.6), (0.2, 0.25, 0.25))
    >>> gray.weight.item(), round(gray.bias.item(), 6), gray.mean, gray.std
    (3.25, 0.1, 0.5, 0.25)
    """
    middle_mean, middle_std = sorted(mean)[1], sorted(std)[1]
    means, stds = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
    parts = stem.weight.double() / stds
    weight = (parts * middle_std).sum(1, keepdim=True)
    constant = (parts * (middle_mean - means)).sum((1, 2, 3))
    bias = None if stem.bias is None else (stem.bias.double() + constant).to(stem.bias)
    return Stem(weight.to(stem.weight), bias, middle_mean, middle_std)
