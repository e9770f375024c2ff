"""What every method promises. The suite walks chexmsn/methods: a new file is tested without another edit."""

import copy
import dataclasses
from contextlib import ExitStack
from unittest import mock

import pytest
import torch

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load, names
from chexmsn.corruptions import CorruptionPlan
from chexmsn.methods._base import AbstractMethod, MethodConfig, Setting
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import Encoder, EncoderConfig, build_encoder
from chexmsn.training.optimiser import build_optimiser
from chexmsn.views import evaluation_view, make_views
from steps import take_step

METHODS = names("chexmsn.methods")
MASKED = [name for name in METHODS if load("chexmsn.methods", name).Method.uses_mask_ratio]
FINDINGS = ("Edema", "Fracture", "Pneumothorax")
KEYS = keys_of(["a", "b", "c", "d"])
SMALL = {  # for speed alone; and without stochastic depth, which draws from torch's generator
    "msn": {"focal_views": 3, "head_hidden": 64, "head_out": 32, "prototypes": 16},
    "pmsn": {"focal_views": 3, "head_hidden": 64, "head_out": 32, "prototypes": 16},
    "dino": {"local_views": 2, "head_hidden": 64, "head_bottleneck": 32, "outputs": 64, "drop_path": 0.0},
    "lejepa": {"local_views": 2, "head_hidden": 64, "head_out": 32, "slices": 32, "trade_off": 0.5},
}
NOISE = CorruptionPlan(names=("gaussian-noise",), severity=(5.0, 5.0), probability=1.0)


def config_of(name, **options):
    return load("chexmsn.methods", name).Config(**SMALL.get(name, {}) | options)


def build(name, encoder="vit_micro", **options):
    """A method on a small encoder; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_encoder(EncoderConfig(name=encoder, patch=8, size=32))
        setting = Setting(size=32, batch_size=len(KEYS), findings=FINDINGS, positives=(0.5, 0.2, 0.1))
        return load("chexmsn.methods", name).Method(config_of(name, **options), network, setting)


def batch_of(method, keys=KEYS):
    """Views, labels and draws of the images behind the keys."""
    generators = [torch.Generator().manual_seed(abs(key)) for key in keys.tolist()]
    images = torch.stack([torch.rand(1, 40, 40, generator=generator) for generator in generators])
    draws = Draws.of(0, keys)
    labels = torch.tensor([[1.0, 0.0, float("nan")], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    return make_views(images, method.views(), draws.stream("views")), labels[: len(keys)], draws.stream("method")


def schedule_of(method, step=1, total=10):
    return {name: schedule.at(step, total, 5) for name, schedule in method.schedules().items()}


def step_of(method, keys=KEYS):
    return method.step(*batch_of(method, keys), schedule_of(method))


def parameters(method):
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


def encoders(method):
    return [module for module in method.modules() if isinstance(module, Encoder)]


def pooling(pool, passes):
    """`Encoder.pool`, noted where it does not go through `forward`, which is noted anyway."""

    def noted(*args):
        before = len(passes)
        features = pool(*args)
        if len(passes) == before:
            passes.append(args)
        return features

    return noted


def what_encoders_see(method, keys=KEYS):
    """Images and kept patches of every pass through each encoder of a method, during one step."""
    seen = [[] for _ in encoders(method)]
    with ExitStack() as stack:
        for encoder, passes in zip(encoders(method), seen, strict=True):
            hook = encoder.register_forward_pre_hook(lambda module, args, passes=passes: passes.append(args))
            stack.callback(hook.remove)
            stack.enter_context(mock.patch.object(encoder, "pool", pooling(encoder.pool, passes)))
        step_of(method, keys)
    return [[(args[0], args[1] if len(args) > 1 else None) for args in passes] for passes in seen]


@pytest.mark.parametrize("name", METHODS)
def test_names_its_paper_and_documents_its_options(name):
    module = load("chexmsn.methods", name)
    assert "arXiv" in module.__doc__
    documentation = "".join(base.__doc__ for base in module.Config.__mro__[:-1])
    undocumented = [f.name for f in dataclasses.fields(module.Config) if f"{f.name}:" not in documentation]
    assert not undocumented
    assert issubclass(module.Method, AbstractMethod)


@pytest.mark.parametrize("name", METHODS)
def test_has_the_options_that_every_method_has(name):
    module = load("chexmsn.methods", name)
    assert issubclass(module.Config, MethodConfig)
    options = {field.name for field in dataclasses.fields(module.Config)}
    assert module.Method.uses_mask_ratio == ("mask_ratio" in options)
    with pytest.raises(UserError, match="warmup_share must lie in"):
        config_of(name, warmup_share=0.0)
    with pytest.raises(UserError, match="warmup_epochs must be at least 0"):
        config_of(name, warmup_epochs=-1.0)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_gives_a_finite_loss_and_every_trainable_parameter_a_gradient(name):
    method = build(name)
    step = step_of(method)
    assert step.loss.shape == () and step.loss.isfinite()
    assert all(value.isfinite() and not value.requires_grad for value in step.log.values())
    step.loss.backward()
    assert [name for name, p in parameters(method).items() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in parameters(method).values())


PRETRAINING = [name for name in METHODS if load("chexmsn.methods", name).Method.kind == "pretraining"]


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_gives_features_of_each_image_to_read_its_health_off(name):
    method = build(name)
    step = step_of(method)
    assert step.features.shape == (len(KEYS), method.downstream().width)
    assert step.features.isfinite().all() and not step.features.requires_grad
    if "prototypes_used" in step.log:
        assert {"prototype_entropy", "agreement", "prototype_agreement"} <= step.log.keys()
        assert step.log["prototype_entropy"] >= 0 and 0 <= step.log["prototype_agreement"] <= 1
    if "agreement" in step.log:
        assert -1.001 <= step.log["agreement"] <= 1.001


@pytest.mark.parametrize("name", METHODS)
def test_every_trainable_parameter_is_in_the_optimiser_once(name):
    method = build(name)
    grouped = [id(p) for group in method.optimiser().groups for p in group.params]
    assert sorted(grouped) == sorted(id(p) for p in parameters(method).values())


@pytest.mark.parametrize("name", METHODS)
def test_the_same_draws_give_the_same_loss(name):
    torch.manual_seed(1)
    first = step_of(build(name)).loss
    torch.manual_seed(2)
    assert step_of(build(name)).loss == first


@pytest.mark.parametrize("name", METHODS)
def test_no_number_is_taken_from_the_global_generator(name):
    method = build(name)
    before = torch.get_rng_state()
    step_of(method)
    method.after_step(schedule_of(method))
    method.downstream()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", MASKED)
def test_an_image_has_its_own_mask_in_whatever_batch(name):
    method = build(name, mask_ratio=0.5)
    alone, together = what_encoders_see(method, KEYS[2:]), what_encoders_see(method)
    masks = 0
    for few, many in zip(alone, together, strict=True):
        for (_, kept), (_, wide) in zip(few, many, strict=True):
            if kept is None:
                assert wide is None
                continue
            wide = wide.unflatten(0, (-1, len(KEYS)))
            assert torch.equal(kept.unflatten(0, (-1, 2)), wide[:, 2:])
            assert len({tuple(row) for row in wide.flatten(0, 1).tolist()}) == wide.shape[0] * wide.shape[1]
            assert kept.shape[1] == 8
            masks += 1
    assert masks


@pytest.mark.parametrize("name", METHODS)
def test_after_step_moves_nothing_that_is_trained(name):
    method = build(name)
    before = copy.deepcopy(method.state_dict())
    method.after_step(schedule_of(method))
    trained = parameters(method)
    assert all(torch.equal(p, before[name]) for name, p in trained.items())


@pytest.mark.parametrize("name", METHODS)
def test_hands_on_what_its_kind_promises(name):
    method = build(name)
    assert isinstance(method.downstream(), {"pretraining": Encoder, "classifier": Classifier}[method.kind])


@pytest.mark.parametrize("name", METHODS)
def test_training_can_be_corrupted_and_says_so(name):
    clean, noisy = build(name), build(name, corruption=NOISE)
    seen = ["tokens-removed"] if clean.uses_mask_ratio and clean.config.mask_ratio > 0 else []
    seen += [entry["corruption"] for group in clean.views() for entry in group.corruptions()]
    assert [entry["corruption"] for entry in clean.corruptions_seen()] == seen
    assert [entry["corruption"] for entry in noisy.corruptions_seen()] == ["gaussian-noise", *seen]
    assert set(seen) <= {"tokens-removed", *names("chexmsn.corruptions")}
    changed = [
        [not torch.equal(a, b) for (a, _), (b, _) in zip(before, after, strict=True)]
        for before, after in zip(what_encoders_see(clean), what_encoders_see(noisy), strict=True)
    ]
    assert all(changed[0]), "every input of the trained encoder is corrupted"
    assert not any(any(passes) for passes in changed[1:]), "no input of a target is"
    assert step_of(clean).loss != step_of(noisy).loss


@pytest.mark.parametrize("name", METHODS)
def test_validation_needs_no_gradient_and_repeats_itself(name):
    method = build(name).eval()
    views, labels, draws = batch_of(method)
    if method.kind == "classifier":
        views = [evaluation_view(views[0], 32)]
    first, second = (method.validation_step(views, labels, draws, schedule_of(method)) for _ in range(2))
    assert first.loss == second.loss and not first.loss.requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_stays_in_full_precision_under_autocast(name):
    method = build(name)
    with torch.autocast("cpu", torch.bfloat16):
        step = step_of(method)
    assert step.loss.dtype == torch.float32 and step.loss.isfinite()
    step.loss.backward()


@pytest.mark.parametrize("name", METHODS)
def test_learns_a_fixed_batch(name):
    method = build(name)
    description = method.optimiser()
    optimiser, losses = build_optimiser(description), []
    for step in range(12):
        schedule = schedule_of(method, step + 1, total=200) | {"lr": 1e-3 if description.name == "adamw" else 1e-2}
        loss = method.step(*batch_of(method), schedule).loss
        take_step(method, optimiser, schedule, loss)
        losses.append(loss.item())
    assert min(losses[-2:]) < losses[0] - 0.02


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5])
def test_a_mask_ratio_out_of_range_is_refused(name, ratio):
    with pytest.raises(UserError, match="mask_ratio must lie in"):
        config_of(name, mask_ratio=ratio)


@pytest.mark.parametrize("name", MASKED)
def test_dropping_patches_from_a_cnn_is_refused(name):
    with pytest.raises(UserError, match="resnet18"):
        build(name, encoder="resnet18", mask_ratio=0.5)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("mae", "attentive-probe")])
def test_a_cnn_can_be_trained(name):
    options = {"mask_ratio": 0.0} if name in MASKED else {}
    step = step_of(build(name, encoder="resnet18", **options))
    assert step.loss.isfinite()
