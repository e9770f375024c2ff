"""Plasma noise: clouds with structure at every size, blended with the image.

Cause: none in radiography: a guard against training that has merely learned the usual list.
Source: after ImageNet-C-bar's plasma noise (Mintun et al. 2021, `facebookresearch/augmentation-corruption`, readme
read); here normal noise whose amplitude falls as the frequency to the power 1.5, form and ladder ours. Keep it out
of training.
Level: share of the clouds in the blend. The clouds are as large as the image, at 224 px and any size.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Plasma noise"
CAUSE = "none: held back from training, against learning the usual list"
SOURCE = "after ImageNet-C-bar, Mintun et al. 2021 (readme read); form and ladder ours"
FAMILY = "held-back"
UNIT = "share of the clouds"
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
IDENTITY = 0.0
_FALL = 1.5


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blend with clouds by `level`."""
    return images.lerp(clouds(draws.normal_field(images.shape[1:])), level[:, None, None, None]).clamp_(0.0, 1.0)


def clouds(noise: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Normal noise made smooth, from 0 to 1 in each image."""
    height, width = noise.shape[2:]
    down = torch.fft.fftfreq(height, device=noise.device)[:, None]
    across = torch.fft.rfftfreq(width, device=noise.device)
    frequency = torch.hypot(down, across).clamp(min=1 / max(height, width))
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency**_FALL, s=(height, width))
    low, high = smooth.amin(dim=(2, 3), keepdim=True), smooth.amax(dim=(2, 3), keepdim=True)
    return (smooth - low) / (high - low)
