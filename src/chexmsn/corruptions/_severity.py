"""From a name and a severity to a corrupted batch."""

import inspect
from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core import lookup
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Images
from chexmsn.corruptions._known import NOTHING_KNOWN, Known

LEVELS_DEFINED_AT = 224
"""Side in pixels at which the severities have the strength that their source means."""


def apply(
    name: str,
    images: Images,
    severity: float | int | Float[Tensor, "B"],
    draws: Draws,
    known: Known = NOTHING_KNOWN,
) -> Images:
    """Corrupt images at a severity from 0 (the identity) to 5; between whole severities the level is interpolated.

    A corruption with a single level (a flip is one or is none) has it at every severity above 0.

    Returns images in [0, 1], each the same in whatever batch it comes. All severities use one field of
    noise per image, so a curve over severity shows the severity and not new noise. `known` goes to the
    corruptions that can use it. Raises UserError for an unknown name and for a number outside [0, 5]; a
    tensor is not read back from its device, so what lies outside is taken as the nearest end.
    """
    corruption = lookup.load("chexmsn.corruptions", name)
    severities = _severities(severity, images)
    level = _level(corruption, severities).expand(len(images))
    facts = {"known": known} if takes_known(corruption) else {}
    corrupted = corruption.corrupt(images, level, draws.stream(corruption.__name__), **facts)
    return torch.where(severities[:, None, None, None] > 0, corrupted, images)


def takes_known(corruption: ModuleType) -> bool:
    """Whether a corruption can use more than the pixels."""
    return "known" in inspect.signature(corruption.corrupt).parameters


def interpolated(x: Float[Tensor, "B"], knots: Sequence[float], values: Sequence[float]) -> Float[Tensor, "B"]:
    """The piecewise linear function with `values` at the ascending `knots`, exact there, constant beyond them.

    >>> interpolated(torch.tensor([-1.0, 0.5, 2.0, 9.0]), (0.0, 1.0, 3.0), (10.0, 20.0, 0.0))
    tensor([10., 15., 10.,  0.])
    """
    y = torch.full_like(x, values[0])
    for (left, right), (low, high) in zip(pairwise(knots), pairwise(values), strict=True):
        share = ((x - left) / (right - left)).clamp(max=1.0)
        y = torch.where(x > left, torch.lerp(torch.full_like(x, low), torch.full_like(x, high), share), y)
    return y


def distinct(level: Float[Tensor, "B"]) -> Float[Tensor, "R"]:
    """One level alone where all images share it: matrices and kernels are made once then, and broadcast.

    `apply` hands a shared level over as one number that is expanded, which can be seen without reading it.

    >>> distinct(torch.ones(1).expand(8)).shape, distinct(torch.ones(8)).shape
    (torch.Size([1]), torch.Size([8]))
    """
    return level[:1] if level.stride(0) == 0 else level


def _severities(severity: float | int | Float[Tensor, "B"], images: Images) -> Float[Tensor, "_"]:
    if isinstance(severity, Tensor):
        return severity.to(images.device, torch.float32)
    if not 0 <= severity <= 5:
        raise UserError(f"a severity must lie in [0, 5], not {severity:g}: choose 1 (mild) to 5 (strong)")
    return torch.full((1,), float(severity), device=images.device)


def _level(corruption: ModuleType, severities: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    if len(set(corruption.LEVELS)) == 1:
        return torch.where(severities > 0, corruption.LEVELS[0], corruption.IDENTITY)
    return interpolated(severities, (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), (corruption.IDENTITY, *corruption.LEVELS))
