"""The residual network that the transformer is compared with.

He et al. 2016 (arXiv 1512.03385), timm's, with stride in the 3 x 3 convolution. The last
normalisation of every residual branch starts at 0, as in facebookresearch/simsiam.
"""

import timm

from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Images, Kept
from chexmsn.models._base import Encoder, EncoderConfig, Features, Normalise
from chexmsn.models.batch_norm import BatchNorm2d


class ResNet(Encoder):
    """A ResNet without its classifier. Takes images of any size; `pooled` is the global average."""

    kind = "cnn"

    def __init__(self, config: EncoderConfig) -> None:
        resnet = timm.create_model(
            config.name,
            pretrained=False,
            in_chans=config.channels,
            num_classes=0,
            drop_path_rate=config.drop_path,
            zero_init_last=True,
            norm_layer=BatchNorm2d,
        )
        super().__init__(config, resnet.num_features)
        self.normalise = Normalise(config)
        self.resnet = resnet

    def forward(self, images: Images, kept: Kept | None = None) -> Features:
        if kept is not None:
            raise UserError(
                f"patches cannot be removed from {self.config.name}: a CNN needs every pixel, "
                "fill the patches instead (patches-black, patches-image-mean or patches-dataset-mean)"
            )
        pooled = self.resnet(self.normalise(images))
        return Features(pooled, None, pooled)
