"""A model on its way from or to other software."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from chexmsn.core.errors import UserError
from chexmsn.models._base import ViTSize
from chexmsn.models.artefact import in_words, read_pickle, read_safetensors
from chexmsn.models.encoder import VIT_SIZES, EncoderConfig

Colours = tuple[float, float, float]

# The mean and standard deviation of ImageNet's pixels, by channel, which most published weights expect.
IMAGENET_MEAN: Colours = (0.485, 0.456, 0.406)
IMAGENET_STD: Colours = (0.229, 0.224, 0.225)

HUBS = "chexmsn.models.hubs"
RECORD = "chexmsn.json"  # in every exported folder: what is known of the model
RECORD_FORMAT = 1

# What names begin with in our encoders and not in timm; the linear layer of a classifier there; the first convolution.
PREFIX = {"transformer": "vit.", "cnn": "resnet."}
HEAD = {"transformer": "head.", "cnn": "fc."}
STEM = {"transformer": "patch_embed.proj", "cnn": "conv1"}

SHOWN = 224 / 256  # of an image's short side is seen in evaluation
HEAD_WIDTH = 64  # of every transformer of ours, and of those that Dosovitskiy et al. 2021 published
MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
WRAPPERS = ("state_dict", "model")  # what training scripts keep the weights under, beside epoch and optimiser


class Usage(NamedTuple):
    """Python for the reader of an exported folder: `load` makes `model`, `call` makes `outputs` from `pixels`."""

    load: str
    call: str


@dataclass(frozen=True, kw_only=True)
class Portable:
    """A model of ours as other software takes it: three input channels, timm's names of the weights.

    Without findings it is an encoder, else a classifier of one output per finding.
    """

    config: EncoderConfig
    findings: tuple[str, ...]
    weights: dict[str, Tensor]

    @property
    def is_transformer(self) -> bool:
        """Whether it is a vision transformer, not a ResNet."""
        return self.config.name in VIT_SIZES

    @property
    def shape(self) -> ViTSize:
        """Width, depth and heads of a transformer."""
        return VIT_SIZES[self.config.name]

    @property
    def mean(self) -> Colours:
        """What is taken off the three channels."""
        return colours(self.config.mean)

    @property
    def std(self) -> Colours:
        """What the differences are divided by."""
        return colours(self.config.std)


def colours(value: float | Sequence[float]) -> Colours:
    """One number per colour, of one number or of three. Raises UserError for anything else.

    >>> colours(0.5), colours([0.4, 0.5, 0.6])
    ((0.5, 0.5, 0.5), (0.4, 0.5, 0.6))
    """
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) not in (1, 3) or not all(isinstance(number, float | int) for number in values):
        raise UserError(f"mean and std are one number or three, one per channel, not {value}")
    return tuple(map(float, values * 3))[:3]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a file or folder of other software holds; what it does not say is None.

    Attributes:
        weights: under their names.
        classifier: whether the weights of a linear classifier are among them.
        findings: names of the classifier's outputs, where these are findings that do not exclude each other.
        heads: attention heads of a block.
        mean: taken off each channel.
        std: what the differences are divided by.
        size: side of its images in pixels.
    """

    weights: dict[str, Tensor]
    classifier: bool = False
    findings: tuple[str, ...] = ()
    heads: int | None = None
    mean: Colours | None = None
    std: Colours | None = None
    size: int | None = None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The table of weights in a file, or in a folder.

    Raises UserError where there is none, for a damaged file, and for one that would run code.
    """
    file = weights_file(path)
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    checkpoint = read_checkpoint(file)
    return only_tensors(next((checkpoint[name] for name in WRAPPERS if name in checkpoint), checkpoint), file)


def weights_file(path: Path) -> Path:
    """The file itself, or the one of a folder that has the usual name. Raises UserError where there is none."""
    file = next((path / name for name in MODEL_FILES if (path / name).is_file()), path) if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{path} holds no weights: name a file, or a folder with {' or '.join(MODEL_FILES)}")
    return file


def read_checkpoint(file: Path) -> Mapping:
    """What torch has saved, a table of some sort. Raises UserError as `read_weights` does."""
    content = read_pickle(file, "save its weights alone, best as .safetensors")
    if not isinstance(content, Mapping):
        raise UserError(f"{file} holds {_kind(content)}, no table of weights: save the model's state_dict()")
    return content


def only_tensors(table: object, file: Path) -> dict[str, Tensor]:
    """The table, as one of names and tensors. Raises UserError where it is anything else."""
    if not isinstance(table, Mapping):
        raise UserError(f"{file} holds {_kind(table)}, no table of weights: save the model's state_dict()")
    strange = [str(name) for name, value in table.items() if not isinstance(value, Tensor)]
    if strange or not table:
        told = f"{strange[0]} is {_kind(table[strange[0]])}" if strange else "it is empty"
        raise UserError(f"{file} holds no plain table of weights ({told}): save the model's state_dict() alone")
    return {str(name): value for name, value in table.items()}


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


Theirs = Callable[[str, bool], str | tuple[str, str, str]]


def to_theirs(weights: Mapping[str, Tensor], theirs: Theirs, classifier: bool) -> dict[str, Tensor]:
    """Weights under their names; queries, keys and values apart where they keep them so."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        names = _several(theirs(name, classifier))
        renamed |= zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True)
    return {name: tensor.contiguous().clone() for name, tensor in renamed.items()}


def to_ours(found: Found, wanted: Iterable[str], theirs: Theirs, source: Path) -> dict[str, Tensor]:
    """The wanted weights under our names, in float32. Raises UserError with what is missing and what is too much."""
    names = {name: _several(theirs(name, found.classifier)) for name in wanted}
    flat = [name for several in names.values() for name in several]
    missing = [name for name in flat if name not in found.weights]
    unexpected = sorted(found.weights.keys() - set(flat))
    if told := in_words({"missing": missing, "unexpected": unexpected}):
        raise UserError(f"the weights in {source} are not those of this layout: {told}. Was another --from meant?")
    joined = {
        name: torch.cat([found.weights[n] for n in several]) if len(several) > 1 else found.weights[several[0]]
        for name, several in names.items()
    }
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in joined.items()}


def first(names: str | tuple[str, str, str]) -> str:
    """The name, or that of the queries."""
    return names if isinstance(names, str) else names[0]


def _several(names: str | tuple[str, str, str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
