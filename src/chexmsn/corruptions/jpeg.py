"""JPEG: the image is coded as a gray baseline JPEG and decoded.

Cause: public collections are JPEG, and messengers and phones code them again.
Source: ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), `hendrycks/robustness`: Pillow's quality.
libjpeg-turbo, which Pillow wraps too, gives one gray channel the pixels of three equal ones. MedMNIST-C's qualities
50, 30, 15, 10, 7 are valid levels here.
Level: quality, rounded to a whole number; from 99.5 on nothing is coded. Blocks are 8 pixels wide: at 224 px, 15 mm
of a 430 mm field. The codec works on 8 bit and on the CPU, one image after the other, wherever the batch lies.
"""

from io import BytesIO

import numpy as np
import simplejpeg
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from chexmsn.core.draws import Draws
from chexmsn.core.shapes import Images

TITLE = "JPEG"
CAUSE = "compression of public collections, messengers and phones"
SOURCE = "ImageNet-C, Hendrycks & Dietterich 2019, arXiv 1903.12261"
FAMILY = "imagenet-c"
UNIT = "quality (libjpeg)"
LEVELS = (25.0, 18.0, 15.0, 10.0, 7.0)
IDENTITY = 100.0


def corrupt(images: Images, level: Float[Tensor, "B"], draws: Draws) -> Images:
    """Code and decode at quality `level`. Nothing is drawn."""
    qualities = level.round().int()
    pixels = images.mul(255).round_().to(torch.uint8)[:, 0].cpu().numpy()
    coded = np.stack([_recoded(image, quality) for image, quality in zip(pixels, qualities.tolist(), strict=True)])
    decoded = torch.from_numpy(coded)[:, None, :, :, 0].to(images.device).to(images.dtype).div_(255)
    return torch.where((qualities < 100)[:, None, None, None], decoded, images)


def _recoded(image: UInt8[np.ndarray, "H W"], quality: int) -> UInt8[np.ndarray, "H W 1"]:
    coded = BytesIO()
    Image.fromarray(image).save(coded, "JPEG", quality=quality)  # simplejpeg's encoder has another, faster DCT
    return simplejpeg.decode_jpeg(coded.getbuffer(), colorspace="GRAY")
