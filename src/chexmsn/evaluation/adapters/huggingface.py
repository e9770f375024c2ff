"""Image classifiers of Hugging Face transformers: a folder with `config.json` and safetensors.

https://github.com/huggingface/transformers. What the folder's image processor makes of a black and a white image says
what the network is fed: size, mean, std and rescaling, whatever the processor calls them. Code in the folder does not
run, and nothing is downloaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.core.libraries import library
from chexmsn.evaluation.adapters._model import Model, Options, settled
from chexmsn.evaluation.result_folder import name_of
from chexmsn.models.artefact import fingerprint

TITLE = "Hugging Face"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
ANSWERS = {"multi_label_classification": "logits", "single_label_classification": "softmax"}
PROBED = 512  # side of the images shown to the processor: any that is large enough for it


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What the folder does not say."""


class Logits(nn.Module):
    """A classifier of Hugging Face that takes and gives tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """The logits."""
        return self.network(pixel_values=pixels).logits


def open(location: Path, config: Config) -> Model:
    """The classifier in a folder. Raises UserError for anything else, and for weights that are not all there."""
    if not (location / "config.json").is_file():
        raise UserError(f"{location} has no config.json: name a folder that save_pretrained wrote")
    network = _network(location)
    described = network.config
    names = [described.id2label[place] for place in range(described.num_labels)]
    said = {
        "findings": None if names == [f"LABEL_{place}" for place in range(len(names))] else names,
        "channels": getattr(described, "num_channels", 3),
        "answers": ANSWERS.get(described.problem_type, "logits" if described.num_labels == 1 else None),
    }
    return Model(
        name=name_of(location),
        adapter="huggingface",
        network=type(network).__name__,
        kind="transformer" if hasattr(described, "num_attention_heads") else "cnn",
        fingerprint=fingerprint(network),
        call=Logits(network).eval(),
        **settled(config, said | _processing(location), location, needed=("mean", "std")),
    )


def _network(location: Path) -> nn.Module:
    transformers = library("transformers", "huggingface")
    try:
        with _without_bars(transformers.utils.logging):
            network, loading = transformers.AutoModelForImageClassification.from_pretrained(
                location, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError) as error:  # its words for no weights, damaged ones, and kinds that do not classify
        raise UserError(
            f"{location} cannot be read ({_one_line(error)}): name a folder of an image classifier"
        ) from None
    if absent := sorted(loading["missing_keys"]):
        raise UserError(f"{location} lacks the weights {', '.join(absent[:3])}: is it an encoder without a classifier?")
    return network.float()


@contextmanager
def _without_bars(logging: ModuleType) -> Iterator[None]:
    """Weights from a disk are there at once: a bar of them beside ours only unsettles. Warnings are told as before."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _processing(location: Path) -> dict[str, Any]:
    """What the processor says. Empty where there is none."""
    files = [location / name for name in PROCESSORS if (location / name).is_file()]
    if not files:
        return {}
    processor = library("transformers", "huggingface").AutoImageProcessor.from_pretrained(
        location, local_files_only=True
    )
    black, white = (_shown(processor, value) for value in (0, 255))
    if black.shape[1] != black.shape[2]:
        raise UserError(
            f"the processor in {location} makes images of {black.shape[1]} x {black.shape[2]}: not a square"
        )
    low, high = black.mean(axis=(1, 2)), white.mean(axis=(1, 2))
    return {
        "size": black.shape[1],
        "shown": _share(read_json(files[0])),
        "mean": tuple((-low / (high - low)).tolist()),
        "std": tuple((1 / (high - low)).tolist()),
    }


def _shown(processor: Any, value: int) -> Float[np.ndarray, "3 H W"]:
    image = np.full((PROBED, PROBED, 3), value, dtype=np.uint8)
    return torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"][0])).double().numpy()


def _share(described: dict[str, Any]) -> float:
    """The share of the short side that a centre crop leaves; 1 without one."""
    described = described.get("image_processor", described)
    size, crop = described.get("size"), described.get("crop_size")
    if not described.get("do_center_crop") or not isinstance(size, dict) or not isinstance(crop, dict):
        return 1.0
    side = size.get("shortest_edge", size.get("height"))
    return min(1.0, crop["height"] / side) if side and crop.get("height") else 1.0


def _one_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
