"""Batch normalisation over the images of all processes.

torch has this for GPUs alone (`torch.nn.SyncBatchNorm` refuses tensors on a CPU). Ours is torch's own layer with one
process, bit for bit, and with several the same statistics, gradients and running averages, up to the order of
summation. Shares of the batch may differ in size. `torch.nn.SyncBatchNorm.convert_sync_batchnorm` knows these layers
for what they are, so a run on several GPUs can take torch's kernels.

Ioffe and Szegedy 2015 (arXiv 1502.03167); per-process moments are joined as in Chan, Golub and LeVeque 1983
(doi 10.1080/00031305.1983.10483115), without the cancellation of a mean of squares.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chexmsn.core.distributed import gathered, processes


class Moments(NamedTuple):
    """Mean and biased variance of every channel, and how many values they were taken from."""

    mean: Float[Tensor, "C"]
    variance: Float[Tensor, "C"]
    count: Float[Tensor, ""]


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


@torch.no_grad()
def global_moments(x: Float[Tensor, "B C ..."]) -> Moments:
    """The moments of a batch of which every process holds a part (not an empty one), in at least float32.

    >>> moments = global_moments(torch.tensor([[1.0], [3.0]]))
    >>> [value.item() for value in moments]
    [2.0, 1.0, 2.0]
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(x, _all_but_channels(x), correction=0)
    count = mean.new_full((1,), x.numel() / x.shape[1])
    parts = gathered(torch.cat([mean, variance, count]))
    means, variances, counts = parts.split([len(mean), len(mean), 1], dim=1)
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return Moments(mean, (share * (variances + (means - mean).square())).sum(0), counts.sum())


class _Normalise(torch.autograd.Function):
    """Normalisation by global moments; its gradient runs through them, on every process."""

    @staticmethod
    def forward(ctx, x, weight, bias, moments: Moments, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, moments.mean, (moments.variance + eps).rsqrt(), moments.count)
        return functional.batch_norm(x, moments.mean, moments.variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        per_channel = (-1, *(1,) * (x.ndim - 2))
        wide = gradient.to(mean.dtype)
        normalised = (x - mean.view(per_channel)) * inverse_std.view(per_channel)
        axes = _all_but_channels(x)
        local = torch.stack([wide.sum(axes), (wide * normalised).sum(axes)])
        total = local.clone()
        dist.all_reduce(total)
        shift, slope = (total / count).view(2, *per_channel)
        scale = inverse_std if weight is None else inverse_std * weight
        towards_x = scale.view(per_channel) * (wide - shift - normalised * slope)
        to_weight, to_bias = (None, None) if weight is None else (local[1].to(weight.dtype), local[0].to(weight.dtype))
        return towards_x.to(x.dtype), to_weight, to_bias, None, None


class _OverAllProcesses(nn.modules.batchnorm._BatchNorm):
    """What the layers below add to torch's: the batch is that of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        if processes() == 1 or not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        moments = global_moments(x)
        if self.track_running_stats:
            self._follow(moments)
        return _Normalise.apply(x, self.weight, self.bias, moments, self.eps)

    @torch.no_grad()
    def _follow(self, moments: Moments) -> None:
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        unbiased = moments.variance * moments.count / (moments.count - 1)
        self.running_mean.lerp_(moments.mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class BatchNorm1d(_OverAllProcesses, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over the images of all processes: `B x C` or `B x C x L`."""


class BatchNorm2d(_OverAllProcesses, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the images of all processes: `B x C x H x W`."""
