"""What is known of images besides their pixels, for the corruptions that can use it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from chexmsn.core.shapes import Images

FIELD_OF_VIEW_MM = 430.0
"""The long side of an image whose pixel size is not known: that of a 35 x 43 cm (14 x 17 inch) detector."""


@dataclass(frozen=True)
class Known:
    """Facts about a batch; what is not known is None.

    Attributes:
        pixel_mm: the side of a pixel of these images, in mm; NaN for an image of which it is not known.
        anatomy: where the anatomy of interest lies, for example the lung fields.
        saliency: how much a pixel matters to the model, from 0 up; compared within an image only.
    """

    pixel_mm: Float[Tensor, "B"] | None = None
    anatomy: Bool[Tensor, "B 1 H W"] | None = None
    saliency: Float[Tensor, "B 1 H W"] | None = None

    def pixel_size(self, images: Images) -> Float[Tensor, "B"]:
        """The side of a pixel in mm; where it is not known, the image's long side is taken as `FIELD_OF_VIEW_MM`.

        >>> Known().pixel_size(torch.zeros(1, 1, 215, 100))
        tensor([2.])
        """
        assumed = images.new_full((len(images),), FIELD_OF_VIEW_MM / max(images.shape[2:]))
        return assumed if self.pixel_mm is None else torch.where(self.pixel_mm > 0, self.pixel_mm, assumed)

    def pixels(self, mm: Float[Tensor, "B"], images: Images) -> Float[Tensor, "B"]:
        """A length in mm as a number of pixels of these images.

        >>> Known(pixel_mm=torch.tensor([0.5])).pixels(torch.tensor([4.0]), torch.zeros(1, 1, 224, 224))
        tensor([8.])
        """
        return mm / self.pixel_size(images)


NOTHING_KNOWN = Known()
