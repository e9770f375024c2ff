"""What an encoder says of all images of a collection."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from chexmsn.core.batch import to_images
from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Pixels
from chexmsn.data.collection import Collection
from chexmsn.evaluation.scoring import Parts, Rows, score
from chexmsn.models.encoder import Encoder
from chexmsn.views import evaluation_view

Which = Literal["pooled", "before-norm"]
"""The class token or the global average; or the class token before the last LayerNorm, which MSN's evaluations read."""


def features_of(
    images: Collection, encoder: Encoder, which: Which, parts: Parts, *, batch_size: int, title: str = "features"
) -> Float32[np.ndarray, "N D"]:
    """The features of all images as evaluation sees them; the encoder is put into evaluation mode, on its device.

    They are kept in `parts` on the way, so that a stopped run goes on. Raises UserError where they are not numbers.
    """
    encoder.eval()
    (features,) = score(
        lambda pixels, *_: iter([_features(pixels, encoder, which)]),
        1,
        images,
        parts,
        batch_size=batch_size,
        title=title,
        check=_check_numbers,
    )
    return features


def _check_numbers(features: Float32[np.ndarray, "1 B D"], rows: Rows) -> None:
    if not np.isfinite(features).all():
        raise UserError("the encoder's features are not numbers: its training diverged, take another checkpoint")


@torch.inference_mode()
def _features(pixels: Pixels, encoder: Encoder, which: Which) -> Float[Tensor, "B D"]:
    device = next(encoder.parameters()).device
    found = encoder(evaluation_view(to_images(pixels.to(device)), encoder.config.size))
    return (found.pooled if which == "pooled" else found.before_norm).float()
