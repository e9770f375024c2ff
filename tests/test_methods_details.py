"""What single methods promise beyond the common contract and their authors' numbers."""

import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import names
from chexmsn.core.schedules import Constant, Cosine, WarmupCosine
from chexmsn.methods import fine_tune, linear_probe, mae, msn, simsiam, supervised
from chexmsn.methods._base import Setting
from chexmsn.methods._classifier import masked_bce
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.views import Affine, Blur, Jitter, ViewGroup
from test_methods import FINDINGS, build, config_of, parameters, schedule_of, step_of, what_encoders_see

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 12)


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- MSN, the equations


@settings(max_examples=20)
@given(seeds, sizes, sizes)
def test_sinkhorn_gives_distributions_and_balances_prototypes(seed, batch, prototypes):
    balanced = msn.sinkhorn(normal(seed, batch, prototypes).log_softmax(1), iterations=200).exp()
    torch.testing.assert_close(balanced.sum(1), torch.ones(batch, dtype=torch.float64))
    share = torch.full((prototypes,), batch / prototypes, dtype=torch.float64)
    torch.testing.assert_close(balanced.sum(0), share, rtol=1e-6, atol=1e-6)


@settings(max_examples=50)
@given(seeds, sizes, sizes)
def test_losses_have_their_bounds(seed, batch, prototypes):
    logs = normal(seed, 3 * batch, prototypes).log_softmax(1)
    targets = normal(seed + 1, batch, prototypes).softmax(1)
    assert msn.divergence_from_uniform(logs.exp().mean(0)) >= -1e-12
    assert -1e-12 <= msn.mean_entropy(logs) <= math.log(prototypes) + 1e-12
    assert msn.cross_entropy(logs, targets) >= torch.special.entr(targets).sum(1).mean() - 1e-12
    assert 1 <= msn.prototypes_used(logs) <= min(3 * batch, prototypes)


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1.0])
def test_the_loss_is_finite_at_any_temperature_in_float32(temperature):
    anchors = normal(0, 12, 8, dtype=torch.float32).requires_grad_()
    prototypes = normal(1, 16, 8, dtype=torch.float32)
    logs = msn.log_assignments(anchors, prototypes, temperature)
    wanted = msn.target_assignments(anchors[:4], prototypes, temperature=temperature, sharpening=0.1)
    loss = msn.cross_entropy(logs, wanted) + msn.divergence_from_uniform(logs.exp().mean(0))
    loss.backward()
    assert wanted.isfinite().all() and loss.isfinite() and anchors.grad.isfinite().all()
    assert not wanted.requires_grad


# --- MSN, the method


def test_msn_hands_on_its_target_which_only_the_average_moves():
    method = build("msn")
    assert method.downstream() is method.target.encoder
    assert not any(p.requires_grad for p in method.target.parameters())
    for p in method.online.parameters():
        p.data.add_(1.0)
    before = [p.clone() for p in method.target.parameters()]
    method.after_step({"ema": 0.75})
    for old, new in zip(before, method.target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_msn_targets_have_batch_statistics_and_buffers_of_their_own():
    method = build("msn")
    step_of(method)
    online, target = method.online.head[1], method.target.head[1]
    assert target.training
    assert target.num_batches_tracked == 1 and online.num_batches_tracked == 2
    before = target.running_mean.clone()
    method.after_step(schedule_of(method))
    assert torch.equal(target.running_mean, before)


def test_msn_prototypes_can_be_left_as_drawn():
    method = build("msn", prototypes_trained=False)
    step_of(method).loss.backward()
    assert method.prototypes.grad is None
    assert all(method.prototypes is not p for group in method.optimiser().groups for p in group.params)
    trained = build("msn")
    step_of(trained).loss.backward()
    assert trained.prototypes.grad.abs().sum() > 0
    assert trained.prototypes.abs().max() <= 32**-0.5


@pytest.mark.parametrize(("mask_focal", "shared"), [(False, False), (True, False), (False, True), (True, True)])
def test_msn_masks_what_was_asked_for(mask_focal, shared):
    method = build("msn", mask_ratio=0.5, mask_focal=mask_focal, mask_shared=shared)
    online, target = what_encoders_see(method)
    (_, random), (_, focal) = online
    assert target[0][1] is None, "the target is whole"
    assert random.shape == (4, 8)
    assert (focal is not None) == mask_focal
    if mask_focal:
        assert focal.shape == (12, 2)
    assert (len({tuple(row) for row in random.tolist()}) == 1) == shared


def test_msn_views_are_the_published_ones_at_224():
    method = msn.Method(config_of("msn", focal_views=10), large_encoder(), Setting(size=224, batch_size=1024))
    views = [(group.name, group.count, group.size, group.scale) for group in method.views()]
    assert views == [
        ("target", 1, 224, (0.3, 1.0)),
        ("random", 1, 224, (0.3, 1.0)),
        ("focal", 10, 96, (0.05, 0.3)),
    ]


def large_encoder():
    return build_encoder(EncoderConfig(name="vit_micro", size=224))


def test_msn_options_change_the_schedules():
    schedules = build("msn", ema="constant", weight_decay=0.001, weight_decay_final=None, lr=1e-4).schedules()
    assert schedules["ema"] == Constant(0.996)
    assert schedules["weight_decay"] == Cosine(0.001, 0.001, stretch=1.25, offset=1)
    assert (schedules["lr"].start, schedules["lr"].end) == pytest.approx((2e-5, 1e-7))


def test_a_short_run_warms_up_shortly():
    published = WarmupCosine(peak=1.0, warmup_epochs=15.0, warmup_share=0.1)
    assert published.at(9, total=100, per_epoch=10) < 1 == published.at(10, total=100, per_epoch=10)
    assert published.at(149, total=8000, per_epoch=10) < 1 == published.at(150, total=8000, per_epoch=10)


def test_msn_says_when_prototypes_are_many_for_the_batch(caplog):
    with caplog.at_level(logging.WARNING):
        build("msn", prototypes=64)
        assert "64 prototypes" in caplog.text
        caplog.clear()
        build("msn", prototypes=16)
        assert not caplog.text


def test_msn_logs_what_shows_a_collapse():
    log = step_of(build("msn")).log
    assert {
        "cross_entropy",
        "me_max",
        "anchor_entropy",
        "target_entropy",
        "prototype_entropy",
        "prototypes_used",
    } <= set(log)
    assert 0 <= log["prototype_entropy"] <= math.log(16)


@pytest.mark.parametrize("name", ["msn", "simsiam"])
def test_blurred_views_count_as_a_corruption_seen(name):
    blurred, sharp = (
        {entry["corruption"] for entry in build(name, blur=blur).corruptions_seen()} for blur in (Blur(), None)
    )
    assert blurred - sharp == {"gaussian-blur"}


def test_every_change_of_views_counts_as_the_corruption_it_is():
    changes = {"affine": Affine(), "jitter": Jitter(gamma=0.2), "blur": Blur()}
    seen = [entry["corruption"] for entry in ViewGroup(name="all", count=1, size=32, **changes).corruptions()]
    assert seen == ["flip", "rotation", "scale", "shift", "brightness", "contrast", "gamma", "gaussian-blur"]
    assert set(seen) <= set(names("chexmsn.corruptions"))


def test_a_change_of_nothing_is_none():
    still = {"affine": Affine(rotate=0.0, scale=(1.0, 1.0), shift=0.0), "jitter": Jitter(probability=0.0)}
    assert ViewGroup(name="still", count=1, size=32, flip=0.0, blur=Blur(probability=0.0), **still).corruptions() == []


# --- MAE


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_patches_put_back_are_the_image(seed, channels, rows, columns, patch):
    image = normal(seed, 2, channels, rows * patch, columns * patch)
    patches = mae.patchify(image, patch)
    folded = patches.unflatten(2, (patch * patch, channels)).transpose(2, 3).flatten(2).transpose(1, 2)
    assert torch.equal(functional.fold(folded, image.shape[2:], patch, stride=patch), image)


def test_mae_judges_removed_patches_alone():
    predicted, wanted = normal(0, 2, 6, 4), normal(1, 2, 6, 4)
    kept = torch.tensor([[0, 3], [5, 2]])
    removed = mae.removed_patches(kept, 6)
    loss = mae.reconstruction_loss(predicted, wanted, removed)
    changed = predicted.masked_fill(~removed[..., None], 7.0)
    assert mae.reconstruction_loss(changed, wanted, removed) == loss
    torch.testing.assert_close(loss, functional.mse_loss(predicted[removed], wanted[removed]))


def test_mae_positions_are_fixed():
    method = build("mae")
    assert "encoder.vit.pos_embed" not in parameters(method)
    table = mae.sine_cosine_positions(128, (4, 4)).float()
    assert torch.equal(method.downstream().vit.pos_embed, table)


def test_mae_learning_rate_grows_with_the_batch():
    assert build("mae").schedules()["lr"].peak == pytest.approx(1.5e-4 * 4 / 256)
    assert build("mae", lr=1e-3).schedules()["lr"].peak == 1e-3


# --- SimSiam


def test_simsiam_sees_a_collapse():
    assert simsiam.spread(torch.ones(8, 16)) == 0
    assert simsiam.spread(normal(0, 512, 16)) == pytest.approx(1, abs=0.05)


def test_simsiam_predictor_may_keep_its_learning_rate():
    fixed, falling = build("simsiam").optimiser(), build("simsiam", fix_predictor_lr=False).optimiser()
    assert [group.lr for group in fixed.groups] == ["lr", "predictor_lr"]
    assert [group.lr for group in falling.groups] == ["lr", "lr"]
    assert all(group.weight_decay for group in fixed.groups)
    assert build("simsiam", optimiser="adamw").optimiser().name == "adamw"


# --- classifiers


@settings(max_examples=30)
@given(seeds, sizes, sizes)
def test_labels_left_out_do_not_count(seed, batch, findings):
    logits, labels = normal(seed, batch, findings), (normal(seed + 1, batch, findings) > 0).double()
    known = normal(seed + 2, batch, findings) > 0
    loss = masked_bce(logits, labels.where(known, torch.nan))
    if known.any():
        wanted = functional.binary_cross_entropy_with_logits(logits[known], labels[known])
        torch.testing.assert_close(loss, wanted)
    else:
        assert loss == 0


def test_positives_weigh_more_where_asked_for():
    torch.testing.assert_close(build("supervised", balanced=True).positive_weight, torch.tensor([1.0, 4.0, 9.0]))
    assert build("supervised").positive_weight is None


def test_published_augmentation_is_at_hand():
    (group,) = build("fine-tune", scale=None, affine=Affine()).views()
    assert group.scale is None and group.affine == Affine(rotate=45.0, scale=(0.85, 1.15), shift=0.15)


def test_lower_layers_learn_more_slowly_where_asked_for():
    groups = build("fine-tune", layer_decay=0.5).optimiser().groups
    assert sorted({group.lr_scale for group in groups}) == [0.5**power for power in range(7, -1, -1)]
    assert {group.lr_scale for group in build("fine-tune").optimiser().groups} == {1.0}


@pytest.mark.parametrize("layer_decay", [1.0, 0.999])
def test_fine_tuning_decays_neither_class_token_nor_positions(layer_decay):
    method = build("fine-tune", layer_decay=layer_decay)
    name_of = {id(p): name for name, p in method.named_parameters()}
    decayed = {name_of[id(p)] for group in method.optimiser().groups if group.weight_decay for p in group.params}
    assert "classifier.encoder.vit.blocks.0.attn.qkv.weight" in decayed
    assert not any(name.endswith(("cls_token", "pos_embed", "bias")) for name in decayed)


def test_a_cnn_is_fine_tuned_at_one_rate():
    groups = build("fine-tune", encoder="resnet18").optimiser().groups
    assert [(group.lr_scale, group.weight_decay) for group in groups] == [(1.0, True), (1.0, False)]


def test_a_classifier_knows_its_findings():
    assert build("supervised").downstream().findings == FINDINGS


# --- bad input


def balanced_without_shares():
    setting = Setting(size=224, batch_size=4, findings=FINDINGS)
    return supervised.Method(supervised.Config(balanced=True), large_encoder(), setting)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build("msn", focal_size=20), "focal size must be a multiple of the patch size 8, not 20"),
        (lambda: msn.Config(random_views=0, focal_views=0), "at least 1, not 0: MSN and PMSN"),
        (lambda: msn.Config(label_smoothing=1.0), "label_smoothing must lie in"),
        (lambda: msn.Config(ema_start=1.5), "ema_start must lie in"),
        (lambda: msn.Config(temperature=0.0), "temperature must be at least 0.0001, not 0.0"),
        (lambda: msn.Config(stretch=0.5), "stretch must be at least 1"),
        (lambda: simsiam.Method.check(simsiam.Config(), EncoderConfig(), 224, batch_size=1), "2 images or more, not 1"),
        (lambda: build("msn", mask_ratio=0.97), "leaves none of 16 patches"),
        (lambda: build("msn", prototypes=65), "65 prototypes are too many .* 16 anchors: take at most 64"),
        (lambda: build("mae", encoder="resnet18"), "take for example vit_small"),
        (lambda: build("mae", mask_ratio=0.0), "removes none of the 16 patches"),
        (lambda: mae.Config(decoder_width=100), "multiple of 32"),
        (lambda: mae.sine_cosine_positions(6, (2, 2)), "multiple of 4"),
        (lambda: simsiam.Config(lr=0.0), "lr must be above 0"),
        (lambda: fine_tune.Config(layer_decay=0.0), "layer_decay must lie in"),
        (lambda: build("fine-tune", encoder="resnet18", layer_decay=0.5), "set it to 1"),
        (
            lambda: supervised.Method(
                supervised.Config(balanced=True), large_encoder(), Setting(size=224, batch_size=4)
            ),
            "share of positives",
        ),
        (
            lambda: linear_probe.Method.check(linear_probe.Config(), EncoderConfig(), size=100, batch_size=4),
            "patches of 16 pixels: 100 is no multiple",
        ),
    ],
)
def test_nonsense_is_refused_in_one_line(make, message):
    with pytest.raises(UserError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
