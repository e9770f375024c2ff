"""The known defects of earlier code are impossible or options, and docs/defects.md says truly which test shows it."""

import ast
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.lookup import load, names
from chexmsn.core.schedules import Constant
from chexmsn.corruptions import kept_patches
from chexmsn.data.pack import open_pack
from chexmsn.methods import dino, msn
from chexmsn.methods._base import Setting, ema_update
from chexmsn.methods._classifier import masked_bce
from chexmsn.models.artefact import load_classifier, load_encoder, provenance_of
from chexmsn.models.encoder import VIT_SIZES, EncoderConfig, build_encoder
from chexmsn.models.heads import ProjectionHead
from chexmsn.recipes.recipe import read_recipe
from chexmsn.training.callbacks import StopEarly
from chexmsn.training.config import PretrainConfig, TrainConfig
from test_methods import KEYS, batch_of, build, parameters, schedule_of, step_of, what_encoders_see

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "defects.md").read_text(encoding="utf-8")
PRETRAINING = [name for name in names("chexmsn.methods") if load("chexmsn.methods", name).Method.kind == "pretraining"]


# --- the table


def rows() -> list[list[str]]:
    """The cells of every row of every table, heads left out."""
    lines = [line for line in TEXT.splitlines() if line.startswith("|") and not line.startswith(("| |", "| ---"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_all_29_and_a_test_for_each():
    numbered = [row for row in rows() if row[0].isdigit()]
    assert [int(row[0]) for row in numbered] == list(range(1, 30))
    assert len(rows()) == 29 + 8
    assert [row[0] for row in rows() if "::test_" not in row[-1]] == []


@pytest.mark.parametrize(("file", "test"), sorted(set(re.findall(r"`(test_\w+)::(test_\w+)`", TEXT))))
def test_every_test_that_is_named_exists(file, test):
    tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
    assert test in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_every_option_of_the_ablation_is_in_the_table(tmp_path):
    arms = {
        stage.name.removeprefix("pretrain-"): stage.values["options"]
        for stage in read_recipe(ROOT / "recipes" / "ablation-defects.yaml", tmp_path, {})
        if stage.command == "pretrain"
    }
    corrected = arms.pop("corrected")
    changes = {
        arm: {k: v for k, v in options.items() if corrected.get(k, "default") != v} for arm, options in arms.items()
    }
    named = set(re.findall(r"`(\w+)(?:: \w+)?`", TEXT))
    assert {option for change in changes.values() for option in change} <= named
    together = changes.pop("all-at-once")
    alone = {option: value for change in changes.values() for option, value in change.items()}
    assert together | {"mask_shared": True} == alone
    assert all(len(change) == 1 for arm, change in changes.items() if arm != "narrow-head")


# --- pretraining


def test_every_patch_has_its_chance_and_the_class_token_is_none():
    kept = kept_patches(Draws.of(0, keys_of(map(str, range(300)))), 196, 0.15)
    assert kept.shape == (300, 166)
    assert set(kept.flatten().tolist()) == set(range(196)), "the last patch too"
    encoder = build_encoder(EncoderConfig(name="vit_micro", patch=8, size=32)).eval()
    image = torch.rand(1, 1, 32, 32)
    alone = encoder(image, torch.empty(1, 0, dtype=torch.int64))
    assert alone.pooled.shape == (1, 128) and alone.tokens.shape == (1, 0, 128), "the class token stays"
    first = encoder(image, torch.tensor([[0]]))
    image[..., :8, :8] = 0
    assert not torch.equal(first.pooled, encoder(image, torch.tensor([[0]])).pooled), "patch 0 is a patch"


def test_what_the_earlier_code_lacks_can_be_left_out():
    without = build("msn", ema="constant", weight_decay=0.001, weight_decay_final=None, warmup_epochs=0.0, clip=None,
                    decay_all=True, lr=1e-4, lr_final=0.0, stretch=1.0)  # fmt: skip
    schedules = [schedule_of(without, step, total=100) for step in range(100)]
    assert {s["ema"] for s in schedules} == {0.996}
    assert {s["weight_decay"] for s in schedules} == {0.001}
    assert {s["sharpening"] for s in schedules} == {0.25}
    assert schedules[0]["lr"] == pytest.approx(1e-4, rel=1e-3) and schedules[-1]["lr"] == 0.0
    assert without.optimiser().clip is None
    decayed = [p for group in without.optimiser().groups if group.weight_decay for p in group.params]
    assert {id(p) for p in decayed} == {id(p) for p in without.online.parameters()}

    full = build("msn")
    first, last = schedule_of(full, 0, total=100), schedule_of(full, 99, total=100)
    assert first["ema"] == 0.996 < last["ema"] and first["weight_decay"] < last["weight_decay"]
    assert first["lr"] < schedule_of(full, 10, total=100)["lr"]
    assert full.optimiser().clip == 3.0
    spared = {id(p) for group in full.optimiser().groups if not group.weight_decay for p in group.params}
    names_spared = {name for name, p in parameters(full).items() if id(p) in spared}
    assert {"prototypes", "online.head.0.bias", "online.encoder.vit.norm.weight"} <= names_spared


def test_the_head_is_the_authors_and_can_be_the_narrow_one():
    def widths(config: msn.Config) -> list[int]:
        encoder = build_encoder(EncoderConfig(name="vit_micro", size=64))
        method = msn.Method(config, encoder, Setting(size=64, batch_size=256))
        assert method.prototypes.shape == (1024, config.head_out)
        return [layer.out_features for layer in method.online.head if isinstance(layer, torch.nn.Linear)]

    assert widths(msn.Config()) == [2048, 2048, 256]
    assert widths(msn.Config(head_hidden=512, head_out=128)) == [512, 512, 128]
    assert {size.width / size.heads for size in VIT_SIZES.values()} == {64}
    assert VIT_SIZES["vit_tiny"].heads == 3


def test_training_takes_whole_batches_of_training_patients(small_run):
    record = json.loads((small_run.encoder / "run.json").read_text())
    pack = open_pack(small_run.pack)
    of_training = (pack.index["split"] == "train").sum()
    assert record["data"]["images"] == of_training < len(pack.index)
    assert pd.read_csv(small_run.encoder / "history.csv")["step"].tolist() == [of_training // 16]
    assert of_training % 16, "there is a short batch to leave out"
    assert PretrainConfig.__dataclass_fields__["train_splits"].default == ("train",)


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_needs_no_labels(name):
    method = build(name)
    views, labels, draws = batch_of(method)
    losses = [method.validation_step(views, given, draws, schedule_of(method)).loss for given in (None, labels)]
    assert losses[0] == losses[1]


def test_the_last_encoder_is_kept_whatever_its_loss(small_run):
    kept, last = load_encoder(small_run.encoder), load_encoder(small_run.encoder / "checkpoints" / "last.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), last.parameters(), strict=True))
    assert provenance_of(small_run.encoder)["epochs_done"] == 1


@pytest.mark.parametrize(("random", "focal"), [(1, 3), (2, 1), (3, 0), (0, 2)])
def test_anchors_are_counted(random, focal):
    method = build("msn", random_views=random, focal_views=focal, mask_ratio=0.0)
    online, _ = what_encoders_see(method)
    assert sum(len(images) for images, _ in online) == (random + focal) * len(KEYS)
    assert step_of(method).loss.isfinite()


@pytest.mark.parametrize("ema", ["constant", "scheduled"])
def test_averaging_before_the_step_or_after_it_gives_the_same_targets(ema):
    """The earlier code averages first, then compares and steps; ours compares, steps, then averages."""
    ours = build("msn", ema=ema)
    theirs = build("msn", ema=ema).target
    for step in range(4):
        before = schedule_of(ours, max(step - 1, 0))["ema"]
        ema_update(theirs, ours.online, before)
        assert all(torch.equal(a, b) for a, b in zip(ours.target.parameters(), theirs.parameters(), strict=True))
        with torch.no_grad():
            for weight in ours.online.parameters():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)), alpha=0.01)
        ours.after_step(schedule_of(ours, step))


def test_a_bias_before_batch_norm_changes_nothing():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head, features = ProjectionHead(8, 16, 4).double(), torch.randn(32, 8, dtype=torch.float64)
    plain = head(features)
    plain.square().sum().backward()
    before_norm = [head[0].bias, head[3].bias]
    assert all(bias.grad.abs().max() < 1e-12 for bias in before_norm)
    with torch.no_grad():
        for bias in before_norm:
            bias.add_(3.0)
    torch.testing.assert_close(head(features), plain)


# --- baselines


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_learning_rate_and_a_weight_decay_that_are_given_are_used(name):
    method = build(name, lr=0.123, weight_decay=0.0456)
    given = [schedule_of(method, step, total=100) for step in range(100)]
    assert max(values["lr"] for values in given) == pytest.approx(0.123, rel=1e-3)
    assert given[0]["weight_decay"] == pytest.approx(0.0456, rel=1e-2)


@pytest.mark.parametrize("epochs", [10, 50, 100])
def test_dinos_momentum_rises_over_the_whole_run_and_its_teacher_goes_downstream(epochs):
    method = build("dino")
    momentum = [method.schedules()["ema"].at(step, total=5 * epochs, per_epoch=5) for step in range(5 * epochs)]
    assert momentum == sorted(momentum) and momentum[0] == 0.996 and 0.9999 < momentum[-1] <= 1.0
    assert isinstance(method, dino.Method) and method.downstream() is method.teacher.encoder


def test_mae_is_its_authors():
    method = build("mae")
    (crop,) = method.views()
    assert (crop.count, crop.size, crop.scale, crop.jitter) == (1, 32, (0.2, 1.0), None)
    assert method.config.mask_ratio == 0.75
    token = method.decoder.mask_token
    assert token.requires_grad and 0 < token.abs().max() < 0.2
    module = load("chexmsn.methods", "mae")
    assert module.decoder_shape(module.Config(), 768) == {"width": 512, "depth": 8, "heads": 16}
    network = build_encoder(EncoderConfig(name="vit_micro", size=64))
    command = module.Method(module.Config(), network, Setting(size=64, batch_size=4096))
    lr = [command.schedules()["lr"].at(epoch * 10, total=8000, per_epoch=10) for epoch in (0, 20, 40, 800)]
    assert lr == pytest.approx([0.0, 1.2e-3, 2.4e-3, 0.0])
    assert (command.optimiser().betas, command.optimiser().clip) == ((0.9, 0.95), None)


def test_simsiam_with_a_resnet_50_is_its_authors():
    module = load("chexmsn.methods", "simsiam")
    network = build_encoder(EncoderConfig(name="resnet50", size=64))
    method = module.Method(module.Config(), network, Setting(size=64, batch_size=512))
    optimiser, schedules = method.optimiser(), method.schedules()
    assert (optimiser.name, optimiser.momentum, optimiser.clip) == ("sgd", 0.9, None)
    assert all(group.weight_decay for group in optimiser.groups), "biases and norms too"
    assert schedules["weight_decay"] == Constant(1e-4)
    assert schedules["lr"].at(0, 1000, 10) == pytest.approx(0.1) and schedules["predictor_lr"] == Constant(0.1)
    assert schedules["lr"].at(999, 1000, 10) < 1e-5
    ends = [block.bn3.weight for layer in (1, 2, 3, 4) for block in getattr(network.resnet, f"layer{layer}")]
    assert len(ends) == 16 and not any(end.any() for end in ends), "residual branches start at 0"
    widths = [(layer.in_features, layer.out_features) for layer in (*method.projector, *method.predictor)
              if isinstance(layer, torch.nn.Linear)]  # fmt: skip
    assert widths == [(2048, 2048)] * 3 + [(2048, 512), (512, 2048)]
    assert not method.projector[6].bias.requires_grad
    assert [group.lr for group in optimiser.groups] == ["lr", "predictor_lr"]


# --- downstream and evaluation


def test_one_normalisation_from_pretraining_to_the_classifier(small_run):
    before, after = load_encoder(small_run.encoder), load_classifier(small_run.classifier).classifier.encoder
    assert (before.config.mean, before.config.std) == (after.config.mean, after.config.std)
    assert (before.normalise.mean, before.normalise.std) == (after.normalise.mean, after.normalise.std)


@pytest.mark.parametrize("logit", [-1000.0, -50.0, 50.0, 1000.0])
def test_a_loss_on_logits_is_finite_and_still_teaches(logit):
    logits = torch.full((1, 1), logit, requires_grad=True)
    wrong = torch.tensor([[float(logit < 0)]])
    loss = masked_bce(logits, wrong)
    loss.backward()
    assert loss.item() == pytest.approx(abs(logit)) and logits.grad.item() == pytest.approx(math.copysign(1, logit))


def test_a_small_improvement_counts_and_patience_is_asked_for():
    assert {kind.__dataclass_fields__["patience"].default for kind in (PretrainConfig, TrainConfig)} == {None}
    stop = StopEarly("auroc", patience=1, min_delta=0.0, mode="max")
    alone = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    trainer = SimpleNamespace(callback_metrics={}, fast_dev_run=False, strategy=alone, should_stop=False)
    trainer.current_epoch, trainer.is_global_zero, trainer.world_size = 0, True, 1
    for auroc, stops in [(0.8, False), (0.800001, False), (0.800002, False), (0.800002, True)]:
        trainer.callback_metrics["auroc"] = torch.tensor(auroc, dtype=torch.float64)
        stop._run_early_stopping_check(trainer)
        assert trainer.should_stop is stops, auroc
