"""Checkpoints on disk: each is there whole or not at all, and a good one is always left."""

import logging
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from chexmsn.core.errors import UserError
from chexmsn.models.artefact import read_pickle

log = logging.getLogger(__name__)


@dataclass
class Checkpoints:
    """The newest checkpoint of a run and the one before it, should the newest come to harm.

    Attributes:
        last: where the newest lies; the one before it lies beside it.
        good: the newest that is known to be whole, if any.
    """

    last: Path
    good: Path | None = None

    @property
    def previous(self) -> Path:
        return self.last.with_name("previous.ckpt")

    @property
    def partial(self) -> Path:
        """Where the next one is written."""
        return self.last.with_name("last.partial")

    def find(self) -> dict[str, Any] | None:
        """Find the newest whole checkpoint, `good` from then on; returns its `hyper_parameters`.

        Returns nothing where there is no checkpoint yet. Raises UserError, without a remedy, where each is damaged.
        """
        harmed = None
        for path in filter(Path.exists, (self.last, self.previous)):
            try:
                described = description(path)
            except UserError as error:
                harmed = harmed or error
                continue
            if harmed:
                log.warning("%s: going on from the checkpoint before it", harmed)
            self.good = path
            return described
        if harmed:
            raise harmed
        return None

    def tidy(self) -> None:
        """Remove what a killed process left of a checkpoint."""
        self.partial.unlink(missing_ok=True)

    def accept(self) -> None:
        """Take what is written to `partial` as the newest; a kill at any moment leaves a whole one to `find`."""
        _to_disk(self.partial)
        if self.good == self.last:
            self.previous.unlink(missing_ok=True)
            self.last.replace(self.previous)
        else:  # there is none, or it is damaged and `previous` is the good one
            self.last.unlink(missing_ok=True)
        self.partial.replace(self.last)
        _to_disk(self.last.parent)
        self.good = self.last


def description(file: Path) -> dict[str, Any]:
    """The `hyper_parameters` of a whole checkpoint. Raises UserError, without a remedy, for anything else."""
    try:
        with zipfile.ZipFile(file) as archive:
            harmed = archive.testzip()  # torch writes checksums but does not compare them
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not a checkpoint, or a damaged one ({error})") from None
    if harmed is not None:
        raise UserError(f"{file} is damaged (in its part {harmed})")
    content = read_pickle(file, "no run has written it")
    if not isinstance(content, dict) or not isinstance(content.get("hyper_parameters"), dict):
        raise UserError(f"{file} is not a checkpoint of a run")
    return content["hyper_parameters"]


class StraightToFile(TorchCheckpointIO):
    """Writes a checkpoint piece by piece: Lightning builds it in memory first, which takes twice the room and time."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk, behind torch's complaint about what it then met
                raise error.__context__ from None
            raise


def _to_disk(path: Path) -> None:
    """Wait until a file, or the list of files in a folder, will survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
