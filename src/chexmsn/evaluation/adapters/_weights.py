"""Weights for networks that other software builds."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from chexmsn.core.errors import UserError
from chexmsn.models.artefact import misfits


def fill_network(network: nn.Module, weights: Mapping[str, Tensor], name: str, location: Path) -> None:
    """Give a network its weights, all of them. Raises UserError with the names of those that do not fit."""
    weights = {key.removeprefix("module."): value for key, value in weights.items()}  # of torch's DataParallel
    if told := misfits(network.state_dict(), weights):
        raise UserError(f"the weights in {location} do not fit {name} ({told}): is it the network they were made with?")
    network.load_state_dict(weights)
