"""timm: the layout whose names are ours, with a folder that `timm.create_model("local-dir:...")` reads.

https://github.com/huggingface/pytorch-image-models. A timm model may have any mean and std, and vision transformers of
one width differ in their heads, so a bare file of weights does not say enough.
"""

import re
from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.models.encoder import VIT_SIZES
from chexmsn.models.hubs._portable import SHOWN, Found, Portable, Usage, colours, read_weights

TITLE = "timm"

# vit_micro is not in timm: vit_tiny with other measures
ARCHITECTURES = {name: f"{name.replace('micro', 'tiny')}_patch16_224" for name in VIT_SIZES}
_PLAIN_VIT = re.compile(r"(vit_(?:tiny|small|base|large))_patch\d+_\d+(?:\..*)?")


def theirs(name: str, classifier: bool) -> str:
    """The same name."""
    return name


def describe(model: Portable) -> dict[str, Any]:
    """timm's `config.json`: architecture, its arguments, and what an image must go through before."""
    c, outputs = model.config, len(model.findings)
    if model.is_transformer:
        width, depth, heads = model.shape
        arguments = {"img_size": c.size, "patch_size": c.patch, "embed_dim": width, "depth": depth, "num_heads": heads}
        stem, head = "patch_embed.proj", "head"
    else:
        arguments, stem, head = {}, "conv1", "fc"
    preprocessing = {
        "input_size": [3, c.size, c.size],
        "fixed_input_size": model.is_transformer,
        "interpolation": "bilinear",
        "crop_pct": SHOWN,
        "crop_mode": "center",
        "mean": list(model.mean),
        "std": list(model.std),
        "num_classes": outputs,
        "first_conv": stem,
        "classifier": head,
    }
    described = {
        "architecture": ARCHITECTURES.get(c.name, c.name),
        "num_classes": outputs,
        "global_pool": "token" if model.is_transformer else "avg",
        "model_args": arguments,
        "pretrained_cfg": preprocessing,
    }
    return {"config.json": described | ({"label_names": list(model.findings)} if outputs else {})}


def usage(model: Portable) -> Usage:
    """One line each."""
    return Usage('import timm\n\nmodel = timm.create_model("local-dir:.", pretrained=True)', "outputs = model(pixels)")


def read(path: Path) -> Found:
    """A folder with timm's `config.json`, or a file of weights. Raises UserError for anything else."""
    weights = read_weights(path)
    classifier = "head.weight" in weights or "fc.weight" in weights
    if not path.is_dir():
        return Found(weights=weights, classifier=classifier)
    described = read_json(path / "config.json")
    if not isinstance(described, dict) or "architecture" not in described:
        raise UserError(f"{path}/config.json names no timm architecture: is this a folder of timm's?")
    preprocessing = described.get("pretrained_cfg", described)
    plain = _PLAIN_VIT.fullmatch(described["architecture"])
    heads = described.get("model_args", {}).get("num_heads", VIT_SIZES[plain[1]].heads if plain else None)
    return Found(
        weights=weights,
        classifier=classifier,
        heads=heads,
        mean=colours(preprocessing["mean"]) if "mean" in preprocessing else None,
        std=colours(preprocessing["std"]) if "std" in preprocessing else None,
        size=preprocessing.get("input_size", (None,))[-1],
    )
