"""Products on a CPU by oneDNN are torch's, and the first token alone is that of the whole."""

import pytest
import torch
from torch.nn import functional

from chexmsn.core.draws import Draws
from chexmsn.corruptions import kept_patches
from chexmsn.models import linear as of_linear
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.models.linear import Linear, linear, with_onednn

onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), requires_grad=True)


def gradients(product, x, weight, bias):
    answer = product(x, weight, bias)
    given = [part for part in (x, weight, bias) if part is not None]
    return answer, *torch.autograd.grad(answer, given, torch.ones_like(answer).cumsum(0))


@onednn
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("layout", ["whole", "strided", "transposed"])
def test_product_and_gradients_are_those_of_torch(layout, with_bias):
    x = {
        "whole": lambda: drawn(4, 64, 96),
        "strided": lambda: drawn(256, 2, 96)[:, 0],
        "transposed": lambda: drawn(96, 256).T,
    }[layout]()
    weight, bias = drawn(128, 96), drawn(128) if with_bias else None
    assert x.numel() * len(weight) >= of_linear.SMALLEST
    for ours, theirs in zip(
        gradients(linear, x, weight, bias), gradients(functional.linear, x, weight, bias), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-3)


@onednn
def test_large_float32_products_on_a_cpu_are_onednns_and_no_others():
    x, weight = drawn(256, 96), drawn(128, 96)
    names = {
        "onednn": linear(x, weight).grad_fn.name(),
        "small": linear(x[:8], weight).grad_fn.name(),
        "float64": linear(x.double(), weight.double()).grad_fn.name(),
    }
    assert [name for name, node in names.items() if "_Product" in node] == ["onednn"]


@onednn
def test_autocast_is_torchs():
    x, weight = drawn(256, 96), drawn(128, 96)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = linear(x, weight), functional.linear(x, weight)
    assert ours.dtype == torch.bfloat16 and torch.equal(ours, theirs)


@onednn
@pytest.mark.parametrize("lacks", [AttributeError, RuntimeError, None])
def test_where_the_product_is_missing_or_wrong_it_is_said_once(lacks, monkeypatch, caplog):
    def product(x, weight, bias):
        if lacks is None:
            return functional.linear(x, weight, bias) + 1
        raise lacks("not on this processor")

    assert of_linear.has_onednn()
    monkeypatch.setattr(of_linear, "_product", product)
    assert not of_linear.has_onednn()
    assert len(caplog.messages) == 1 and "its oneDNN lacks them" in caplog.text


def test_without_onednn_products_are_torchs(monkeypatch):
    monkeypatch.setattr(of_linear, "HAS_ONEDNN", False)
    x, weight = drawn(256, 96), drawn(128, 96)
    assert torch.equal(linear(x, weight), functional.linear(x, weight))


@onednn
def test_the_same_product_has_the_same_bits():
    x, weight, bias = drawn(512, 96), drawn(128, 96), drawn(128)
    first, second = (gradients(linear, x, weight, bias) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@onednn
def test_compilers_know_what_the_product_gives():
    x, weight, bias = (tensor.detach() for tensor in (drawn(2, 64, 96), drawn(128, 96), drawn(128)))
    for arguments in ((x, weight, bias), (x[0].T.contiguous().T, weight, None), (x[0], weight.T.contiguous().T, None)):
        torch.library.opcheck(torch.ops.chexmsn.product, arguments, rtol=1e-4, atol=1e-3)


def test_layers_of_others_keep_names_and_weights():
    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    assert all(isinstance(layer, Linear) for layer in with_onednn(layers)[::2])
    assert all(torch.equal(tensor, before[name]) for name, tensor in layers.state_dict().items())


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_pooled_features_alone_are_those_of_the_whole(ratio):
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name="vit_micro", patch=8, size=32)).double()
    images = torch.rand(3, 1, 32, 32, dtype=torch.float64)
    kept = kept_patches(Draws.of(0, torch.arange(3)), 16, ratio) if ratio else None
    whole, alone = encoder(images, kept), encoder.pool(images, kept)
    assert alone.tokens is None
    ours, theirs = (
        (f.pooled, f.before_norm, *torch.autograd.grad(f.pooled.square().sum(), encoder.parameters()))
        for f in (alone, whole)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["resnet18", "vit_micro"])
def test_every_encoder_can_pool(name):
    encoder = build_encoder(EncoderConfig(name=name, size=32)).eval()
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(encoder.pool(images).pooled, encoder(images).pooled)


def test_stochastic_depth_drops_the_first_token_as_it_drops_all():
    encoder = build_encoder(EncoderConfig(name="vit_micro", patch=8, size=32, drop_path=0.5)).train()
    images = torch.rand(8, 1, 32, 32)
    torch.manual_seed(1)
    whole = encoder(images).pooled
    torch.manual_seed(1)
    torch.testing.assert_close(encoder.pool(images).pooled, whole, rtol=1e-4, atol=1e-5)
