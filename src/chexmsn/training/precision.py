"""Number formats: what was asked for, and what the device can serve."""

import logging

import torch

from chexmsn.core.errors import UserError

log = logging.getLogger(__name__)

_LIGHTNING = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def choose_precision(name: str, device: torch.device) -> str:
    """Lightning's name for auto, 32, bf16 or 16 on this device.

    Automatic choice asks the device: a CPU without bfloat16 units is hundreds of times slower in bfloat16 than in
    float32, and half precision on a CPU has no working loss scaling, so a CPU always computes in float32.

    Raises:
        UserError: another name, or a format that the device cannot serve.

    >>> choose_precision("auto", torch.device("cpu"))
    '32-true'
    """
    if name not in ("auto", *_LIGHTNING):
        raise UserError(f"precision must be one of auto, {', '.join(_LIGHTNING)}, not {name!r}")
    if device.type != "cuda":
        if name in ("16", "bf16"):
            raise UserError(
                f"precision {name} needs a GPU, and this run is on {device.type}: take precision 32 (-p 32)"
            )
        return "32-true"
    has_units = torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "bf16" and not has_units:
        raise UserError("precision bf16 needs a GPU with bfloat16 units, which this one lacks: take 16 or 32")
    if name != "auto":
        return _LIGHTNING[name]
    log.info("precision: %s", "bf16, the GPU has units for it" if has_units else "32, the GPU has no bfloat16 units")
    return _LIGHTNING["bf16" if has_units else "32"]
