"""Bit depth: gray levels are cut to few, evenly spaced from black to white.

Cause: 12 to 16 bit exported as 8, or as the fewer that are left after windowing and compression.
Source: 16 to 8 bit changes AUROC by -0.2 to +0.2 % over 100,002 radiographs (medRxiv 10.64898/2026.03.07.26347853,
abstract read). Ladder: ours.
Level: bits, of which a broken number has a broken number's power of 2 of gray levels, rounded. No lengths are
involved, so it is the same at 224 px and any size.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Bit depth"
CAUSE = "export of 12 to 16 bit as fewer"
SOURCE = "medRxiv 10.64898/2026.03.07.26347853 (abstract read); ladder ours"
FAMILY = "radiographic"
UNIT = "bits"
LEVELS = (7.0, 6.0, 5.0, 4.0, 3.0)
IDENTITY = 16.0
_BELOW_ONE = 1 - 2**-22  # so that white belongs to the last level, and no value of 16 bit is rounded into the next


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Cut to 2 ** `level` gray levels. Nothing is drawn."""
    grays = (2**level).round()[:, None, None, None]
    return (images * (grays * _BELOW_ONE)).floor() / (grays - 1)
