"""Window: a part of the display range stretched over all of it, the rest black or white.

Cause: DICOM window centre and width of another vendor, reader or export.
Source: general knowledge of the field; CheXphoto's contrast (Phillips et al. 2020, arXiv 2007.06199, code read) is of
this kind. Ladder: ours. Where the window lies within the range is drawn; a wider one is `contrast`.
Level: the window's width as a share of the display range. No lengths are involved, so it is the same at 224 px and any
size.
"""

from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "Window"
CAUSE = "window centre and width of another vendor, reader or export"
SOURCE = "general knowledge; CheXphoto, arXiv 2007.06199 (code read); ladder ours"
FAMILY = "radiographic"
UNIT = "width, share of the display range"
LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5)
IDENTITY = 1.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Show a window of width `level`."""
    darkest = draws.uniform(1)[:, 0] * (1 - level)
    return ((images - darkest[:, None, None, None]) / level[:, None, None, None]).clamp_(0.0, 1.0)
