"""What every encoder promises. All names are walked on the meta device; the small ones also compute."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import ENCODERS, EncoderConfig, build_encoder
from chexmsn.models.heads import SimSiamProjector
from chexmsn.models.vit import interpolate_positions

TRANSFORMERS = [name for name in ENCODERS if name.startswith("vit")]
CNNS = [name for name in ENCODERS if name not in TRANSFORMERS]
LIGHT = ["vit_micro", "vit_tiny", "resnet18"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(batch, height, width=None, dtype=torch.float32):
    return torch.rand(batch, 1, height, width or height, generator=seeded(), dtype=dtype)


def encoder_of(name, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build_encoder(EncoderConfig(name=name, **{"patch": 16, "size": 64} | options))


def on_meta(name, **options):
    with torch.device("meta"):
        return build_encoder(EncoderConfig(name=name, **options))


@pytest.fixture(scope="module")
def micro():
    """A transformer in float64 with a grid of 4 x 4 patches."""
    return encoder_of("vit_micro").double().eval()


# --- every encoder


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ENCODERS)
def test_features_have_the_promised_shapes(name, channels):
    encoder = on_meta(name, channels=channels)
    for height, width in [(224, 224), (96, 96), (64, 160)]:
        pooled, tokens, before_norm = encoder(torch.empty(2, 1, height, width, device="meta"))
        rows, columns = encoder.grid(height, width)
        assert pooled.shape == before_norm.shape == (2, encoder.width)
        assert (rows, columns) == (height // 16, width // 16)
        if encoder.kind == "transformer":
            assert tokens.shape == (2, rows * columns, encoder.width)
        else:
            assert tokens is None


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Three channels, no head. ViT-S: facebookresearch/msn; the others: the published sizes without classifier.
    [
        ("vit_tiny", 5_524_416),
        ("vit_small", 21_665_664),
        ("vit_base", 85_798_656),
        ("vit_large", 303_301_632),
        ("resnet18", 11_176_512),
        ("resnet50", 23_508_032),
    ],
)
def test_parameters_are_those_of_the_published_size(name, parameters):
    assert sum(p.numel() for p in on_meta(name, channels=3).parameters()) == parameters


@pytest.mark.parametrize(("name", "channels"), [*((name, 1) for name in LIGHT), ("resnet50", 3)])
def test_every_parameter_receives_gradient(name, channels):
    encoder = encoder_of(name, channels=channels)
    for layer in encoder.modules():  # a ResNet's branches start at 0 and pass no gradient back at first
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    pooled = encoder(random_images(4, 64)).pooled
    (pooled * torch.randn(pooled.shape, generator=seeded())).sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


@pytest.mark.parametrize("name", LIGHT)
def test_other_sizes_work_and_each_image_stands_alone(name):
    encoder = encoder_of(name).eval()
    for height, width in [(64, 64), (96, 96), (32, 80)]:
        images = random_images(3, height, width)
        together = encoder(images).pooled
        alone = torch.cat([encoder(image[None]).pooled for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        assert together.isfinite().all()
        assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", LIGHT)
def test_three_channels_see_the_same_radiograph(name):
    grey, colour = encoder_of(name).eval(), encoder_of(name, channels=3).eval()
    weights = colour.state_dict()
    stem = next(key for key, value in grey.state_dict().items() if value.ndim == 4)
    assert weights[stem].shape[1] == 3
    grey.load_state_dict(weights | {stem: weights[stem].sum(1, keepdim=True)})
    images = random_images(2, 64)
    torch.testing.assert_close(grey(images).pooled, colour(images).pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LIGHT)
def test_the_first_layer_normalises(name):
    config = {"mean": 0.4, "std": 0.2}
    plain, scaled = encoder_of(name, mean=0.0, std=1.0).eval(), encoder_of(name, **config).eval()
    images = random_images(2, 64)
    torch.testing.assert_close(scaled(images).pooled, plain((images - 0.4) / 0.2).pooled)


@pytest.mark.parametrize("name", LIGHT)
def test_weights_follow_the_seed(name):
    for a, b in zip(encoder_of(name).parameters(), encoder_of(name).parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["vit_micro", "resnet18"])
def test_stochastic_depth_acts_in_training_alone(name):
    encoder = encoder_of(name, drop_path=0.5)
    if name == "resnet18":
        for layer in encoder.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.ones_(layer.weight)
    images = random_images(2, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.allclose(encoder(images).pooled, encoder(images).pooled)
    encoder.eval()
    assert torch.equal(encoder(images).pooled, encoder(images).pooled)


@pytest.mark.parametrize("name", LIGHT)
def test_resizing_keeps_what_the_encoder_says(name):
    encoder, resized = encoder_of(name).eval(), encoder_of(name).eval()
    resized.resize(96)
    assert resized.config == replace(encoder.config, size=96)
    images = random_images(2, 96)
    assert torch.equal(encoder(images).pooled, resized(images).pooled)
    with pytest.raises(UserError, match="multiple of the patch size 16, not 100"):
        resized.resize(100)


# --- transformers


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_kept_patches_alone_are_encoded(name):
    encoder = on_meta(name)
    kept = torch.empty(2, 5, dtype=torch.int64, device="meta")
    pooled, tokens, _ = encoder(torch.empty(2, 1, 96, 96, device="meta"), kept)
    assert pooled.shape == (2, encoder.width)
    assert tokens.shape == (2, 5, encoder.width)
    assert encoder.width // encoder.vit.blocks[0].attn.num_heads == 64


def test_all_patches_kept_is_the_whole_image(micro):
    images = random_images(2, 64, dtype=torch.float64)
    whole = micro(images)
    kept = micro(images, torch.arange(16).expand(2, -1).contiguous())
    assert torch.equal(whole.pooled, kept.pooled)
    assert torch.equal(whole.tokens, kept.tokens)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 16))
def test_the_order_of_kept_patches_does_not_matter(micro, seed, count):
    images = random_images(2, 64, dtype=torch.float64)
    draws = Draws.of(seed, keys_of(["a", "b"]))
    kept = draws.permutation(16)[:, :count]
    order = draws.stream("order").permutation(count)
    features, shuffled = micro(images, kept), micro(images, kept.gather(1, order))
    torch.testing.assert_close(features.pooled, shuffled.pooled, rtol=1e-9, atol=1e-11)
    moved = features.tokens.gather(1, order.unsqueeze(-1).expand_as(features.tokens))
    torch.testing.assert_close(moved, shuffled.tokens, rtol=1e-9, atol=1e-11)


def test_what_is_removed_is_not_seen(micro):
    images = random_images(2, 64, dtype=torch.float64)
    kept = torch.tensor([[0, 1, 2, 15], [4, 8, 12, 3]])
    repainted = images.clone()
    repainted[0, :, 16:48] = 1.0  # patches 4 to 11
    repainted[1, :, 48:, 16:] = 0.0  # patches 13 to 15
    assert torch.equal(micro(images, kept).pooled, micro(repainted, kept).pooled)
    assert not torch.allclose(micro(images).pooled, micro(repainted).pooled)


def test_positions_are_those_of_the_kept_patches(micro):
    """The same pixels at another place are something else, even when they are all there is."""
    images = random_images(1, 16, dtype=torch.float64).tile(1, 1, 4, 4)
    first, last = (micro(images, torch.tensor([[patch]])).pooled for patch in (0, 15))
    assert not torch.allclose(first, last)


def test_an_image_without_patches_still_has_a_class_token(micro):
    features = micro(random_images(2, 64, dtype=torch.float64), torch.empty(2, 0, dtype=torch.int64))
    assert features.pooled.isfinite().all()
    assert features.tokens.shape == (2, 0, 128)


@given(side=st.integers(1, 20), rows=st.integers(1, 50), columns=st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_positions_fit_every_grid(side, rows, columns):
    level = torch.linspace(-1, 1, 3).expand(1, 1 + side**2, 3)
    resized = interpolate_positions(level, (rows, columns))
    torch.testing.assert_close(resized, torch.linspace(-1, 1, 3).expand(1, 1 + rows * columns, 3))


def test_positions_keep_rows_and_columns_apart():
    """A gradient along the columns of the square grid stays one along the columns of a wide grid."""
    along_columns = torch.arange(8.0).expand(8, 8).reshape(1, 64, 1)
    positions = torch.cat([torch.full((1, 1, 1), 7.0), along_columns], dim=1)
    resized = interpolate_positions(positions, (3, 16))
    grid = resized[0, 1:, 0].reshape(3, 16)
    assert resized[0, 0, 0] == 7.0
    torch.testing.assert_close(grid, grid[:1].expand(3, 16))
    assert (grid[0].diff() > 0).all()


def test_weights_start_as_msn_starts_them():
    vit = encoder_of("vit_tiny").vit
    for weight in (vit.blocks[3].mlp.fc1.weight, vit.blocks[0].attn.qkv.weight, vit.pos_embed, vit.cls_token):
        assert weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert vit.patch_embed.proj.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)
    biases = [p for name, p in vit.named_parameters() if name.endswith("bias")]
    assert biases and not any(bias.any() for bias in biases)


# --- classifier and heads


@pytest.mark.parametrize("name", ["vit_micro", "resnet18"])
def test_classifier_gives_one_probability_per_finding(name):
    classifier = Classifier(encoder_of(name), ["Edema", "Fracture", "Pneumothorax"]).eval()
    images = random_images(2, 64)
    logits, probabilities = classifier(images), classifier.probabilities(images)
    assert logits.shape == (2, 3)
    torch.testing.assert_close(probabilities, logits.sigmoid())
    assert classifier.size == 64
    assert classifier.findings == ("Edema", "Fracture", "Pneumothorax")


def test_classifier_hands_the_kept_patches_on():
    classifier = Classifier(encoder_of("vit_micro"), ["Edema"]).eval()
    images, kept = random_images(2, 64), torch.tensor([[1, 2], [5, 9]])
    expected = classifier.head(classifier.encoder(images, kept).pooled)
    assert torch.equal(classifier(images, kept), expected)
    assert torch.equal(classifier.probabilities(images, kept), expected.sigmoid())


def test_the_bias_that_cancels_is_frozen():
    frozen = [name for name, p in SimSiamProjector(8, 16).named_parameters() if not p.requires_grad]
    assert frozen == ["6.bias"]


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_smal"}, "no encoder called 'vit_smal'.*vit_small.*resnet50"),
        ({"size": 100}, "multiple of the patch size 16, not 100: choose 96 or 112"),
        ({"size": 0}, "multiple of the patch size 16, not 0: choose 16"),
        ({"patch": 0}, "patch must be at least 1, not 0"),
        ({"channels": 2}, "1 or 3 channels, not 2"),
        ({"std": 0.0}, "above 0, not 0.0"),
        ({"std": math.nan}, "above 0, not nan"),
        ({"drop_path": 1.0}, r"\[0, 1\), not 1.0"),
        ({"drop_path": -0.1}, r"\[0, 1\), not -0.1"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        EncoderConfig(**options)


def test_images_must_be_made_of_whole_patches(micro):
    with pytest.raises(UserError, match="side of an image must be a positive multiple of the patch size 16, not 70"):
        micro(random_images(1, 64, 70, dtype=torch.float64))


@pytest.mark.parametrize("name", CNNS)
def test_a_cnn_refuses_to_lose_patches(name):
    with pytest.raises(UserError, match=f"cannot be removed from {name}.*fill the patches"):
        on_meta(name)(torch.empty(1, 1, 64, 64, device="meta"), torch.zeros(1, 3, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("findings", [[], ["Edema", "Edema"]])
def test_findings_are_named_once(findings):
    with pytest.raises(UserError, match="one or more different findings"):
        Classifier(on_meta("vit_micro"), findings)
