"""The folders in which encoders and classifiers are kept, and how they come back.

An artefact is a folder of two files: `encoder.safetensors` or `classifier.safetensors`, and
`config.json`:

    format         1
    kind           encoder | classifier
    encoder        the fields of EncoderConfig
    findings       names in the order of the outputs (classifier)
    readout        what the linear layer reads of the features (classifier; older ones have none: pooled)
    thresholds     finding -> probability from which on it counts as present (classifier)
    preprocessing  what an image must go through before and inside the network, for other software
    fingerprint    of the weights, checked when they are loaded
    provenance     whatever the maker recorded: data, method, seed, corruptions seen

Models are loaded from an artefact, from a run folder that holds one (`encoder/`, `classifier/`), or
from a Lightning checkpoint of ours. Such a checkpoint has plain `hyper_parameters`: `encoder` (the
fields of EncoderConfig), `method`, `findings` (none: an encoder), `readout` (of a classifier) and
`downstream_prefix`, with which the names of the downstream model's weights begin in its state dict.
"""

import hashlib
import pickle
import shutil
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json, write_atomic, write_json
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import Encoder, EncoderConfig, build_encoder
from chexmsn.models.readout import READOUTS

FORMAT = 1
KINDS = ("encoder", "classifier")
_NAMED = 3  # how many weights an error names of each sort


@dataclass(frozen=True)
class ClassifierArtefact:
    """A classifier in evaluation mode and what was kept with it."""

    classifier: Classifier
    findings: tuple[str, ...]
    thresholds: dict[str, float]
    provenance: dict[str, Any]
    path: Path


@dataclass(frozen=True)
class _Stored:
    """A model as it lies on disk, whatever it lies in."""

    path: Path
    config: EncoderConfig
    findings: tuple[str, ...]  # none: an encoder
    readout: str
    weights: dict[str, Tensor]
    thresholds: dict[str, float]
    provenance: dict[str, Any]


def fingerprint(model: nn.Module) -> str:
    """The SHA-256 of all weights and buffers, in the order of their names, with their types and shapes.

    >>> fingerprint(nn.Linear(2, 2)) == fingerprint(nn.Linear(2, 2))
    False
    """
    return _digest(model.state_dict())


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_encoder(folder: Path, encoder: Encoder, provenance: Mapping[str, Any]) -> None:
    """Write an encoder and where it comes from. Whole or not at all; an older one is replaced.

    Raises UserError for a folder that holds anything else.
    """
    _save(Path(folder), "encoder", encoder, encoder.config, {"provenance": dict(provenance)})


def save_classifier(
    folder: Path, classifier: Classifier, *, thresholds: Mapping[str, float], provenance: Mapping[str, Any]
) -> None:
    """Write a classifier, its thresholds (a finding may have none) and where it comes from.

    Whole or not at all; an older one is replaced. Raises UserError for a folder that holds anything
    else, and for the threshold of a finding that the classifier does not know.
    """
    unknown = sorted(set(thresholds) - set(classifier.findings))
    if unknown:
        raise UserError(f"no output for the threshold of {unknown[0]}: findings are {', '.join(classifier.findings)}")
    extra = {
        "findings": list(classifier.findings),
        "readout": classifier.reads,
        "thresholds": dict(thresholds),
        "provenance": dict(provenance),
    }
    _save(Path(folder), "classifier", classifier, classifier.encoder.config, extra)


def load_encoder(path: Path, config: EncoderConfig | None = None) -> Encoder:
    """The encoder of an artefact, a run folder or a Lightning checkpoint; that of a classifier, where there is one.

    It comes in training mode like any new module, on the CPU. Where `config` is given, the encoder is
    of that configuration and the weights must fit it, except that position embeddings are resized to
    its image size; otherwise the recorded one is used. Raises UserError for a path that holds no
    model, a damaged file, and weights of another architecture (it names what does not fit).
    """
    stored = _read(Path(path), "encoder")
    wanted = config or stored.config
    encoder = empty_encoder(replace(wanted, size=stored.config.size))
    fill(encoder, _below("encoder.", stored.weights) if stored.findings else stored.weights, stored.path)
    encoder.resize(wanted.size)
    return encoder


def load_classifier(path: Path) -> ClassifierArtefact:
    """The classifier of an artefact, a run folder or a Lightning checkpoint (which has no thresholds), on the CPU.

    Raises UserError as `load_encoder` does, and for an encoder without a classifier.
    """
    stored = _read(Path(path), "classifier")
    if not stored.findings:
        raise UserError(f"{path} holds an encoder and no classifier: train one on it first")
    encoder = empty_encoder(stored.config)
    with torch.device("meta"):
        classifier = Classifier(encoder, stored.findings, stored.readout)
    fill(classifier, stored.weights, stored.path)
    return ClassifierArtefact(classifier.eval(), stored.findings, stored.thresholds, stored.provenance, stored.path)


def holds_classifier(path: Path) -> bool:
    """Whether an artefact, a run folder or a checkpoint holds a classifier. Raises UserError as `load_encoder` does."""
    return bool(_read(Path(path), "classifier").findings)


def provenance_of(path: Path) -> dict[str, Any]:
    """What the maker of an artefact recorded (of a checkpoint: its method). Raises UserError as `load_encoder` does."""
    return _read(Path(path), "encoder").provenance


# --- writing


def _save(folder: Path, kind: str, model: nn.Module, config: EncoderConfig, extra: dict[str, Any]) -> None:
    described = {
        "format": FORMAT,
        "kind": kind,
        "encoder": asdict(config),
        "preprocessing": preprocessing(config),
        "fingerprint": fingerprint(model),
    }
    _refuse_foreign(folder)
    temporary = folder.with_name(f".{folder.name}.partial")  # always the same, so that a killed run leaves one at most
    if temporary.exists():
        shutil.rmtree(temporary)
    try:
        new = temporary / "new"
        new.mkdir(parents=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        # the library's own files are readable by nobody else
        write_atomic(new / f"{kind}.safetensors", lambda file: save_file(weights, file))
        write_json(new / "config.json", described | extra)
        _exchange(new, folder, temporary / "old")
    except SafetensorError as error:  # its word for a full disk
        raise UserError(f"cannot write {folder}: {_one_line(error)}; make room or choose another place") from None
    finally:
        shutil.rmtree(temporary)


def _refuse_foreign(folder: Path) -> None:
    ours = {"config.json", *(f"{kind}.safetensors" for kind in KINDS)}
    foreign = sorted({file.name for file in folder.iterdir()} - ours) if folder.exists() else []
    if foreign:
        raise UserError(f"a model would replace {folder}, which holds other files ({foreign[0]}): choose a new folder")


def _exchange(new: Path, folder: Path, old: Path) -> None:
    """Put a folder in the place of another.

    These are two steps: a kill between them leaves no folder, until the run is resumed and saves again.
    """
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise


def preprocessing(config: EncoderConfig) -> dict[str, Any]:
    """What an image goes through before and inside an encoder, in words and numbers."""
    return {
        "size": config.size,
        "view": "the central 224/256 of the short side, square, resized to size x size, one channel in [0, 1]",
        "mean": config.mean,
        "std": config.std,
        "channels": config.channels,
        "normalisation": "inside the network, its first layer: (image - mean) / std, repeated for each channel",
    }


# --- reading


def _read(path: Path, kind: str) -> _Stored:
    if not path.exists():
        raise UserError(f"there is no {path}: name a run folder, a folder with config.json, or a .ckpt file")
    if path.suffix == ".safetensors" and path.is_file():
        return _read_folder(path.parent)  # what the weights are of stands beside them
    if path.is_file():
        return _read_checkpoint(path)
    return _read_folder(_artefact_in(path, kind))


def _artefact_in(folder: Path, kind: str) -> Path:
    """The artefact that a folder is or holds; of a run with both, the one of this kind."""
    places = [folder, folder / kind, *(folder / other for other in KINDS)]
    for place in places:
        if (place / "config.json").is_file() and any((place / f"{k}.safetensors").is_file() for k in KINDS):
            return place
    checkpoint = folder / "checkpoints" / "last.ckpt"
    hint = f"give the run's command again, or name {checkpoint}" if checkpoint.is_file() else "is it a run folder?"
    raise UserError(f"{folder} holds no trained model (no encoder/ or classifier/ with config.json): {hint}")


def _read_folder(folder: Path) -> _Stored:
    described = read_json(folder / "config.json")
    if not isinstance(described, dict) or described.get("format") != FORMAT or described.get("kind") not in KINDS:
        raise UserError(f"{folder}/config.json does not describe a model in format {FORMAT}: was it made by chexmsn?")
    file = folder / f"{described['kind']}.safetensors"
    weights = read_safetensors(file)
    if _digest(weights) != described.get("fingerprint"):
        raise UserError(f"{file} is not what {folder}/config.json describes (another fingerprint): restore both files")
    return _Stored(
        folder,
        _config(described.get("encoder"), folder),
        tuple(described.get("findings", ())),
        _readout(described, folder),
        weights,
        described.get("thresholds", {}),
        described.get("provenance", {}),
    )


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The weights of a file, on the CPU. Raises UserError for a damaged file and for anything else."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({_one_line(error)}): restore it or make it anew") from None


# what torch's reader may say of bytes that were never meant for it
_NO_PICKLE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ImportError),
    *(MemoryError, struct.error, pickle.UnpicklingError),
)


def read_pickle(file: Path, remedy: str) -> Any:
    """What torch has saved in a file, on the CPU, as far as it is plain values and tensors.

    Raises UserError, which ends with the remedy, for a damaged file and for one that would run code.
    """
    try:
        with warnings.catch_warnings():
            # a remark on how old the pickle is; whether it can be read shows in the next line
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(file, map_location="cpu", weights_only=True)
    except _NO_PICKLE as error:
        # what torch says of anything else than weights advises to load it unsafely
        reason = "" if isinstance(error, pickle.UnpicklingError) else f" ({_one_line(error)})"
        raise UserError(f"{file} is not a checkpoint that can be read safely{reason}: {remedy}") from None


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint of a run, on the CPU. Raises UserError for a damaged file and for anything else."""
    checkpoint = read_pickle(file, "name a run folder")
    described = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
    if not isinstance(described, dict) or "downstream_prefix" not in described:
        raise UserError(f"{file} is no checkpoint of a chexmsn run (it does not say what it holds): name a run folder")
    return checkpoint


def _read_checkpoint(file: Path) -> _Stored:
    checkpoint = read_checkpoint(file)
    described = checkpoint["hyper_parameters"]
    return _Stored(
        file,
        _config(described["encoder"], file),
        tuple(described["findings"]),
        _readout(described, file),
        _below(described["downstream_prefix"], checkpoint["state_dict"]),
        {},
        {"checkpoint": file.name, "method": described["method"]},
    )


def _below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _config(described: Any, path: Path) -> EncoderConfig:
    known = {field.name for field in fields(EncoderConfig)}
    if not isinstance(described, Mapping) or not described.keys() <= known:
        strange = ", ".join(sorted(described.keys() - known)) if isinstance(described, Mapping) else described
        raise UserError(
            f"{path} describes an encoder this version does not know ({strange}): use the version that made it"
        )
    try:
        return EncoderConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in described.items()})
    except TypeError:
        raise UserError(f"{path} describes an encoder with values of the wrong kind ({dict(described)})") from None


def _readout(described: Mapping[str, Any], path: Path) -> str:
    readout = described.get("readout", "pooled")
    if readout not in READOUTS:
        raise UserError(
            f"{path} holds a classifier this version does not know ({readout}): use the version that made it"
        )
    return readout


def empty_encoder(config: EncoderConfig) -> Encoder:
    """An encoder without weights: nothing is drawn and nothing filled twice."""
    with torch.device("meta"):
        return build_encoder(config)


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a model its weights. Raises UserError with the names of those that do not fit; `path` is where they lay."""
    if told := misfits(model.state_dict(), weights):
        name = getattr(model, "encoder", model).config.name
        raise UserError(f"the weights in {path} do not fit {name}: {told}. Choose the encoder they were trained with")
    model.load_state_dict(weights, assign=True)


def misfits(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """What a table of weights lacks, has too much, and has in another shape than wanted; empty where they fit."""
    shared = wanted.keys() & weights.keys()
    problems = {
        "missing": [name for name in wanted if name not in weights],
        "unexpected": [name for name in weights if name not in wanted],
        "of another shape": [
            f"{name} ({_shape(weights[name])}, not {_shape(wanted[name])})"
            for name in wanted
            if name in shared and weights[name].shape != wanted[name].shape
        ],
    }
    return in_words(problems)


def in_words(problems: Mapping[str, Sequence[str]]) -> str:
    """Names by what is wrong with them, a few of each sort; empty where there are none.

    >>> in_words({"missing": ["cls_token", "norm.bias", "norm.weight", "pos_embed"], "unexpected": []})
    'missing: cls_token, norm.bias, norm.weight and 1 more'
    """
    return "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _one_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
