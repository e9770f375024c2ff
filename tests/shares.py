"""What a process computes on its share of a global batch; with one process, on all of it."""

import warnings

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.lookup import load
from chexmsn.methods import msn
from chexmsn.methods._base import AbstractMethod, Setting
from chexmsn.models.batch_norm import BatchNorm1d, BatchNorm2d
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.training.loop import PretrainingLoop
from chexmsn.training.optimiser import build_optimiser
from chexmsn.training.sharding import full, shard
from chexmsn.views import make_views
from steps import some_batch, take_step
from test_methods import FINDINGS, config_of

KEYS = keys_of("abcdef")


class Loss(nn.Module):
    """A method as data-parallel training sees it: batch in, loss out."""

    def __init__(self, method: AbstractMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, *batch) -> torch.Tensor:
        return self.method.step(*batch).loss


def build(name: str, encoder: str, options: dict) -> AbstractMethod:
    """A method in float64, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_encoder(EncoderConfig(name=encoder, patch=8, size=32))
        setting = Setting(size=32, batch_size=len(KEYS), findings=FINDINGS, positives=(0.5, 0.2, 0.1))
        return load("chexmsn.methods", name).Method(config_of(name, **options), network, setting).double()


def share_of(method: AbstractMethod, step: int, rank: int, processes: int) -> tuple:
    """Views, labels and draws of a process's images. Known labels are spread unevenly over images."""
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(len(KEYS), 1, 40, 40, generator=generator)
    labels = torch.rand(len(KEYS), len(FINDINGS), generator=generator).round()
    labels[::2, :2] = float("nan")
    labels[2] = float("nan")
    mine = slice(rank, None, processes)
    draws = Draws.of(0, KEYS[mine]).stream("epoch", step)
    views = make_views(images[mine], method.views(), draws.stream("views"))
    return [view.double() for view in views], labels[mine], draws.stream("method")


def train(
    rank: int, processes: int, name: str, encoder: str = "vit_micro", options: dict | None = None, steps: int = 2
) -> dict:
    """Some steps of a method, of which every process has the whole: see `take_steps`."""
    method = build(name, encoder, options or {})
    module = Loss(method)
    if processes > 1:
        module = DistributedDataParallel(module)
    return take_steps(method, module, rank, processes, steps)


def train_divided(rank: int, processes: int, name: str, options: dict | None = None) -> dict:
    """Some steps of a method, of which every process has a part: see `take_steps`."""
    method = build(name, "vit_micro", options or {})
    shard(method, init_device_mesh("cpu", (processes,)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*returned a view tensor.*")  # as in training/engine.py
        return take_steps(method, Loss(method), rank, processes, steps=2)


def validate(rank: int, processes: int, name: str) -> torch.Tensor:
    """The validation loss of a batch that every process has the whole of, as the loop computes it."""
    loop = PretrainingLoop(build(name, "vit_micro", {}).float(), seed=0, steps_per_epoch=5, epochs=2, identity={})
    logged = []
    loop.log = lambda _, value, **how: logged.append(value)
    with torch.no_grad():
        loop.eval().validation_step(some_batch(len(KEYS)), 0)
    return logged[0]


def take_steps(method: AbstractMethod, module: Loss, rank: int, processes: int, steps: int) -> dict:
    """Every loss, the gradients of the first step with their norm, all weights and buffers in the end."""
    optimiser = build_optimiser(method.optimiser())
    losses, gradients, norms = [], [], []

    def look() -> None:
        gradients.append({name: full(p.grad).clone() for name, p in method.named_parameters() if p.grad is not None})

    for step in range(steps):
        schedule = {name: s.at(step + 1, 10, 5) for name, s in method.schedules().items()}
        loss = module(*share_of(method, step, rank, processes), schedule)
        norms.append(take_step(method, optimiser, schedule, loss, look))
        losses.append(loss.detach())
    state = {name: full(tensor) for name, tensor in method.state_dict().items()}
    return {"losses": torch.stack(losses), "norms": torch.stack(norms), "gradients": gradients[0], "state": state}


def msn_loss(rank: int, processes: int) -> tuple:
    """MSN's targets, loss and prototype gradient for a part of given features."""
    generator = torch.Generator().manual_seed(0)
    targets, anchors, prototypes = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (8, 8, 10))
    mine = slice(rank * 8 // processes, (rank + 1) * 8 // processes)
    prototypes.requires_grad_()
    logs = msn.log_assignments(anchors[mine], prototypes, 0.1)
    wanted = msn.target_assignments(targets[mine], prototypes)
    loss = msn.cross_entropy(logs, wanted) + msn.divergence_from_uniform(msn.mean_assignment(logs.exp()))
    loss.backward()
    return wanted, loss.detach(), prototypes.grad


def batch_norm(rank: int, processes: int, options: dict, cuts: list[int], shape: tuple[int, ...]) -> dict:
    """Two passes of a batch through a layer, of which this process has the rows between two cuts.

    Returns output, input's gradient, weights' gradients and buffers.
    """
    generator = torch.Generator().manual_seed(0)
    layer = (BatchNorm1d if len(shape) < 4 else BatchNorm2d)(shape[1], **options).double()
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 100
    wanted = torch.randn(shape, generator=generator, dtype=torch.float64)
    mine = slice(cuts[rank], cuts[rank + 1]) if processes > 1 else slice(None)
    x = x[mine].requires_grad_()
    (layer(x) * wanted[mine]).sum().backward()
    output = layer(x.detach())
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    return {"output": output.detach(), "x": x.grad, "gradients": gradients, "buffers": dict(layer.named_buffers())}
