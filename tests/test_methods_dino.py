"""DINO: the authors' numbers by the functions that training calls, and what single parts promise."""

import copy
import math

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional

from chexmsn.core.errors import UserError
from chexmsn.core.schedules import Cosine, LinearByEpoch, OnAfter, WarmupCosine
from chexmsn.methods import dino
from chexmsn.methods._base import Optimiser, ParameterGroup, Setting
from chexmsn.models.encoder import EncoderConfig, build_encoder, with_drop_path
from chexmsn.models.heads import DINOHead
from chexmsn.models.vit import interpolate_positions
from chexmsn.training.optimiser import build_optimiser, clip_gradients
from steps import take_step
from test_methods import batch_of, build, config_of, schedule_of, step_of
from test_methods_golden import DTYPES, load, params, with_dtypes
from test_models_golden import below, golden


def small_dino(**options):
    """DINO on a small network: for what does not depend on the network."""
    encoder = build_encoder(EncoderConfig(name="vit_micro", size=32, patch=16))
    config = dino.Config(**{"head_hidden": 8, "head_bottleneck": 4, "outputs": 8} | options)
    return dino.Method(config, encoder, Setting(size=32, batch_size=256))


# --- the authors' numbers


@pytest.mark.parametrize(("name", "dtype"), with_dtypes("dino_loss_"))
def test_loss_gradient_and_centre_over_steps(name, dtype):
    arrays, close = load(name, dtype)
    p = params(name)
    method = small_dino(
        outputs=p.out_dim,
        temperature=p.student_temp,
        teacher_temperature_start=p.warmup_teacher_temp,
        teacher_temperature=p.teacher_temp,
        teacher_warmup_epochs=p.warmup_teacher_temp_epochs,
        centre_momentum=p.center_momentum,
    ).to(DTYPES[dtype])
    temperature = method.schedules()["teacher_temperature"]
    temperatures = [temperature.at(5 * epoch, 5 * p.epochs, 5) for epoch in range(p.epochs)]
    close(torch.tensor(temperatures, dtype=DTYPES[dtype]), arrays["out_teacher_temp_schedule"])
    for i, epoch in enumerate(p.epoch_of_each_step):
        student = arrays[f"in_student{i}"].requires_grad_()
        teacher = arrays[f"in_teacher{i}"].unflatten(0, (2, p.batch))
        close(method.centre, arrays[f"out_center_before{i}"][0])
        loss = method.learn(student.unflatten(0, (p.ncrops, p.batch)), teacher, temperature.at(epoch, p.epochs, 1)).loss
        loss.backward()
        close(loss, arrays[f"out_loss{i}"])
        close(student.grad, arrays[f"grad_student{i}"])
        close(method.centre, arrays[f"out_center_after{i}"][0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_lightly_gives_the_same_loss(dtype):
    arrays, close = load("lightly_dino_loss_a", dtype)
    p = params("lightly_dino_loss_a")
    options = {"outputs": p.out_dim, "temperature": p.student_temp, "centre_momentum": p.center_momentum}
    method = small_dino(**options).to(DTYPES[dtype])
    for i in range(2):
        student = arrays[f"in_student{i}"].requires_grad_()
        loss = method.learn(student, arrays[f"in_teacher{i}"], p.teacher_temp).loss
        loss.backward()
        close(loss, arrays[f"out_loss{i}"])
        close(student.grad, arrays[f"grad_student{i}"])
        close(method.centre, arrays[f"out_center_after{i}"])


@pytest.mark.parametrize(("name", "dtype"), with_dtypes("dino_head_"))
def test_head(name, dtype):
    arrays, close = load(name, dtype)
    p = params(name)
    head = DINOHead(p.in_dim, p.hidden_dim, p.bottleneck_dim, p.out_dim, gain_trained=not p.norm_last_layer)
    head = head.to(DTYPES[dtype])
    weights = {weight_norm_name(their): w for their, w in below("w.", arrays).items()}
    close(head.state_dict()[GAIN], torch.ones_like(weights[GAIN]))
    head.load_state_dict(weights)
    logits = head(arrays["in_features"])
    (logits * arrays["in_logit_weights"]).sum().backward()
    ours = {name: parameter.grad for name, parameter in head.named_parameters()}
    close(logits, arrays["out_logits"])
    close(ours["mlp.0.weight"], arrays["grad_mlp0_weight"])
    close(ours[DIRECTION], arrays["grad_last_weight_v"])
    if p.norm_last_layer:
        assert ours[GAIN] is None
    else:
        close(ours[GAIN], arrays["grad_last_weight_g"])


GAIN, DIRECTION = (f"last_layer.parametrizations.weight.original{i}" for i in range(2))


def weight_norm_name(name):
    """What torch now calls the parts of a layer with normalised weights."""
    return {"last_layer.weight_g": GAIN, "last_layer.weight_v": DIRECTION}.get(name, name)


@pytest.mark.parametrize(
    ("name", "schedule", "options"),
    [
        ("dino_schedule_lr_a", "lr", {"lr": "base", "lr_final": "final", "warmup_epochs": "warmup_epochs"}),
        ("dino_schedule_wd_a", "weight_decay", {"weight_decay": "base", "weight_decay_final": "final"}),
        ("dino_schedule_momentum_a", "ema", {"ema_start": "base"}),
    ],
)
def test_schedules(name, schedule, options):
    arrays, close = load(name)
    p = params(name)
    ours = small_dino(warmup_share=1.0, **{ours: float(getattr(p, theirs)) for ours, theirs in options.items()})
    total = p.epochs * p.iterations_per_epoch
    values = [ours.schedules()[schedule].at(step, total, p.iterations_per_epoch) for step in range(total)]
    close(torch.tensor(values, dtype=torch.float64), arrays["out_values"])


def test_lightly_s_cosine_reaches_its_end_one_step_before_the_last():
    arrays, close = load("lightly_cosine_schedule_a")
    p = params("lightly_cosine_schedule_a")
    values = [Cosine(p.start, p.end).at(step, p.max_steps - 1, 1) for step in range(p.max_steps + 1)]
    close(torch.tensor(values, dtype=torch.float64), arrays["out_values"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "theirs"), [("clip_each", "per_parameter"), ("clip", "global")])
def test_gradients_are_clipped_one_by_one_or_together(rule, theirs, dtype):
    arrays, close = load("clip_gradients_a", dtype)
    gradients = below("in_grad_", arrays)
    parameters = {name: nn.Parameter(torch.zeros_like(gradient)) for name, gradient in gradients.items()}
    for name, parameter in parameters.items():
        parameter.grad = gradients[name].clone()
    groups = [ParameterGroup(params=list(parameters.values()))]
    norm = clip_gradients(Optimiser(name="adamw", groups=groups, **{rule: params("clip_gradients_a").max_norm}))
    close(norm, torch.cat([gradient.flatten() for gradient in gradients.values()]).norm())
    for name, parameter in parameters.items():
        close(parameter.grad, arrays[f"out_{theirs}_{name}"])


@pytest.mark.parametrize("pair", ["14to6", "28to12", "7to5"])
def test_positions_are_not_shifted_as_the_authors_shift_them(pair):
    arrays = golden("pos_embed_interpolation_a")
    side = int(pair.partition("to")[2])
    ours, theirs = interpolate_positions(arrays[f"in_pos_{pair}"], (side, side)), arrays[f"out_dino_{pair}"]
    factor = (side + 0.1) / int(pair.partition("to")[0])
    grid = arrays[f"in_pos_{pair}"][:, 1:].unflatten(1, (-1, int(pair.partition("to")[0]))).permute(0, 3, 1, 2)
    shifted = functional.interpolate(grid, scale_factor=factor, mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(shifted, theirs[:, 1:], rtol=1e-8, atol=1e-10)
    assert (ours - theirs).abs().max() > 0.01


# --- the method


def test_published_views_at_224():
    encoder = build_encoder(EncoderConfig(name="vit_micro", size=224))
    method = dino.Method(config_of("dino", local_views=8), encoder, Setting(size=224, batch_size=1024))
    views = [(group.name, group.count, group.size, group.scale) for group in method.views()]
    assert views == [("global", 2, 224, (0.4, 1.0)), ("local", 8, 96, (0.05, 0.4))]
    assert method.schedules()["lr"] == WarmupCosine(2e-3, end=1e-6, warmup_epochs=10.0, warmup_share=0.1, hold=1)


def test_the_first_step_of_a_warm_up_is_at_0_and_its_last_at_the_peak():
    lr = build("dino", lr=1.0, warmup_share=1.0, warmup_epochs=2.0).schedules()["lr"]
    values = [lr.at(step, total=30, per_epoch=3) for step in range(7)]
    assert values[:7] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1])


def test_temperature_and_freezing_go_by_whole_epochs():
    assert [LinearByEpoch(0.0, 1.0, epochs=1).at(step, 20, 5) for step in (0, 4, 5)] == [0.0, 0.0, 1.0]
    assert [OnAfter(1.0).at(step, 20, 5) for step in (0, 4, 5)] == [0.0, 0.0, 1.0]
    assert OnAfter(0.0).at(0, 20, 5) == 1.0


def rate_of(encoder):
    return [module.drop_prob for module in encoder.modules() if isinstance(module, DropPath)]


@pytest.mark.parametrize("name", ["vit_micro", "resnet18"])
def test_stochastic_depth_is_the_student_s_alone(name):
    method = build("dino", encoder=name, drop_path=0.2)
    student = rate_of(method.student.encoder)
    assert max(student) == pytest.approx(0.2) and student == sorted(student)
    assert rate_of(method.teacher.encoder) == []
    assert method.downstream().config.drop_path == 0.0
    assert step_of(method).loss.isfinite()


def test_another_stochastic_depth_leaves_the_weights():
    encoder = build_encoder(EncoderConfig(name="vit_micro", size=32, drop_path=0.3))
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    without = with_drop_path(encoder, 0.0)
    assert without.training and rate_of(without) == []
    assert torch.equal(without(images).pooled, encoder.eval()(images).pooled)


def test_student_and_teacher_start_alike_and_only_the_average_moves_the_teacher():
    method = build("dino")
    student, teacher = method.student.state_dict(), copy.deepcopy(method.teacher.state_dict())
    assert all(torch.equal(w, teacher[name]) for name, w in student.items())
    assert not any(p.requires_grad for p in method.teacher.parameters())
    for p in method.student.parameters():
        p.data.add_(1.0)
    method.after_step({"ema": 0.75})
    for name, w in method.teacher.named_parameters():
        torch.testing.assert_close(w, teacher[name] + 0.25)


def trained(method, steps, **values):
    """The optimiser after so many steps of the first epoch (10 steps long) and on."""
    optimiser = build_optimiser(method.optimiser())
    for step in range(steps):
        schedule = {name: s.at(step, 100, 10) for name, s in method.schedules().items()} | values
        take_step(method, optimiser, schedule, step_of(method).loss)
    return optimiser


@pytest.mark.parametrize("gain_trained", [False, True])
def test_a_frozen_last_layer_is_moved_by_nothing_and_has_no_past_when_it_thaws(gain_trained):
    method = build("dino", gain_trained=gain_trained)
    last = method.student.head.last_layer
    before = copy.deepcopy(last.state_dict())
    optimiser = trained(method, 10, lr=0.01, weight_decay=0.4)
    assert all(torch.equal(w, before[name]) for name, w in last.state_dict().items())
    assert not any(p in optimiser.state for p in last.parameters())
    assert all(p in optimiser.state for p in method.student.head.mlp.parameters())
    trained(method, 11, lr=0.01, weight_decay=0.4)
    moved = {name: not torch.equal(w, before[name]) for name, w in last.state_dict().items()}
    assert moved == {GAIN.removeprefix("last_layer."): gain_trained, DIRECTION.removeprefix("last_layer."): True}


def test_a_last_layer_need_not_be_frozen():
    method = build("dino", freeze_last_layer=0.0)
    before = method.student.head.last_layer.weight.clone()
    trained(method, 1, lr=0.01)
    assert not torch.equal(before, method.student.head.last_layer.weight)


def test_each_parameter_tensor_is_clipped_by_itself():
    description = build("dino", clip=0.5).optimiser()
    assert (description.clip, description.clip_each) == (None, 0.5)


def test_the_centre_follows_training_and_not_validation():
    method = build("dino")
    views, labels, draws = batch_of(method)
    method.validation_step(views, labels, draws, schedule_of(method))
    assert not method.centre.any()
    _, _, teacher = method._outputs(views, draws)
    method.step(views, labels, draws, schedule_of(method))
    torch.testing.assert_close(method.centre, 0.1 * teacher.mean((0, 1)))
    assert "centre" in method.state_dict()


def test_a_view_is_not_compared_with_itself():
    teacher = torch.eye(3)[:2, None, :]  # two views of one image, each sure of its own output
    logs = torch.stack([teacher[1], teacher[0]]).mul(50).log_softmax(-1)
    assert dino.distillation_loss(logs, teacher) < 1e-6  # each student's view says what the other teacher's view says
    assert dino.distillation_loss(logs.flip(0), teacher) > 40


def test_outputs_in_use_are_counted_as_prototypes_are():
    method, student = small_dino(), torch.zeros(3, 8, 8)
    apart = 5 * torch.eye(8).expand(2, 8, 8)  # two views of eight images, each image at an output of its own
    spread, collapsed = (method.loss(student, teacher, 0.04).log for teacher in (apart, apart[:, :1].expand(2, 8, 8)))
    assert (spread["prototypes_used"], collapsed["prototypes_used"]) == (8, 1)
    assert spread["prototype_entropy"].item() == pytest.approx(math.log(8), abs=1e-3)
    assert collapsed["prototype_entropy"] < 1e-3
    agree = method.loss(apart[[0, 1, 0]], apart, 0.04).log["prototype_agreement"]
    assert agree == 1 and spread["prototype_agreement"] == 1 / 8


def test_centring_and_sharpening_work_against_each_other():
    logits = torch.tensor([[[5.0, 0.0, 0.0]]])
    assert dino.teacher_probabilities(logits, logits[0, 0], 0.04).allclose(torch.full((3,), 1 / 3))
    assert dino.teacher_probabilities(logits, torch.zeros(3), 0.04)[0, 0, 0] > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must"),
        ({"teacher_temperature": -1.0}, "teacher_temperature must"),
        ({"centre_momentum": 1.5}, "centre_momentum must lie in"),
        ({"drop_path": 1.0}, "drop_path must lie in"),
        ({"outputs": 1}, "outputs must be at least 2"),
        ({"freeze_last_layer": -1.0}, "freeze_last_layer must be at least 0"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"local_views": 0, "global_views": 1}, "a global view and one more"),
        ({"global_views": 0}, "global_views must be at least 1"),
        ({"local_size": 20}, "local size must be a multiple of the patch size 8, not 20"),
        ({"global_scale": (0.4, 2.0)}, "scale"),
    ],
)
def test_nonsense_is_refused_before_any_data_is_opened(options, message):
    with pytest.raises(UserError, match=message) as refused:
        dino.Method.check(dino.Config(**options), EncoderConfig(name="vit_micro", patch=8, size=32), 32, 4)
    assert "\n" not in str(refused.value)
