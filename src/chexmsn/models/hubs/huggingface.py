"""Hugging Face transformers: `ViTMSNModel` and `ViTMSNForImageClassification`.

https://github.com/huggingface/transformers. Files carry the names of its major version 4, as all published ones do;
version 5 has other names inside and translates while it loads and saves. A classifier puts `vit.` before the encoder's
names. The generic `ViTModel` has almost the same names and another LayerNorm eps, 1e-12: it is refused.
"""

from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.models.hubs._portable import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SHOWN,
    Found,
    Portable,
    Usage,
    colours,
    read_weights,
)

TITLE = "Hugging Face transformers"

NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
LAYER_NORM_EPS = 1e-6


def theirs(name: str, classifier: bool) -> str | tuple[str, str, str]:
    """Their name; three for queries, keys and values."""
    if name.startswith("head."):
        return name.replace("head", "classifier")
    before = "vit." if classifier else ""
    if not name.startswith("blocks."):
        ours = next((key for key in NAMES if name.startswith(key)), "")
        return before + (name.replace(ours, NAMES[ours], 1) if ours else name)
    _, block, part = name.split(".", 2)
    before += f"encoder.layer.{block}."
    if part.startswith("attn.qkv."):
        kind = part.removeprefix("attn.qkv.")
        return tuple(f"{before}attention.attention.{one}.{kind}" for one in ("query", "key", "value"))
    ours = next(key for key in BLOCK if part.startswith(key))
    return before + part.replace(ours, BLOCK[ours])


def describe(model: Portable) -> dict[str, Any]:
    """`config.json`, and `preprocessor_config.json` of a processor that frames images as we do.

    Raises UserError for a CNN.
    """
    if not model.is_transformer:
        raise UserError(f"{model.config.name} has no class in {TITLE} with these weights: choose --to timm")
    width, depth, heads = model.shape
    size = model.config.size
    described = {
        "architectures": ["ViTMSNForImageClassification" if model.findings else "ViTMSNModel"],
        "model_type": "vit_msn",
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": LAYER_NORM_EPS,
        "image_size": size,
        "patch_size": model.config.patch,
        "num_channels": 3,
        "qkv_bias": True,
    }
    if model.findings:
        described |= {
            "problem_type": "multi_label_classification",
            "id2label": {str(i): finding for i, finding in enumerate(model.findings)},
            "label2id": {finding: i for i, finding in enumerate(model.findings)},
        }
    processor = {
        "image_processor_type": "BitImageProcessor",  # the one that takes the centre of the short side
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": round(size / SHOWN)},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(model.mean),
        "image_std": list(model.std),
    }
    return {"config.json": described, "preprocessor_config.json": processor}


def usage(model: Portable) -> Usage:
    """The class, and what of its answer is ours."""
    name, answer = (
        ("ViTMSNForImageClassification", "logits") if model.findings else ("ViTMSNModel", "last_hidden_state[:, 0]")
    )
    load = f'from transformers import {name}\n\nmodel = {name}.from_pretrained(".")'
    return Usage(load, f"outputs = model(pixel_values=pixels).{answer}")


def read(path: Path) -> Found:
    """A folder of theirs. Raises UserError for anything else, and for a network that computes something else."""
    if not path.is_dir():
        raise UserError(f"{path} is no folder: name the one with config.json and model.safetensors")
    described = read_json(path / "config.json")
    _check(described, path)
    file = path / "preprocessor_config.json"
    processor = read_json(file) if file.is_file() else {}
    weights = read_weights(path)
    classifier = "classifier.weight" in weights
    if classifier:
        weights = {_with_prefix(name): tensor for name, tensor in weights.items()}
    several = described.get("problem_type") == "multi_label_classification"
    return Found(
        weights=weights,
        classifier=classifier,
        findings=tuple(label for _, label in sorted(described.get("id2label", {}).items(), key=_number))
        if several
        else (),
        heads=described.get("num_attention_heads"),
        mean=colours(processor.get("image_mean", IMAGENET_MEAN)),
        std=colours(processor.get("image_std", IMAGENET_STD)),
    )


def _with_prefix(name: str) -> str:
    """The name as published: transformers 5.23 saves the blocks of a classifier without `vit.`."""
    return name if name.startswith(("vit.", "classifier.")) else f"vit.{name}"


def _number(item: tuple[str, str]) -> int:
    return int(item[0])


def _check(described: Any, path: Path) -> None:
    kind = described.get("model_type") if isinstance(described, dict) else None
    if kind != "vit_msn":
        raise UserError(f"{path} holds a model of type {kind}: only vit_msn is the same network as ours")
    same = {"hidden_act": "gelu", "layer_norm_eps": LAYER_NORM_EPS, "qkv_bias": True}
    for option, ours in same.items():
        if described.get(option, ours) != ours:
            raise UserError(f"{path} has {option} {described[option]}, our encoders {ours}: it would compute otherwise")
