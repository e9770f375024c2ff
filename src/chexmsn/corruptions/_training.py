"""Corruption in training, and a record of what was seen: an unseen corruption must be truly unseen."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from chexmsn.core import lookup
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.shapes import Images
from chexmsn.corruptions._severity import apply


@dataclass(frozen=True, kw_only=True)
class CorruptionPlan:
    """With which probability training images are corrupted, and by what.

    Raises UserError for a name that does not exist and for values out of range.

    Attributes:
        names: corruptions to choose from, with equal chances.
        severity: range of the severity, drawn uniformly.
        probability: share of the images that are corrupted.
    """

    names: tuple[str, ...]
    severity: tuple[float, float] = (1.0, 5.0)
    probability: float = 0.5

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("corruption in training needs at least one name: choose for example gaussian-blur")
        if len(set(self.names)) < len(self.names):
            raise UserError(
                f"corruptions in training are named once each, not {', '.join(self.names)}: drop the repeats"
            )
        for name in self.names:
            lookup.load("chexmsn.corruptions", name)
        check_limits(self, "corruption", severity="[0, 5]", probability="[0, 1]")

    def describe(self) -> list[dict[str, object]]:
        """What a model trained with this plan has seen, one entry per corruption, ready for JSON.

        >>> CorruptionPlan(names=("gaussian-blur",)).describe()[0]["corruption"]
        'gaussian-blur'
        """
        return [self._describe(name) for name in self.names]

    def _describe(self, name: str) -> dict[str, object]:
        corruption = lookup.load("chexmsn.corruptions", name)
        return {
            "corruption": name.replace("_", "-"),
            "severity": list(self.severity),
            "probability": self.probability / len(self.names),
            "levels": list(corruption.LEVELS),
            "unit": corruption.UNIT,
        }


def corrupt_for_training(images: Images, plan: CorruptionPlan, draws: Draws) -> Images:
    """Corrupt a share of the images, each by a corruption and a severity of its own; returns a new tensor in [0, 1].

    An accelerator is not asked which images are meant: each corruption is computed for all of them.
    """
    use, which, strength = draws.stream("corruption in training").uniform(3).T
    severity = plan.severity[0] + (plan.severity[1] - plan.severity[0]) * strength
    choice = torch.where(use < plan.probability, (which * len(plan.names)).long(), -1)
    corrupt = _those_meant if images.device.type == "cpu" else _all
    corrupted = images.clone()
    for number, name in enumerate(plan.names):
        corrupted = corrupt(name, corrupted, severity, choice == number, draws)
    return corrupted


def _those_meant(
    name: str, images: Images, severity: Float[Tensor, "B"], meant: Bool[Tensor, "B"], draws: Draws
) -> Images:
    if meant.any():
        images[meant] = apply(name, images[meant], severity[meant], Draws(draws.keys[meant]))
    return images


def _all(name: str, images: Images, severity: Float[Tensor, "B"], meant: Bool[Tensor, "B"], draws: Draws) -> Images:
    return apply(name, images, torch.where(meant, severity, 0.0), draws)  # severity 0 is the identity
