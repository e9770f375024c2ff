"""Missing rows: some rows, or some columns, are black.

Cause: dead read-out lines of a detector, errors of transfer and of scanning.
Source: general knowledge of the field; ladder ours. Which they are is drawn, and so is whether they are rows or
columns.
Level: share of the rows lost, exact: a broken number of rows covers the last in part. What is lost at a mild level
is lost at a stronger one. At 224 px, a row of a 430 mm field is 1.9 mm wide, ten or more lines of a detector.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images
from chexmsn.corruptions._coverage import painted, present

TITLE = "Missing rows"
CAUSE = "dead read-out lines, errors of transfer"
SOURCE = "general knowledge; ladder ours"
FAMILY = "missing"
UNIT = "share of the rows or columns"
LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5)
IDENTITY = 0.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Blacken a share `level` of the rows, or of the columns."""
    rows, columns = (
        present(level * side, draws.stream(axis).permutation(side).float())
        for axis, side in zip(("rows", "columns"), images.shape[2:], strict=True)
    )
    across = draws.uniform(1)[:, :, None, None] < 0.5
    return painted(images, torch.where(across, rows[:, None, :, None], columns[:, None, None, :]), 0.0)
