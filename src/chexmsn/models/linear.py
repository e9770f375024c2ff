"""Linear layers whose float32 products on a CPU are oneDNN's.

torch asks MKL for them, which leaves half of the vector units of AMD's processors idle: one core of an EPYC (Zen 5)
does 100 to 105 GFLOP/s so, and 150 to 230 with oneDNN, which asks what a processor can do and not who made it
(LOG.md, 2026-11-27). It is the same product in the same precision, summed in another order. Everything else is torch's
own: half precision (autocast's too), float64, GPUs, products too small to be worth the call, and what is exported,
whose readers do not know oneDNN. The call is private to torch, so it is tried once, and torch's own is taken where it
is missing or wrong. It is differentiated once, and not by `torch.func`.
"""

import logging

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

log = logging.getLogger(__name__)

_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 knows the latter alone
SMALLEST = 2**20  # multiplications; below, calling costs more than is won


class Linear(nn.Linear):
    """`torch.nn.Linear`, up to the order of summation."""

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "... I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None = None
) -> Float[Tensor, "... O"]:
    """`torch.nn.functional.linear`, up to the order of summation."""
    return _Product.apply(x, weight, bias) if _is_for_onednn(x, weight) else functional.linear(x, weight, bias)


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    if _is_exporting() or torch.jit.is_tracing() or x.numel() * len(weight) < SMALLEST:
        return False
    if not (HAS_ONEDNN and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"):
        return False
    return not torch.is_autocast_enabled("cpu")


def with_onednn(module: nn.Module) -> nn.Module:
    """Have every linear layer inside a module of another library be one of ours; names and weights stay."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear
    return module


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous()  # oneDNN's kernels know rows or columns without gaps, and are a thousand times slower else
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        return (
            _product(gradient, weight.T, None) if to_x else None,
            _product(rows.T, inputs.T, None) if to_weight else None,
            rows.sum(0) if to_bias else None,
        )


# opaque to compilers, which would look for packed weights
@torch.library.custom_op("chexmsn::product", mutates_args=())
def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], len(weight)))


def has_onednn() -> bool:
    """Whether this torch and processor have the product, and it is right; told in one line where it is not."""
    if not torch.backends.mkldnn.is_available():
        return False
    a, b = torch.linspace(-1, 1, 128, device="cpu").view(2, 8, 8)
    try:
        right = torch.allclose(_product(a, b, None), functional.linear(a, b), atol=1e-5)
    except (AttributeError, RuntimeError):  # no such operation, or none that this processor can do
        right = False
    if not right:
        log.warning("products on this CPU are torch's own, slower on some processors: its oneDNN lacks them")
    return right


HAS_ONEDNN = has_onednn()
