"""From a name and a severity to a corrupted batch."""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core import lookup
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Images

LEVELS_DEFINED_AT = 224
"""Side in pixels at which the severities have the strength that their source means."""


def apply(name: str, images: Images, severity: float | int | Float[Tensor, "B"], draws: Draws) -> Images:
    """Corrupt images at a severity from 0 (the identity) to 5; between whole severities the level is interpolated.

    Returns images in [0, 1], each the same in whatever batch it comes. All severities use one field of
    noise per image, so a curve over severity shows the severity and not new noise. Raises UserError
    for an unknown name and for a severity outside [0, 5].
    """
    corruption = lookup.load("chexmsn.corruptions", name)
    severities = torch.as_tensor(severity, dtype=torch.float32, device=images.device).expand(len(images))
    wrong = severities[~((severities >= 0) & (severities <= 5))]
    if len(wrong):
        raise UserError(f"a severity must lie in [0, 5], not {wrong[0].item():g}: choose 1 (mild) to 5 (strong)")
    ladder = torch.tensor([corruption.IDENTITY, *corruption.LEVELS], device=images.device)
    below = severities.long().clamp(max=4)
    level = torch.lerp(ladder[below], ladder[below + 1], severities - below)
    corrupted = corruption.corrupt(images, level, draws.stream(corruption.__name__))
    return torch.where(severities[:, None, None, None] == 0, images, corrupted)
