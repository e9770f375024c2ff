"""CheXMSN: representation learning for chest radiographs that stays reliable when the image does not."""

from importlib.metadata import version
from pathlib import Path

__version__ = version("chexmsn")


def load(run: str | Path) -> "chexmsn.models.encoder.Encoder":
    """The encoder of a run folder, an artefact or a checkpoint, in evaluation mode, on the CPU.

    Takes images `B x 1 x H x W` in [0, 1] and returns `pooled` (`B x D`) and, for a transformer,
    `tokens` (`B x N x D`). Of a classifier it is the encoder inside. Raises UserError for a path
    that holds no model, and for what is no path.

        encoder = chexmsn.load("runs/msn")
        features = encoder(images).pooled

    >>> import chexmsn, tempfile, torch
    >>> from chexmsn.models.artefact import save_encoder
    >>> from chexmsn.models.encoder import EncoderConfig, build_encoder
    >>> run = Path(tempfile.mkdtemp())
    >>> save_encoder(run / "encoder", build_encoder(EncoderConfig(name="vit_micro", size=64)), provenance={})
    >>> encoder = chexmsn.load(run)
    >>> encoder(torch.rand(2, 1, 64, 64)).pooled.shape
    torch.Size([2, 128])
    """
    from chexmsn.models.artefact import load_encoder  # torch and timm take seconds to import

    return load_encoder(_path(run)).eval()


def load_classifier(run: str | Path) -> "chexmsn.models.classifier.Classifier":
    """The classifier of a run folder, an artefact or a checkpoint, in evaluation mode, on the CPU.

    Takes images `B x 1 x H x W` in [0, 1]; `probabilities` gives one number in [0, 1] for each of its
    `findings` (`B x C`). Raises UserError for a path that holds no classifier.

        classifier = chexmsn.load_classifier("runs/fine-tuned")
        probabilities = classifier.probabilities(images)

    >>> import chexmsn, tempfile, torch
    >>> from chexmsn.models.artefact import save_classifier
    >>> from chexmsn.models.classifier import Classifier
    >>> from chexmsn.models.encoder import EncoderConfig, build_encoder
    >>> new = Classifier(build_encoder(EncoderConfig(name="vit_micro", size=64)), ["Edema", "Pneumothorax"])
    >>> run = Path(tempfile.mkdtemp())
    >>> save_classifier(run / "classifier", new, thresholds={}, provenance={})
    >>> classifier = chexmsn.load_classifier(run)
    >>> classifier.probabilities(torch.rand(3, 1, 64, 64)).shape, classifier.findings
    (torch.Size([3, 2]), ('Edema', 'Pneumothorax'))
    """
    from chexmsn.models.artefact import load_classifier  # torch and timm take seconds to import

    return load_classifier(_path(run)).classifier


def _path(run: str | Path) -> Path:
    from chexmsn.core.errors import UserError

    if not isinstance(run, str | Path):
        raise UserError(f"name a run folder, an artefact or a checkpoint by its path, not {run!r}")
    return Path(run)
