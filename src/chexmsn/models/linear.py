"""Linear layers whose float32 products on a CPU are oneDNN's.

torch asks MKL for them, which leaves half of the vector units of AMD's processors idle: one core of an EPYC (Zen 5)
does 100 to 105 GFLOP/s so, and 150 to 230 with oneDNN, which asks what a processor can do and not who made it
(LOG.md, 2026-11-27). It is the same product in the same precision, summed in another order. Everything else is torch's
own: half precision, float64, GPUs, products too small to be worth the call, and what is exported, whose readers do
not know oneDNN.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

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
    return x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and torch.backends.mkldnn.is_available()


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


@torch.library.custom_op(
    "chexmsn::product", mutates_args=()
)  # opaque to compilers, which would look for packed weights
def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], len(weight)))
