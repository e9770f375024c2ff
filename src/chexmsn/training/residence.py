"""Where the pixels lie while a run goes on: in the device's memory, or in the pack, from which batches are read."""

import logging
from collections.abc import Sequence

import torch

from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection

log = logging.getLogger(__name__)

SHARE = 0.4
"""Of the free memory, what pixels may take where nobody decides. The rest is the step's: MSN with ViT-S at 512 images
keeps about 35 GB for its backward pass, and MIMIC-CXR's 25 GB beside it fit a GPU of 80 GB (docs/speed.md)."""


def resides(wanted: str, collections: Sequence[Collection], device: torch.device) -> bool:
    """Whether the pixels of these collections are to lie on the device; a GPU's answer is told in one line.

    Args:
        wanted: auto, always or never. A CPU that is not told has its pack in the system's cache already.
        collections: all that a run reads again and again.
        device: what it computes on.

    Raises:
        UserError: they must, and the device has not the memory.
    """
    if wanted == "never" or (wanted == "auto" and device.type == "cpu"):
        return False
    if device.type == "cpu":
        return True
    needed, free = sum(images.nbytes for images in collections), torch.cuda.mem_get_info(device)[0]
    return decided(wanted, needed, free)


def decided(wanted: str, needed: int, free: int) -> bool:
    """Whether so many bytes of pixels go to a GPU with so many free.

    >>> decided("auto", needed=25 * 10**9, free=78 * 10**9), decided("auto", needed=66 * 10**9, free=78 * 10**9)
    (True, False)
    """
    sizes = f"{needed / 1e9:.1f} GB, of {free / 1e9:.1f} GB free"
    if wanted == "always":
        if needed > free:
            raise UserError(f"the pixels do not fit into the GPU's memory ({sizes}): take --resident auto or never")
        return True
    fits = needed <= SHARE * free
    if fits:
        log.info("pixels: they lie in the GPU's memory (%s)", sizes)
    else:
        log.info("pixels: read from the pack, too many for %.0f %% of the GPU's memory (%s)", 100 * SHARE, sizes)
    return fits
