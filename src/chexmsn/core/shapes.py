"""Names of the array shapes that travel through the house.

B images of a batch, H and W height and width in pixels, S side of a pack, C findings, N patches,
K kept patches, D width of a feature.
"""

from jaxtyping import Float, Int64, UInt8, UInt16
from torch import Tensor

Pixels = UInt8[Tensor, "B S S"] | UInt16[Tensor, "B S S"]
"""Images as they lie in a pack: one channel, 8 or 16 bit; white is 255 or 65535."""

Images = Float[Tensor, "B 1 H W"]
"""Images as every view, corruption and model takes them: one channel in [0, 1], not normalised."""

Keys = Int64[Tensor, "B"]
"""One stable 64-bit key per image; every random decision about the image starts from it."""

Labels = Float[Tensor, "B C"]
"""Targets in [0, 1]; NaN marks a finding that is left out for this image."""

Kept = Int64[Tensor, "B K"]
"""Indices of the patches that stay, row-major from 0, the class token not counted."""
