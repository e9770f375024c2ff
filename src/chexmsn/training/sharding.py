"""A network divided over processes, for encoders too large for one device: FSDP2.

Zhao et al. 2023 (arXiv 2304.11277) in torch's second form (`torch.distributed.fsdp.fully_shard`): of every parameter,
its gradient and its optimiser state each process holds an equal part; the parameters of a block are gathered while it
computes. The steps are those of one process, like those of data-parallel training. A target network is divided like
the online one, so that its average is taken part by part.
"""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from chexmsn.methods._base import AbstractMethod
from chexmsn.models.encoder import Encoder, build_encoder

ENTRANCES = ("step", "validation_step", "pool", "first_token")  # besides `forward`: what gathers a module's parameters


def shard(method: AbstractMethod, mesh: DeviceMesh) -> None:
    """Divide a method's parameters over the processes of a mesh, once; the optimiser is built afterwards.

    Blocks of transformers and encoders are gathered one by one, and what is left (heads, prototypes) with the method.
    """
    if isinstance(method, FSDPModule):
        return
    for kind in (Block, Encoder):
        for module in [module for module in method.modules() if isinstance(module, kind)]:
            fully_shard(module, mesh=mesh)
    fully_shard(method, mesh=mesh, reshard_after_forward=True)
    for module in method.modules():
        for name in ENTRANCES:
            if hasattr(module, name):
                register_fsdp_forward_method(module, name)


def part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, unless it is divided."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(encoder: Encoder) -> Encoder:
    """The encoder itself, or a copy on the CPU that is not divided. All processes must ask for it together."""
    if not isinstance(encoder, FSDPModule):
        return encoder
    with torch.device("meta"):
        copy = build_encoder(encoder.config)
    copy.load_state_dict({name: full(tensor).cpu() for name, tensor in encoder.state_dict().items()}, assign=True)
    return copy


def full(tensor: Tensor) -> Tensor:
    """The tensor, put together from its parts where it is divided. All processes must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
