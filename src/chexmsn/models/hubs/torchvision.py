"""torchvision: `VisionTransformer` and its ResNets, of which it keeps weights alone.

https://github.com/pytorch/vision. A folder that we write has a `config.json` of our own with what the class must be
built with. A bare file is taken for one of torchvision's: ImageNet's mean and std, heads 64 wide.
"""

from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.models.hubs._portable import (
    HEAD_WIDTH,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Found,
    Portable,
    Usage,
    colours,
    read_weights,
)

TITLE = "torchvision"

NAMES = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj.": "conv_proj.",
    "norm.": "encoder.ln.",
    "head.": "heads.head.",
}
BLOCK = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.qkv.weight": "self_attention.in_proj_weight",
    "attn.qkv.bias": "self_attention.in_proj_bias",
    "attn.proj": "self_attention.out_proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}
# The published weights still have the names from before torchvision 0.14, which the class renames while loading.
OLD = {"mlp.linear_1.": "mlp.0.", "mlp.linear_2.": "mlp.3."}


def theirs(name: str, classifier: bool) -> str:
    """torchvision's name; those of ResNets are timm's."""
    if name.startswith("blocks."):
        _, block, part = name.split(".", 2)
        ours = next(key for key in BLOCK if part.startswith(key))
        return f"encoder.layers.encoder_layer_{block}.{part.replace(ours, BLOCK[ours])}"
    ours = next((key for key in NAMES if name.startswith(key)), "")
    return name.replace(ours, NAMES[ours], 1) if ours else name


def describe(model: Portable) -> dict[str, Any]:
    """The class, its arguments, and the preprocessing."""
    c, outputs = model.config, len(model.findings)
    if model.is_transformer:
        width, depth, heads = model.shape
        builder, arguments = (
            "VisionTransformer",
            {
                "image_size": c.size,
                "patch_size": c.patch,
                "num_layers": depth,
                "num_heads": heads,
                "hidden_dim": width,
                "mlp_dim": 4 * width,
            },
        )
    else:
        builder, arguments = c.name, {}
    described = {
        "model": builder,
        "arguments": arguments | ({"num_classes": outputs} if outputs else {}),
        "labels": list(model.findings),
        "size": c.size,
        "mean": list(model.mean),
        "std": list(model.std),
    }
    return {"config.json": described}


def usage(model: Portable) -> Usage:
    """The class builds itself from `config.json`; that of an encoder loses its classifier."""
    head = "heads" if model.is_transformer else "fc"
    without = "" if model.findings else f"\nmodel.{head} = torch.nn.Identity()"
    builder = describe(model)["config.json"]["model"]
    load = f"""\
import json
from pathlib import Path

from safetensors.torch import load_file
from torchvision.models import {builder}

arguments = json.loads(Path("config.json").read_text())["arguments"]
model = {builder}(**arguments){without}
model.load_state_dict(load_file("model.safetensors"))"""
    return Usage(load, "outputs = model(pixels)")


def read(path: Path) -> Found:
    """A folder that `describe` belongs to, or a file of torchvision's. Raises UserError for anything else."""
    weights = {_present(name): tensor for name, tensor in read_weights(path).items()}
    classifier = "heads.head.weight" in weights or "fc.weight" in weights
    if not path.is_dir():
        heads = weights["class_token"].shape[-1] // HEAD_WIDTH if "class_token" in weights else None
        return Found(weights=weights, classifier=classifier, heads=heads, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    described = read_json(path / "config.json")
    try:
        return Found(
            weights=weights,
            classifier=classifier,
            heads=described["arguments"].get("num_heads"),
            mean=colours(described["mean"]),
            std=colours(described["std"]),
            size=described["size"],
        )
    except (KeyError, TypeError):
        raise UserError(
            f"{path}/config.json is not what chexmsn export writes: name the file of weights itself"
        ) from None


def _present(name: str) -> str:
    for old, new in OLD.items():
        name = name.replace(old, new)
    return name
