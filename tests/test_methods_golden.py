"""The methods give the numbers of their authors' own code, through the functions that training calls.

`golden/methods.json` says how each file was made and how close we have to come. Three-channel images of the
authors are stacked below each other in our one channel, and taken apart again where ours are normalised.
"""

import itertools
import json
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from chexmsn.core.draws import Draws, keys_of
from chexmsn.corruptions import kept_patches
from chexmsn.methods import fine_tune, mae, msn, simsiam
from chexmsn.methods._base import Setting, ema_update, parameter_groups
from chexmsn.models.encoder import Encoder, EncoderConfig, Features
from steps import run_through, some_batch
from test_models_golden import GOLDEN, at_the_start, below, golden, patches_of, vit

MANIFEST = json.loads((GOLDEN / "methods.json").read_text(encoding="utf-8"))
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def params(name):
    return SimpleNamespace(**MANIFEST[name]["params"])


def starting_with(prefix):
    return sorted(name for name in MANIFEST if name.startswith(prefix))


def with_dtypes(prefix):
    """Every file of the prefix in every precision it promises a tolerance for."""
    return [
        pytest.param(name, dtype, id=f"{name}-{dtype}")
        for name in starting_with(prefix)
        for dtype in DTYPES
        if isinstance(MANIFEST[name]["tolerance"].get(dtype), dict)
    ]


def load(name, dtype="float64"):
    arrays = {key: a.to(DTYPES[dtype]) if a.is_floating_point() else a for key, a in golden(name).items()}
    return arrays, closeness(name, dtype)


def closeness(name, dtype="float64"):
    tolerance = MANIFEST[name]["tolerance"][dtype]

    def close(ours, theirs):
        theirs = torch.as_tensor(theirs)
        torch.testing.assert_close(torch.as_tensor(ours).to(theirs.dtype).detach(), theirs, **tolerance)

    return close


def some_draws(batch):
    return Draws.of(0, keys_of(map(str, range(batch))))


def stacked(images):
    return images.flatten(1, 2).unsqueeze(1)


class Unstack(nn.Module):
    """Stands where images are normalised: the authors' fixtures are fed as they are."""

    def forward(self, images):
        return images.unflatten(2, (3, -1)).squeeze(1)


class GivenFeatures(Encoder):
    """An encoder that passes on the features which its images hold."""

    kind = "cnn"

    def __init__(self, width):
        super().__init__(EncoderConfig(name="resnet18"), width)

    def forward(self, images, kept=None):
        return Features(images.flatten(1), None, images.flatten(1))


def as_image(features):
    return features[:, None, None]


# --- MSN, the equations


@pytest.mark.parametrize(("name", "dtype"), with_dtypes("sinkhorn_"))
def test_sinkhorn(name, dtype):
    arrays, close = load(name, dtype)
    close(msn.sinkhorn(arrays["in_probs"].log(), params(name).iterations).exp(), arrays["out_probs"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sharpen(dtype):
    arrays, close = load("sharpen_a", dtype)
    for temperature in params("sharpen_a").T:
        ours = msn.sharpen(arrays["in_probs"].log(), temperature).exp()
        close(ours, arrays[f"out_T{round(100 * temperature):03d}"])


@pytest.mark.parametrize(("name", "dtype"), with_dtypes("msn_loss_"))
def test_msn_loss_and_gradients(name, dtype):
    arrays, close = load(name, dtype)
    p = params(name)
    anchors, prototypes = (arrays[f"in_{what}"].requires_grad_() for what in ("anchors", "prototypes"))
    logs = msn.log_assignments(anchors, prototypes, p.temperature_anchor, p.label_smoothing)
    wanted = msn.target_assignments(
        arrays["in_targets"],
        prototypes,
        temperature=p.temperature_target_similarity,
        sharpening=p.sharpen_T,
        sinkhorn_iterations=p.sinkhorn_iterations,
        smoothing=p.label_smoothing,
    )
    close(logs.exp(), arrays["out_anchor_probs"])
    close(wanted, arrays["out_target_probs_final"])
    matching = msn.cross_entropy(logs, wanted)
    me_max = msn.divergence_from_uniform(msn.mean_assignment(logs.exp()))
    total = matching
    close(matching, arrays["out_cross_entropy"])
    if p.me_max:
        close(me_max, arrays["out_me_max"])
        total = total + p.memax_weight * me_max
    if p.use_entropy:
        close(msn.mean_entropy(logs), arrays["out_entropy"])
        total = total + p.ent_weight * msn.mean_entropy(logs)
    close(total, arrays["out_total"])
    for which, value in (("ce", matching), ("total", total)):
        gradients = torch.autograd.grad(value, (anchors, prototypes), retain_graph=True)
        close(gradients[0], arrays[f"grad_{which}_anchors"])
        close(gradients[1], arrays[f"grad_{which}_prototypes"])


@pytest.mark.parametrize("name", starting_with("msn_schedules_"))
def test_msn_schedules(name):
    arrays, close = load(name)
    p = params(name)
    config = msn.Config(
        lr=p.lr,
        lr_start=p.start_lr,
        lr_final=p.final_lr,
        warmup_epochs=float(p.warmup_epochs),
        warmup_share=1.0,
        weight_decay=p.weight_decay,
        weight_decay_final=p.final_weight_decay,
        sharpening=p.start_sharpen,
        sharpening_final=p.final_sharpen,
        ema_start=p.momentum_start,
        stretch=p.schedule_stretch,
    )
    schedules = small_msn(config).schedules()
    total = p.epochs * p.iterations_per_epoch
    theirs = {"lr": "lr", "weight_decay": "wd", "ema": "momentum", "sharpening": "sharpen"}
    for ours, their in theirs.items():
        values = [schedules[ours].at(step, total, p.iterations_per_epoch) for step in range(total)]
        close(torch.tensor(values, dtype=torch.float64), arrays[f"out_{their}"])


def small_msn(config):
    weights = below("w.", golden("msn_train_a"))
    encoder = vit({k: w for k, w in weights.items() if not k.startswith("fc.")}, size=16, patch=4, depth=2, heads=2)
    return msn.Method(config, encoder, Setting(size=16, batch_size=256))


# --- MSN, whole iterations

HEAD = {"fc1": "0", "bn1": "1", "fc2": "3", "bn2": "4", "fc3": "6"}


def our_name(name):
    """`fc.bn1.weight` is our `head.1.weight`, everything else is in the transformer."""
    if name.startswith("fc."):
        _, layer, kind = name.split(".")
        return f"head.{HEAD[layer]}.{kind}"
    return f"encoder.vit.{name}"


def msn_method(arrays, p, config):
    weights = at_the_start(below("w.", arrays))
    backbone = {name: w for name, w in weights.items() if not name.startswith("fc.")}
    encoder = vit(backbone, size=p.img_size, patch=p.patch_size, depth=p.depth, heads=p.num_heads)
    encoder.normalise = Unstack()
    method = msn.Method(config, encoder, Setting(size=p.img_size, batch_size=p.batch)).double()
    method.online.load_state_dict({our_name(name): w for name, w in weights.items()})
    method.target.load_state_dict(method.online.state_dict())
    return method


def recorded_features(monkeypatch):
    """Every batch of projections that is assigned to prototypes, in order."""
    seen = []
    assign = msn.log_assignments
    monkeypatch.setattr(msn, "log_assignments", lambda z, *rest: (seen.append(z), assign(z, *rest))[1])
    return seen


def fix_masks(monkeypatch, module, kept):
    """The authors' mask in place of a drawn one."""
    monkeypatch.setattr(module, "kept_patches", lambda draws, patches, ratio: kept.expand(len(draws.keys), -1))


def test_msn_encodes_each_resolution_on_its_own(monkeypatch):
    arrays, close = load("msn_encode_views_a")
    p = params("msn_encode_views_a")
    config = msn.Config(
        mask_ratio=p.patch_drop,
        random_views=p.random_views,
        focal_views=p.focal_views,
        focal_size=p.focal_size,
        head_hidden=p.head_hidden_dim,
        head_out=p.head_output_dim,
        prototypes=6,
    )
    method = msn_method(arrays, p, config)
    groups = [stacked(torch.cat([arrays[f"in_{kind}_view{v}"] for v in range(count)]))
              for kind, count in (("random", p.random_views), ("focal", p.focal_views))]  # fmt: skip
    fix_masks(monkeypatch, msn, patches_of(arrays["in_kept_token_index"], 1))
    seen = recorded_features(monkeypatch)
    method.step([groups[0][: p.batch], *groups], None, some_draws(p.batch), {"sharpening": 0.25})
    close(seen[0], arrays["out_z"])
    (seen[0] * arrays["in_z_weights"]).sum().backward()
    ours = dict(method.online.named_parameters())
    for name, gradient in below("grad_", arrays).items():
        close(ours[our_name(name)].grad, gradient)
    for name, buffer in below("out_buffer.", arrays).items():
        close(method.online.state_dict()[our_name(name)], buffer)


@pytest.mark.parametrize("name", starting_with("msn_train_"))
def test_msn_trains_like_the_authors_main_loop(name, monkeypatch):
    arrays, close = load(name)
    p = params(name)
    criterion, optimisation = SimpleNamespace(**p.criterion), SimpleNamespace(**p.optimization)
    config = msn.Config(
        mask_ratio=p.patch_drop,
        random_views=p.random_views_including_target - 1,
        focal_views=p.focal_views,
        focal_size=p.focal_size,
        head_hidden=p.head_hidden_dim,
        head_out=p.head_output_dim,
        prototypes=p.num_prototypes,
        temperature=p.temperature,
        sharpening=criterion.start_sharpen,
        sharpening_final=criterion.final_sharpen,
        sinkhorn=3 if criterion.use_sinkhorn else 0,
        me_max=criterion.memax_weight,
        lr=optimisation.lr,
        lr_start=optimisation.start_lr,
        lr_final=optimisation.final_lr,
        warmup_epochs=float(optimisation.warmup),
        warmup_share=1.0,
        weight_decay=optimisation.weight_decay,
        weight_decay_final=optimisation.final_weight_decay,
        ema_start=p.momentum_start,
        clip=optimisation.clip_grad,
    )
    method = msn_method(arrays, p, config)
    method.prototypes.data.copy_(arrays["in_prototypes"])
    seen, wanted_views = recorded_features(monkeypatch), itertools.count()

    def the_authors_views(images, plan, draws):
        i = next(wanted_views)
        fix_masks(monkeypatch, msn, patches_of(arrays[f"in_step{i}_kept_token_index"], 1))
        seen.clear()
        return train_views(arrays, p, i)

    class Compare(Callback):
        def on_after_backward(self, trainer, loop):
            if trainer.global_step == 0:
                ours = dict(method.online.named_parameters())
                for their, gradient in below("grad_step0.", arrays).items():
                    close(ours[our_name(their)].grad, gradient)
                close(method.prototypes.grad, arrays["grad_step0_prototypes"])

        def on_train_batch_end(self, trainer, loop, outputs, batch, index):
            i, groups = trainer.global_step - 1, trainer.optimizers[0].param_groups
            close(seen[0], arrays[f"out_step{i}_z_anchors"])
            close(seen[1], arrays[f"out_step{i}_h_target"])
            close(outputs["loss"], arrays["out_total"][i])
            close(outputs["log"]["cross_entropy"], arrays["out_cross_entropy"][i])
            close(outputs["log"]["me_max"], arrays["out_me_max"][i])
            close(loop.applied["sharpening"], arrays["out_sharpen_T"][i])
            close([group["lr"] for group in groups], arrays["out_lr_per_group"][i])
            close([group["weight_decay"] for group in groups], arrays["out_wd_per_group"][i])
            close(loop.gradient_norm, arrays["out_grad_norm_before_clip"][i])
            close(method.online.encoder.vit.norm.weight, arrays[f"out_step{i}_encoder_norm_weight"])
            close(method.target.encoder.vit.norm.weight, arrays[f"out_step{i}_target_norm_weight"])
            close(method.prototypes, arrays[f"out_step{i}_prototypes"])

    monkeypatch.setattr("chexmsn.training.compiling.make_views", the_authors_views)
    batches = [some_batch(p.batch)] * p.iterations_per_epoch
    run_through(method, batches, optimisation.epochs, [Compare()])
    assert next(wanted_views) == len(arrays["out_total"])

    for branch, prefix in ((method.online, "out_final_encoder."), (method.target, "out_final_target.")):
        for their, value in below(prefix, arrays).items():
            close(branch.state_dict()[our_name(their)], value)


def train_views(arrays, p, i):
    """The authors' list of views as our groups: target, random anchors, focal anchors."""
    views = [stacked(arrays[f"in_step{i}_view{v:02d}"]) for v in range(p.random_views_including_target + p.focal_views)]
    random = p.random_views_including_target
    return [views[0], torch.cat(views[1:random]), torch.cat(views[random:])]


def test_msn_parameter_groups():
    arrays = golden("msn_param_groups_a")
    names = params("msn_param_groups_a").parameter_names
    shapes = below("w.", golden("msn_train_a"))
    method_parameters = [(n, nn.Parameter(shapes[n])) for n in names if n != "prototypes"]
    groups = parameter_groups(method_parameters)
    number = {id(p): index for index, group in enumerate(groups) for p in group.params}
    assert [number[id(p)] for _, p in method_parameters] == arrays["out_group"].tolist()[:-1]
    assert [group.weight_decay for group in groups] == [True, False]
    prototypes = small_msn(msn.Config()).optimiser().groups[arrays["out_group"][-1]]
    assert (prototypes.weight_decay, prototypes.clip) == (False, False)


def test_ema():
    arrays, close = load("ema_a")
    target = nn.ParameterList([nn.Parameter(arrays["in_target0"])])
    for i, momentum in enumerate(params("ema_a").momentum):
        ema_update(target, nn.ParameterList([nn.Parameter(arrays[f"in_online{i}"])]), momentum)
        close(target[0], arrays[f"out_target{i}"])


@pytest.mark.parametrize("theirs", ["out_msn_kept_patches", "out_mae_kept_patches"])
def test_as_many_patches_are_kept_but_for_their_rounding(theirs):
    arrays = golden("mask_counts_a")
    for row, patches in zip(arrays[theirs].tolist(), arrays["in_patches"].tolist(), strict=True):
        for their, ratio in zip(row, arrays["in_ratio"].tolist(), strict=True):
            if their == 0:
                continue  # which ours refuses
            ours = kept_patches(some_draws(1), patches, ratio).shape[1]
            whole = math.isclose(patches * ratio, round(patches * ratio))
            assert ours == their or (whole and ours == their + 1 == patches - round(patches * ratio))


# --- MAE


def mae_name(name):
    """Their `decoder_blocks.0...` is our `decoder.blocks.0...`."""
    ours = {"decoder_embed": "embed", "decoder_blocks": "blocks", "decoder_norm": "norm", "decoder_pred": "predict"}
    first, _, rest = name.partition(".")
    if first in ours:
        return f"decoder.{ours[first]}.{rest}"
    return f"decoder.{name}" if name == "mask_token" else f"encoder.vit.{name}"


@pytest.mark.parametrize("name", ["mae_a_rawpix", "mae_b_normpix", "mae_c_normpix_r60"])
def test_mae_step(name, monkeypatch):
    arrays, close = load(name)
    p = params(name)
    weights = below("w.", arrays)
    backbone = {n: w for n, w in weights.items() if n != "mask_token" and not n.startswith("decoder_")}
    encoder = vit(backbone, size=p.img_size, patch=p.patch_size, depth=p.depth, heads=p.num_heads)
    config = mae.Config(mask_ratio=p.mask_ratio, norm_pix=p.norm_pix_loss)
    method = mae.Method(config, encoder, Setting(size=p.img_size, batch_size=p.batch)).double()
    close(encoder.vit.pos_embed.double(), weights["pos_embed"])
    method.decoder = mae.Decoder(
        encoder.width,
        method.grid,
        3 * p.patch_size**2,
        width=p.decoder_embed_dim,
        depth=p.decoder_depth,
        heads=p.decoder_num_heads,
    ).double()
    close(method.decoder.positions, weights["decoder_pos_embed"])
    ours = dict(method.named_parameters())
    for their, weight in weights.items():
        if their != "decoder_pos_embed":
            ours[mae_name(their)].data.copy_(weight)
    encoder.normalise = Unstack()
    predicted = []
    method.decoder.register_forward_hook(lambda module, args, out: predicted.append(out))

    monkeypatch.setattr(Draws, "uniform", lambda draws, count: arrays["in_noise"])
    kept = kept_patches(some_draws(p.batch), arrays["in_noise"].shape[1], p.mask_ratio)
    assert torch.equal(kept, arrays["out_ids_keep"])
    assert torch.equal(mae.removed_patches(kept, arrays["in_noise"].shape[1]).double(), arrays["out_mask"])
    close(mae.patchify(arrays["in_images"], p.patch_size), arrays["out_target_patches_raw"])

    step = method.step([stacked(arrays["in_images"])], None, some_draws(p.batch), {})
    close(predicted[0], arrays["out_pred"])
    close(step.loss, arrays["out_loss"])
    step.loss.backward()
    for their, gradient in below("grad_", arrays).items():
        close(ours[mae_name(their)].grad, gradient)


def test_sine_cosine_tables():
    arrays, close = load("mae_sincos_a")
    for table in params("mae_sincos_a").tables:
        ours = mae.sine_cosine_positions(table["dim"], (table["grid"], table["grid"]))[0]
        suffix = "_cls" if table["cls_token"] else ""
        close(ours if table["cls_token"] else ours[1:], arrays[f"out_dim{table['dim']}_grid{table['grid']}{suffix}"])


def test_mae_learning_rate():
    arrays, close = load("mae_lr_a")
    p = params("mae_lr_a")
    config = mae.Config(lr=p.lr, warmup_epochs=float(p.warmup_epochs), warmup_share=1.0)
    encoder = vit(transformer_weights(), size=16, patch=4, depth=2, heads=2)
    lr = mae.Method(config, encoder, Setting(size=16, batch_size=8)).schedules()["lr"]
    per_epoch = 5
    ours = [lr.at(round(epoch * per_epoch), p.epochs * per_epoch, per_epoch) for epoch in arrays["in_epoch"].tolist()]
    close(torch.tensor(ours, dtype=torch.float64), arrays["out_lr"])


def transformer_weights():
    return {name: w for name, w in below("w.", golden("msn_train_a")).items() if not name.startswith("fc.")}


# --- classifiers, as MAE evaluates


def test_layer_decay():
    arrays, close = load("mae_layer_decay_a")
    p = params("mae_layer_decay_a")
    network = VisionTransformer(img_size=16, patch_size=8, embed_dim=8, depth=p.depth, num_heads=2, num_classes=3)
    named = dict(network.named_parameters())
    assert sorted(named) == sorted(p.parameter_names)
    groups = fine_tune.layer_groups(network, p.depth, p.layer_decay)
    found = {id(parameter): group for group in groups for parameter in group.params}
    ours = [found[id(named[name])] for name in p.parameter_names]
    close(torch.tensor([group.lr_scale for group in ours], dtype=torch.float64), arrays["out_lr_scale"])
    decay = [p.weight_decay * group.weight_decay for group in ours]
    close(torch.tensor(decay, dtype=torch.float64), arrays["out_weight_decay"])


# --- SimSiam


@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_cosine(dtype):
    arrays, close = load("negative_cosine_a", dtype)
    a, b = (arrays[f"in_z_{which}"].requires_grad_() for which in "ab")
    loss = simsiam.negative_cosine(a, b)
    close(loss, arrays["out_loss"])
    loss.backward()
    close(a.grad, arrays["grad_z_a"])
    close(b.grad, arrays["grad_z_b"])


@pytest.mark.parametrize(("name", "dtype"), with_dtypes("simsiam_loss_"))
def test_simsiam_loss(name, dtype):
    arrays, close = load(name, dtype)
    inputs = {what: arrays[f"in_{what}"].requires_grad_() for what in ("p1", "p2", "z1", "z2")}
    loss = simsiam.symmetric_loss(**inputs)
    close(loss, arrays["out_loss"])
    loss.backward()
    close(inputs["p1"].grad, arrays["grad_p1"])
    close(inputs["p2"].grad, arrays["grad_p2"])
    assert inputs["z1"].grad is inputs["z2"].grad is None


@pytest.mark.parametrize("name", ["simsiam_a", "simsiam_b"])
def test_simsiam_step(name):
    arrays, close = load(name)
    p = params(name)
    config = simsiam.Config(projection=p.dim, bottleneck=p.pred_dim)
    setting = Setting(size=224, batch_size=p.batch)
    method = simsiam.Method(config, GivenFeatures(p.backbone_dim), setting).double()
    weights = at_the_start(below("w.", arrays))
    method.load_state_dict({simsiam_name(their): w for their, w in weights.items()})
    views = as_image(torch.cat([arrays["in_features1"], arrays["in_features2"]])).requires_grad_()
    step = method.step([views], None, some_draws(p.batch), {})
    close(step.loss, arrays["out_loss"])
    step.loss.backward()
    close(views.grad[:, 0, 0], torch.cat([arrays["grad_features1"], arrays["grad_features2"]]))
    ours = dict(method.named_parameters())
    for their, gradient in below("grad_encoder", arrays).items():
        close(ours[simsiam_name("encoder" + their)].grad, gradient)
    for their, gradient in below("grad_predictor", arrays).items():
        close(ours["predictor" + their].grad, gradient)
    for their, buffer in below("out_buffer.", arrays).items():
        close(method.state_dict()[simsiam_name(their)], buffer)


def simsiam_name(name):
    return name.replace("encoder.fc.", "projector.")


def test_simsiam_learning_rates():
    arrays, close = load("simsiam_lr_a")
    p = params("simsiam_lr_a")
    config = simsiam.Config(base_lr=p.base_lr, projection=8, bottleneck=4)
    schedules = simsiam.Method(config, GivenFeatures(8), Setting(size=224, batch_size=p.batch_size)).schedules()
    for ours, their in (("lr", "encoder"), ("predictor_lr", "predictor_fixed")):
        values = [schedules[ours].at(epoch, p.epochs, 1) for epoch in range(p.epochs)]
        close(torch.tensor(values, dtype=torch.float64), arrays[f"out_lr_{their}"])
