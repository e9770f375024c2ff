"""Changes of a view's intensities and sharpness that make sense for one channel."""

from dataclasses import dataclass

import torch

from chexmsn.core.bands import gaussian_blur
from chexmsn.core.draws import Draws
from chexmsn.core.limits import check_limits
from chexmsn.core.shapes import Images


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Random brightness, contrast and gamma: exposure and window settings differ between radiographs.

    The defaults are what MSN's colour jitter (strength 0.5) leaves of itself in one channel.

    Attributes:
        brightness: the image is multiplied by 1 - brightness ... 1 + brightness.
        contrast: its distance to its mean is multiplied by 1 - contrast ... 1 + contrast.
        gamma: its exponent is log-uniform in 1 / (1 + gamma) ... 1 + gamma.
        probability: share of the views that are jittered.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    gamma: float = 0.0
    probability: float = 0.8

    def __post_init__(self) -> None:
        check_limits(self, "jitter", brightness="[0, 1]", contrast="[0, 1]", gamma="[0, 1]", probability="[0, 1]")

    def corruptions(self) -> dict[str, dict[str, object]]:
        """Which corruptions of a stress test it is, and how much of each.

        >>> Jitter(contrast=0.0).corruptions()
        {'brightness': {'brightness': 0.4, 'probability': 0.8}}
        """
        amounts = {"brightness": self.brightness, "contrast": self.contrast, "gamma": self.gamma}
        return {
            name: {name: amount, "probability": self.probability}
            for name, amount in amounts.items()
            if amount and self.probability
        }


def jitter(images: Images, how: Jitter, draws: Draws) -> Images:
    """Change brightness, contrast and gamma of each image, in this order, clamping to [0, 1] in between."""
    numbers = draws.uniform(4)
    brightness, contrast, gamma = (2 * numbers[:, :3, None, None, None] - 1).unbind(1)
    brighter = (images * (1 + how.brightness * brightness)).clamp(0.0, 1.0)
    mean = brighter.mean(dim=(2, 3), keepdim=True)
    stretched = torch.lerp(mean, brighter, 1 + how.contrast * contrast).clamp(0.0, 1.0)
    jittered = stretched ** ((1 + how.gamma) ** gamma)
    return torch.where(numbers[:, 3, None, None, None] < how.probability, jittered, images)


@dataclass(frozen=True, kw_only=True)
class Blur:
    """A random Gaussian blur.

    The defaults are MSN's.

    Attributes:
        sigma: range of the standard deviation, in pixels of the view.
        probability: share of the views that are blurred.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_limits(self, "blur", sigma="[0, inf)", probability="[0, 1]")

    def corruptions(self) -> dict[str, dict[str, object]]:
        """Which corruption of a stress test it is, and how much of it."""
        if not (self.probability and max(self.sigma)):
            return {}
        return {"gaussian-blur": {"sigma": list(self.sigma), "probability": self.probability}}


def blur(images: Images, how: Blur, draws: Draws) -> Images:
    """Blur each image by its own sigma; those not chosen have sigma 0, the identity."""
    width, chosen = draws.uniform(2).T
    sigma = how.sigma[0] + (how.sigma[1] - how.sigma[0]) * width
    return gaussian_blur(images, torch.where(chosen < how.probability, sigma, 0.0), how.sigma[1])
