"""A step as one piece of compiled code: views, masks, networks, loss, and the way back.

Every kernel that only moves numbers is fused with its neighbours, and Python is out of the way. The code is made once
per run (a minute or two): shapes never change, names of draws are constants in it, and what changes from step to step
(learning rate, temperatures, momentum) comes in as tensors or stays outside. Rounding differs from the plain step in
the last digits, as it does between devices; stochastic depth and dropout draw other numbers.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.utils._triton import has_triton

from chexmsn.core.batch import to_images
from chexmsn.core.draws import Draws
from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Keys, Labels, Pixels
from chexmsn.methods._base import AbstractMethod, Step, Values
from chexmsn.views.plan import ViewPlan, make_views

Pass = Callable[[AbstractMethod, ViewPlan, Pixels, Labels, Keys, Values], Step]

LAUNCHES_LIMIT = 192
"""Up to this width (ViT-Ti) a GPU is done with a kernel before the next is launched: its launches are recorded once
and played back (CUDA graphs). Wider networks keep it busy, and the memory that a recording holds is theirs."""


def one_pass(
    method: AbstractMethod, plan: ViewPlan, pixels: Pixels, labels: Labels, keys: Keys, schedule: Values
) -> Step:
    """The views of a batch by a method's plan, and what the method says of them. `keys` are those of the step's draws.

    The plan is made before: its checks have no place in compiled code.
    """
    draws = Draws(keys)
    views = make_views(to_images(pixels), plan, draws.stream("views"))
    return method.step(views, labels, draws.stream("method"), schedule)


def compiled_pass(width: int, device: torch.device) -> Pass:
    """`one_pass`, compiled for networks of this width on this device when it is first called."""
    recorded = device.type == "cuda" and width <= LAUNCHES_LIMIT
    run = torch.compile(_plain_tuple, dynamic=False, mode="reduce-overhead" if recorded else None)

    def called(
        method: AbstractMethod, plan: ViewPlan, pixels: Pixels, labels: Labels, keys: Keys, schedule: Values
    ) -> Step:
        torch.compiler.cudagraph_mark_step_begin()  # what the last step gave may be written over
        return Step(*run(method, plan, pixels, labels, keys, as_tensors(schedule, device)))

    return called


def _plain_tuple(*given: Any) -> tuple[Any, ...]:
    """What `one_pass` gives, without names: torch 2.11 compiles no function that returns a NamedTuple."""
    step = one_pass(*given)
    return step.loss, step.log, step.features


def as_tensors(schedule: Mapping[str, float], device: torch.device) -> dict[str, Float64[Tensor, ""]]:
    """Numbers filled in on the device, without waiting: as constants each new one would be new code."""
    return {name: torch.full((), value, dtype=torch.float64, device=device) for name, value in schedule.items()}


def check_compiler(device: torch.device) -> None:
    """Raises UserError where this machine has nothing to compile with."""
    if device.type == "cuda":
        if not has_triton():
            raise UserError("a compiled step needs triton, which this torch lacks: leave compile out, or install it")
    elif not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise UserError("a compiled step needs a C++ compiler, and there is none: leave compile out, or install g++")
