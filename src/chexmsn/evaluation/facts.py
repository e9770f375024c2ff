"""What is known of the tested images beside their pixels: the size of a pixel, anatomical masks, maps of saliency."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load, names
from chexmsn.corruptions import FIELD_OF_VIEW_MM, Known, takes_known
from chexmsn.data.collection import Collection
from chexmsn.data.pack import NO_ARRAY, mapped, sha256
from chexmsn.evaluation.adapters._model import Model
from chexmsn.evaluation.conditions import CORRUPTIONS, Condition, needed_by
from chexmsn.views import evaluation_view

MAPS = (".npy", ".png")


@dataclass(frozen=True)
class Maps:
    """One map per image of a collection, such as a mask.

    Attributes:
        place: the file or folder they lie in.
        fingerprint: tells two sets of maps apart by their content.
        read: the map of a row, H x W.
    """

    place: Path
    fingerprint: str
    read: Callable[[int], Shaped[np.ndarray, "H W"]]

    def seen(self, rows: Int64[np.ndarray, "B"], model: Model) -> Float[Tensor, "B 1 S S"]:
        """The part of them that a model sees, at its size."""
        maps = (torch.from_numpy(self.read(row).astype(np.float32))[None, None] for row in rows)
        return torch.cat([evaluation_view(one, model.input.size, model.input.shown) for one in maps]).to(model.device)


def open_maps(place: Path, images: Collection) -> Maps:
    """The maps in a folder of `<image key>.npy` or `.png`, or in one `.npy` with one map per row of the pack.

    Maps show the same square as the images of the pack, at any size. Raises UserError for an image without a map, and
    for a file that holds none.
    """
    return _in_folder(place, images) if place.is_dir() else _in_array(place, images)


def _in_folder(folder: Path, images: Collection) -> Maps:
    files = [_file_of(folder, key) for key in images.index["image_key"]]
    digest = hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()
    return Maps(folder, digest[:16], lambda row: _checked(_map(files[row]), files[row]))


def _file_of(folder: Path, key: str) -> Path:
    found = [file for ending in MAPS if (file := folder / f"{key}{ending}").is_file()]
    if not found:
        raise UserError(f"{folder} has no map of the image {key!r}: name it {key}.npy or {key}.png")
    return found[0]


def _in_array(file: Path, images: Collection) -> Maps:
    (pack,) = images.packs
    array = _array(file)
    if array.ndim != 3 or len(array) != len(pack):
        raise UserError(
            f"{file} holds numbers of shape {array.shape}, not one square map per image of {pack.folder} ({len(pack)})"
        )
    rows = pack.rows(images.splits)
    return Maps(file, sha256(file)[:16], lambda row: _checked(array[rows[row]], file))


def _map(file: Path) -> Shaped[np.ndarray, "..."]:
    if file.suffix == ".npy":
        return _array(file)
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("F"))
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{file} is no image ({error}): write the map anew") from None


def _array(file: Path) -> Shaped[np.ndarray, "..."]:
    try:
        return mapped(file)
    except FileNotFoundError:
        raise UserError(f"there are no maps at {file}: name a folder or a .npy file") from None
    except NO_ARRAY as error:
        raise UserError(
            f"{file} is no array of numbers ({' '.join(str(error).split())}): write it with numpy.save"
        ) from None


def _checked(found: Shaped[np.ndarray, "..."], file: Path) -> Shaped[np.ndarray, "H W"]:
    if found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise UserError(f"{file}: a map is square, as the images of the pack are, and not of shape {found.shape}")
    if not np.isfinite(found).all():
        raise UserError(f"{file}: a map holds finite numbers, and this one does not")
    return found


@dataclass(frozen=True)
class Facts:
    """What is known of the images of a collection.

    Attributes:
        pixel_mm: the side of a pixel as the network sees it; NaN where it is not known.
        anatomy: masks, not 0 where the anatomy of interest lies.
        saliency: maps of how much a pixel matters; where there are none, the model itself is asked.
    """

    pixel_mm: Float32[np.ndarray, "N"]
    anatomy: Maps | None = None
    saliency: Maps | None = None

    @classmethod
    def of(cls, images: Collection, model: Model, anatomy: Path | None = None, saliency: Path | None = None) -> "Facts":
        """What a pack and files say. Raises UserError as `open_maps` does."""
        shrunk = images.size * model.input.shown / model.input.size
        masks, maps = (place and open_maps(place, images) for place in (anatomy, saliency))
        return cls(
            images.pixel_mm * np.float32(shrunk), masks and replace(masks, read=lambda row: masks.read(row) != 0), maps
        )

    def known(self, rows: Int64[np.ndarray, "B"], model: Model) -> Known:
        """The same of some rows, on the device of the model and at the size of its images."""
        return Known(
            pixel_mm=torch.from_numpy(self.pixel_mm[rows]).to(model.device),
            anatomy=self.anatomy and self.anatomy.seen(rows, model) >= 0.5,
            saliency=self.saliency and self.saliency.seen(rows, model),
        )

    def unknown(self, conditions: Sequence[Condition], model: Model) -> dict[str, str]:
        """What conditions need and cannot have from this model, saliency, with the reason.

        Raises UserError where they need masks and none were given.
        """
        needed = needed_by(conditions)
        if "anatomy" in needed and self.anatomy is None:
            raise UserError("the patterns inside and outside need anatomical masks: give --anatomy, or leave them out")
        asked = "saliency" in needed and self.saliency is None
        return {"saliency": why} if asked and (why := why_no_saliency(model)) else {}

    @property
    def asked(self) -> dict[str, str]:
        """What tells two runs apart: the content of the maps that were given."""
        given = {"anatomy": self.anatomy, "saliency": self.saliency}
        return {name: maps.fingerprint for name, maps in given.items() if maps}

    def told(self, conditions: Sequence[Condition]) -> dict[str, Any]:
        """What a record says of them."""
        sized = {condition.corruption for condition in conditions} & set(names(CORRUPTIONS))
        known = int((self.pixel_mm > 0).sum())
        told = {
            "known": known,
            "assumed": len(self.pixel_mm) - known,
            "assumed_field_mm": FIELD_OF_VIEW_MM,
            "corruptions": sorted(name for name in sized if takes_known(load(CORRUPTIONS, name))),
        }
        maps = {"anatomy": self.anatomy, "saliency": self.saliency}
        return {"pixel_size": told} | {name: str(found.place) for name, found in maps.items() if found}


def saliency_of(model: Model, images: Float[Tensor, "B 1 H W"], outputs: Sequence[int]) -> Float[Tensor, "B 1 H W"]:
    """How much each pixel matters to a network: the mean over outputs of |d answer / d pixel|, without its sign.

    The gradient is that of the answers before the sigmoid where the network gives them so (Simonyan et al. 2014, arXiv
    1312.6034). It says where an answer would change, not where a finding lies.
    """
    with torch.enable_grad():
        seen = images.detach().clone().requires_grad_()
        answers = model.call(model.input.feed(seen)).float()
        last = outputs[-1]
        slopes = (
            torch.autograd.grad(answers[:, output].sum(), seen, retain_graph=output != last)[0] for output in outputs
        )
        return sum(slope.abs() for slope in slopes) / len(outputs)


def why_no_saliency(model: Model) -> str | None:
    """The sentence that says why a model cannot be asked for saliency; None where it can."""
    if isinstance(model.call, torch.nn.Module):
        with torch.enable_grad():
            gray = torch.full((1, 1, model.input.size, model.input.size), 0.5, device=model.device, requires_grad=True)
            if model.call(model.input.feed(gray)).requires_grad:
                return None
    return f"{model.network} tells no gradient, so what is salient to it is not known: give maps with --saliency"
