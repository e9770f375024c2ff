"""Encoders and heads give the numbers of the authors' own code, in float64.

Each file of `golden/` holds inputs, weights under the source's names (`w.`), outputs (`out_`) and
gradients (`grad_`); tolerances are those the numbers were published with.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from chexmsn.models.encoder import EncoderConfig
from chexmsn.models.heads import ProjectionHead, SimSiamPredictor, SimSiamProjector
from chexmsn.models.vit import ViT, interpolate_positions

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    """Every array as a tensor, floating point in float64."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: torch.as_tensor(file[key]) for key in file.files}
    return {key: a.double() if a.is_floating_point() else a for key, a in arrays.items()}


def below(prefix, arrays):
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}


def at_the_start(weights):
    """The counters of BatchNorm were recorded after the run, the weights before it: count from 0."""
    return {name: w * 0 if name.endswith("num_batches_tracked") else w for name, w in weights.items()}


def close(ours, theirs, rtol=1e-7, atol=1e-9):
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


def vit(weights, *, size, patch, depth, heads):
    """A float64 transformer with these weights (timm's names); the stem's channels are theirs."""
    width, channels = weights["patch_embed.proj.weight"].shape[:2]
    config = EncoderConfig(name="vit_micro", size=size, patch=patch, channels=channels)
    encoder = ViT(config, width, depth, heads).double()
    encoder.vit.load_state_dict(weights)
    return encoder


def patches_of(token_index, batch):
    """Kept patches, from the sources' token indices that begin with the class token 0."""
    return (token_index[1:] - 1).expand(batch, -1).contiguous()


@pytest.mark.parametrize(
    ("name", "shape", "drops", "crops"),
    [
        ("vit_a", {"size": 32, "patch": 8, "depth": 2, "heads": 2}, ["drop15", "drop50"], ["crop24", "crop16"]),
        ("vit_b_1channel", {"size": 24, "patch": 4, "depth": 3, "heads": 3}, ["drop30"], ["crop12"]),
    ],
)
def test_transformer_is_the_authors(name, shape, drops, crops):
    g = golden(name)
    encoder = vit(below("w.", g), **shape)
    images = g["in_images"]
    close(encoder.embed(images), g["out_embedded"])
    close(encoder.tokens(images), g["out_tokens"])
    for drop in drops:
        encoder.zero_grad()
        pixels = images.clone().requires_grad_()
        tokens = encoder.tokens(pixels, patches_of(g[f"in_{drop}_kept_token_index"], len(images)))
        close(tokens, g[f"out_{drop}_tokens"])
        (tokens[:, 0] * g[f"in_{drop}_cls_weights"]).sum().backward()
        close(encoder.vit.pos_embed.grad, g[f"grad_{drop}_pos_embed"])
        close(encoder.vit.cls_token.grad, g[f"grad_{drop}_cls_token"])
        close(encoder.vit.norm.weight.grad, g[f"grad_{drop}_norm_weight"])
        close(pixels.grad, g[f"grad_{drop}_images"], rtol=1e-6, atol=1e-8)  # these were rounded to float32
    for crop in crops:
        encoder.zero_grad()
        pooled = encoder.tokens(g[f"in_{crop}_images"])[:, 0]
        close(pooled, g[f"out_{crop}_cls"])
        (pooled * g[f"in_{crop}_cls_weights"]).sum().backward()
        close(encoder.vit.pos_embed.grad, g[f"grad_{crop}_pos_embed"])


def from_torchvision(name):
    """timm's name of a weight of torchvision's VisionTransformer."""
    names = {
        "class_token": "cls_token",
        "encoder.pos_embedding": "pos_embed",
        "conv_proj": "patch_embed.proj",
        "encoder.ln.": "norm.",
        "encoder.layers.encoder_layer_": "blocks.",
        "ln_": "norm",
        "self_attention.in_proj_": "attn.qkv.",
        "self_attention.out_proj": "attn.proj",
        "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2",
    }
    for theirs, ours in names.items():
        name = name.replace(theirs, ours)
    return name


def test_each_image_keeps_its_own_patches():
    g = golden("vit_torchvision_per_sample_mask_a")
    weights = {from_torchvision(name): w for name, w in below("w.", g).items()}
    encoder = vit(weights, size=32, patch=8, depth=2, heads=2)
    close(encoder.tokens(g["in_images"]), g["out_tokens_full"])
    close(encoder.tokens(g["in_images"], g["in_idx_keep"][:, 1:] - 1), g["out_tokens_masked"])
    close(encoder.tokens(g["in_crop_images"])[:, 0], g["out_crop_cls_full"])
    close(encoder.tokens(g["in_crop_images"], g["in_crop_idx_keep"][:, 1:] - 1)[:, 0], g["out_crop_cls_masked"])


def test_published_hugging_face_weights_mean_the_same():
    g = golden("vit_key_conversion_a")
    encoder = vit(below("msn.", g), size=24, patch=8, depth=2, heads=3)
    close(encoder.tokens(g["in_images"]), g["out_last_hidden_state"])
    close(encoder.tokens(g["in_crop_images"]), g["out_crop_last_hidden_state_interpolated"])


@pytest.mark.parametrize(("pair", "side"), [("14to6", 6), ("28to12", 12), ("7to5", 5)])
@pytest.mark.parametrize("author", ["msn", "mae"])
def test_positions_are_the_authors(pair, side, author):
    g = golden("pos_embed_interpolation_a")
    close(interpolate_positions(g[f"in_pos_{pair}"], (side, side)), g[f"out_{author}_{pair}"], rtol=1e-8, atol=1e-10)


PROJECTION = {"fc1": "0", "bn1": "1", "fc2": "3", "bn2": "4", "fc3": "6"}


def test_views_go_through_encoder_and_head_as_the_authors():
    g = golden("msn_encode_views_a")
    weights = below("w.", g)
    encoder = vit(
        {name: w for name, w in weights.items() if not name.startswith("fc.")}, size=32, patch=8, depth=2, heads=2
    )
    head = ProjectionHead(24, hidden=40, out=16).double()
    renamed = {PROJECTION[name[:3]] + name[3:]: w for name, w in below("fc.", weights).items()}
    head.load_state_dict(at_the_start(renamed))
    views = [torch.cat([g["in_random_view0"], g["in_random_view1"]])]
    views += [torch.cat([g["in_focal_view0"], g["in_focal_view1"], g["in_focal_view2"]])]
    kept = [patches_of(g["in_kept_token_index"], len(views[0])), None]
    z = torch.cat([head(encoder.tokens(images, k)[:, 0]) for images, k in zip(views, kept, strict=True)])
    close(z, g["out_z"])
    for theirs, ours in PROJECTION.items():
        for name, buffer in below(f"out_buffer.fc.{theirs}.", g).items():
            close(head.get_submodule(ours).get_buffer(name), buffer)
    (z * g["in_z_weights"]).sum().backward()
    for name in ("cls_token", "pos_embed", "patch_embed.proj.bias", "norm.weight"):
        close(encoder.vit.get_parameter(name).grad, g[f"grad_{name}"])
    for name, ours in {"fc1.weight": "0.weight", "bn1.weight": "1.weight", "fc3.bias": "6.bias"}.items():
        close(head.get_parameter(ours).grad, g[f"grad_fc.{name}"])


@pytest.mark.parametrize(("name", "width", "dim", "hidden"), [("simsiam_a", 24, 32, 8), ("simsiam_b", 16, 16, 4)])
def test_simsiam_heads_are_the_authors(name, width, dim, hidden):
    g = golden(name)
    heads = {
        "encoder.fc.": SimSiamProjector(width, dim).double(),
        "predictor.": SimSiamPredictor(dim, hidden).double(),
    }
    projector, predictor = heads.values()
    for prefix, head in heads.items():
        head.load_state_dict(at_the_start(below(f"w.{prefix}", g)))
    features = [g[f"in_features{i}"].requires_grad_() for i in (1, 2)]
    z1, z2 = map(projector, features)
    p1, p2 = predictor(z1), predictor(z2)
    loss = -(cosine_similarity(p1, z2.detach()).mean() + cosine_similarity(p2, z1.detach()).mean()) / 2
    loss.backward()
    for ours, theirs in {"z1": z1, "z2": z2, "p1": p1, "p2": p2, "loss": loss}.items():
        close(theirs, g[f"out_{ours}"])
    for i, ours in enumerate(features, start=1):
        close(ours.grad, g[f"grad_features{i}"])
    for prefix, head in heads.items():
        trained = {name: p.grad for name, p in head.named_parameters() if p.requires_grad}
        close(trained, below(f"grad_{prefix}", g))
        close(dict(head.named_buffers()), below(f"out_buffer.{prefix}", g))
