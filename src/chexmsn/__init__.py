"""CheXMSN: representation learning for chest radiographs that stays reliable when the image does not."""

from importlib.metadata import version
from pathlib import Path

__version__ = version("chexmsn")


def load(run: str | Path) -> "chexmsn.models.encoder.Encoder":
    """The encoder of a run folder, an artefact or a checkpoint, in evaluation mode, on the CPU.

    Takes images `B x 1 x H x W` in [0, 1] and returns `pooled` (`B x D`) and, for a transformer,
    `tokens` (`B x N x D`). Raises UserError for a path that holds no model.

        features = chexmsn.load("runs/msn")(images).pooled
    """
    from chexmsn.models.artefact import load_encoder  # torch and timm take seconds to import

    return load_encoder(Path(run)).eval()
