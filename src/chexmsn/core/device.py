"""The device a run computes on."""

import torch

from chexmsn.core.errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """The device behind `auto` (a CUDA GPU where there is one), `cpu` or `gpu`.

    Raises UserError for another name, and for a GPU where there is none.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name not in ("auto", "cpu", "gpu"):
        raise UserError(f"there is no device called {name!r}: choose one of auto, cpu, gpu")
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    if name == "gpu":
        raise UserError("a GPU was asked for, but torch sees none on this machine: take --device cpu (or --acc cpu)")
    return torch.device("cpu")
