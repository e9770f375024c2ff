"""Classifiers in ONNX files, run by ONNX Runtime.

https://onnx.ai and https://onnxruntime.ai. The file says its size and channels, where they are fixed; not its names of
outputs. It runs on a GPU where the installed
runtime knows one (onnxruntime-gpu), else on the CPU.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from chexmsn.core.errors import UserError
from chexmsn.core.libraries import library
from chexmsn.evaluation.adapters._model import Model, Options, settled
from chexmsn.evaluation.result_folder import name_of

TITLE = "ONNX"
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")

TYPES = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What the file does not say.

    Attributes:
        output: name of the output with the answers, where there are several.
    """

    output: str | None = None


class Session:
    """An ONNX file that takes and gives tensors, a batch at a time or, where it is made for one image, one by one."""

    def __init__(self, runtime: Any, output: str) -> None:
        self.runtime, self.output = runtime, output
        self.input = runtime.get_inputs()[0]

    def __call__(self, pixels: Float[Tensor, "B C H W"]) -> Shaped[Tensor, "B ..."]:
        """The answers, on the device of the images."""
        batch = self.input.shape[0]
        parts = pixels.split(batch) if isinstance(batch, int) else [pixels]
        answers = [self.runtime.run([self.output], {self.input.name: self._typed(part)})[0] for part in parts]
        return torch.from_numpy(np.concatenate(answers)).to(pixels.device)

    def _typed(self, pixels: Float[Tensor, "B C H W"]) -> Shaped[np.ndarray, "B C H W"]:
        return pixels.cpu().numpy().astype(TYPES[self.input.type])


def open(location: Path, config: Config) -> Model:
    """The network in a file. Raises UserError for anything else, and for one that does not take images."""
    runtime = _runtime(location)
    shape = runtime.get_inputs()[0].shape
    if len(shape) != 4 or len(runtime.get_inputs()) > 1 or (isinstance(shape[0], int) and shape[0] != 1):
        told = ", ".join(f"{entry.name} {entry.shape}" for entry in runtime.get_inputs())
        raise UserError(
            f"{location} takes {told}: one input is needed, of one or any number of images x channels x size"
        )
    if (kind := runtime.get_inputs()[0].type) not in TYPES:
        raise UserError(f"{location} takes {kind}: export it with an input of one of {', '.join(TYPES)}")
    _, channels, height, width = shape
    if height != width and isinstance(height, int) and isinstance(width, int):
        raise UserError(f"{location} takes images of {height} x {width}: they must be squares")
    fixed = {"channels": channels, "size": height}
    said = {name: value for name, value in fixed.items() if isinstance(value, int)} | {"answers": "probabilities"}
    for name, value in said.items():
        if name in fixed and getattr(config, name) not in (None, value):
            raise UserError(f"{location} takes images of {name} {value}, not {getattr(config, name)}: leave {name} out")
    return Model(
        name=name_of(location),
        adapter="onnx",
        network=runtime.get_modelmeta().graph_name,
        kind="callable",
        fingerprint=_digest(location),
        call=Session(runtime, _output(runtime, config, location)),
        **settled(config, said, location),
    )


def _runtime(location: Path) -> Any:
    onnxruntime = library("onnxruntime", "onnx")
    if not location.is_file():
        raise UserError(f"there is no file {location}: name an .onnx file")
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    providers = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(location, providers=providers)
    except (errors.Fail, errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument) as error:
        raise UserError(f"{location} is no ONNX file that can be read: {str(error).partition(chr(10))[0]}") from None


def _output(runtime: Any, config: Config, location: Path) -> str:
    offered = [entry.name for entry in runtime.get_outputs()]
    if (config.output is None and len(offered) > 1) or config.output not in (None, *offered):
        raise UserError(f"{location} has the outputs {', '.join(offered)}: choose one with --options.output")
    return config.output or offered[0]


def _digest(location: Path) -> str:
    """The SHA-256 of the file, and of the weights beside it where torch's exporter put them."""
    digest = hashlib.sha256()
    for file in (location, location.with_name(f"{location.name}.data")):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
