"""What pretraining costs from one GPU to a thousand: the tables of docs/scaling.md, computed from parts.

    python benchmarks/scaling.py                # prints the tables; --write puts them into the page
    python benchmarks/scaling.py --measure      # measures on this machine what they rest on: results/scaling.json

The setting is the published one: MSN, 1 target and 1 random view of 224 px, 10 focal views of 96 px, mask ratio 0.30 on
random and focal views, patches of 16 px. Every table says what in it is measured, computed or assumed.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from torch.utils.flop_counter import FlopCounterMode

from chexmsn.core.draws import Draws
from chexmsn.corruptions import kept_count
from chexmsn.methods import msn
from chexmsn.methods._base import Setting
from chexmsn.models.encoder import VIT_SIZES, EncoderConfig, build_encoder
from chexmsn.training.speed import machine
from chexmsn.views import make_views

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
MEASURED = Path(__file__).with_name("results") / "scaling.json"

# --- assumed, where no comment says that it was measured

EURO_PER_HOUR = 3.0  # for one H200
# images/s on an H200: ViT-S is measured (LOG.md, 2026-11-27), ViT-Ti follows from its kernels' times, ViT-B is its
# floor of docs/speed.md times what ViT-S takes beyond its own
SPEED = {"vit_tiny": 8_000, "vit_small": 3_690, "vit_base": 1_300}
SHARE = 0.4  # of the peak, for larger ones
GPUS_PER_NODE = 8
NVLINK = 450e9  # bytes/s, one way
LINKS = {
    "8 x 400 Gbit/s a node": 400e9,
    "100 Gbit/s a node": 12.5e9,
    "25 Gbit/s a node": 3.1e9,
}  # a ring leaves a node once
LATENCY = 30e-6  # seconds of one small collective per doubling of the processes
STORES = {"one NVMe drive": 6e9, "a parallel file system, per node": 2e9, "a network drive": 0.1e9}  # bytes/s
IMAGES_PER_GPU = 256
FRAME = 1.5e9  # bytes: CUDA, cuBLAS and what the allocator does not give back
MEMORY = 141e9  # of an H200

# --- measured elsewhere: an H200, dense bfloat16

PEAK = 790e12

DATA = {"NIH": 112_120, "MIMIC-CXR, frontal": 248_020, "MIMIC-CXR": 377_110, "1 million": 10**6, "100 million": 10**8}
EPOCHS = {"100 million": 10}
USUAL_EPOCHS = 100
ENCODERS = ("vit_tiny", "vit_small", "vit_base", "vit_large")
SIDE, HIDDEN, OUT, PROTOTYPES = 256, 2048, 256, 1024


class Group(NamedTuple):
    """Views that pass a network together: how many, of how many patches, of which so many are kept."""

    views: int
    patches: int
    kept: int


def groups(size: int = 224, focal: int = 96, focal_views: int = 10, ratio: float = 0.3, patch: int = 16) -> list[Group]:
    """The target, the random view and the focal views.

    >>> groups()
    [Group(views=1, patches=196, kept=196), Group(views=1, patches=196, kept=137), Group(views=10, patches=36, kept=25)]
    """
    large, small = ((side // patch) ** 2 for side in (size, focal))
    kept = [Group(1, large, kept_count(large, ratio)), Group(focal_views, small, kept_count(small, ratio))]
    return [Group(1, large, large), *kept]


def flop(name: str, of: list[Group], *, hidden: int = HIDDEN, out: int = OUT, patch: int = 16) -> float:
    """Operations per image and step: one pass of the target, three of the anchors and attention's scores once more.

    >>> round(flop("vit_tiny", groups()) / 1e9, 1), round(flop("vit_small", groups()) / 1e9, 1)
    (15.3, 57.9)
    """
    width, depth, _ = VIT_SIZES[name]
    total = 0.0
    for number, (views, patches, kept) in enumerate(of):
        tokens = kept + 1
        block = 24 * tokens * width**2 + 4 * tokens**2 * width
        last = 4 * tokens * width**2 + 20 * width**2 + 4 * tokens * width  # of the class token alone
        head = 2 * (width * hidden + hidden**2 + hidden * out)
        stem = 2 * patches * patch**2 * width
        scores = 2 * tokens * width * ((depth - 1) * tokens + 1)
        forward = (depth - 1) * block + last + head
        target = number == 0
        total += views * (forward + stem if target else 3 * forward + 2 * stem + scores)
    return total


def parameters(name: str, *, size: int = 224, patch: int = 16, hidden: int = HIDDEN, out: int = OUT) -> int:
    """Of encoder and head.

    >>> parameters("vit_small")
    26986624
    """
    width, depth, _ = VIT_SIZES[name]
    block = 12 * width**2 + 13 * width
    stem = width * (patch**2 + 1) + width * (1 + (size // patch) ** 2) + width
    head = width * hidden + hidden + hidden**2 + hidden + hidden * out + out + 4 * hidden
    return depth * block + stem + 2 * width + head


def kept_bytes(name: str, of: list[Group], element: int) -> float:
    """Of activations per image, kept for the way back: 17 numbers of a token's width in every block but the last.

    Residual stream and LayerNorm twice each, query, key and value, attention's answer, GELU's input and output (four
    widths each) are 16 (the last block keeps 4); what LayerNorm computes in float32 makes it 17 in bfloat16.
    """
    width, depth, _ = VIT_SIZES[name]
    each = 16 if element == 4 else 17
    return sum(views * (kept + 1) * width * element * ((depth - 1) * each + 4) for views, _, kept in of[1:])


def state_bytes(name: str) -> int:
    """Weights, gradients and both averages of AdamW of what is trained, and the target's weights, in float32."""
    return 4 * (5 * parameters(name) + 4 * PROTOTYPES * OUT)


# --- the tables

Rows = list[list[str]]


def speed(name: str) -> float:
    """Images per second that are assumed of one GPU."""
    return SPEED.get(name) or SHARE * PEAK / flop(name, groups())


def cost() -> Rows:
    """GPU-hours and euros of one pretraining"""
    rows = [["data", "images", "epochs", *(f"{name}: hours, €" for name in ENCODERS[:3])]]
    for name, images in DATA.items():
        epochs = EPOCHS.get(name, USUAL_EPOCHS)
        hours = [images * epochs / speed(encoder) / 3600 for encoder in ENCODERS[:3]]
        cells = [f"{_short(h)}, {_short(h * EURO_PER_HOUR)}" for h in hours]
        rows.append([name, f"{images:,}", str(epochs), *cells])
    return rows


def memory() -> Rows:
    """Memory of one GPU in GB, DDP, bfloat16"""
    rows = [
        ["encoder", "parameters, M", "state", f"activations of {IMAGES_PER_GPU} images", "largest batch beside 1.5 GB"]
    ]
    for name in ENCODERS:
        state, each = state_bytes(name), kept_bytes(name, groups(), 2)
        most = int((MEMORY - state - FRAME) / each)
        cells = [
            f"{parameters(name) / 1e6:.1f}",
            f"{state / 1e9:.2f}",
            f"{IMAGES_PER_GPU * each / 1e9:.1f}",
            f"{most:,}",
        ]
        rows.append([name, *cells])
    return rows


def step_seconds(name: str) -> float:
    return IMAGES_PER_GPU / speed(name)


def reduced(name: str, gpus: int) -> float:
    """Bytes that a GPU sends for one all-reduce of the gradients around a ring."""
    return 2 * (gpus - 1) / gpus * 4 * (parameters(name) + PROTOTYPES * OUT)


def traffic() -> Rows:
    """All-reduce of the gradients per step, milliseconds and share of a step's time, nothing of it hidden"""
    rows = [["encoder", "GPUs", "MB sent by each", "NVLink 4, one node", *LINKS, "small collectives, ms"]]
    for name in ENCODERS[1:]:
        for gpus in (8, 64, 256, 1024):
            sent, one_node = reduced(name, gpus), gpus <= GPUS_PER_NODE
            rates = {"": NVLINK if one_node else None} | {link: None if one_node else r for link, r in LINKS.items()}
            cells = ["" if r is None else _waited(sent / r, step_seconds(name)) for r in rates.values()]
            rows.append([name, f"{gpus:,}", f"{sent / 1e6:.0f}", *cells, f"{1000 * small_collectives(gpus):.1f}"])
    return rows


def _waited(seconds: float, step: float) -> str:
    return f"{1000 * seconds:.2f} ({seconds / step:.0%})"


def small_collectives(gpus: int) -> float:
    """Seconds of those whose size does not matter: statistics of two BatchNorms forward (and backward) in three passes,
    Sinkhorn's three, the mean assignment, prototypes used, the row of numbers."""
    return (2 * 3 + 2 * 2 + 3 + 1 + 1 + 1) * LATENCY * math.log2(gpus)


def reading() -> Rows:
    """Reading: what GPUs ask for, and what stores give"""
    rows = [["encoder", "images/s of a GPU", "MB/s of a GPU", *(f"GPUs fed by {store}" for store in STORES)]]
    for name in ENCODERS[:3]:
        asked = speed(name) * SIDE**2
        fed = [f"{rate / asked:.1f}" for rate in STORES.values()]
        rows.append([name, f"{speed(name):,.0f}", f"{asked / 1e6:.0f}", *fed])
    return rows


def packs() -> Rows:
    """Packs of 256 px, and where they fit"""
    rows = [["data", "GB", "in the memory of one H200 (40 % of it)", "in 1 TB of a node's memory"]]
    for name, images in DATA.items():
        size = images * SIDE**2
        fits = [("yes" if size <= limit else "no") for limit in (0.4 * MEMORY, 1e12)]
        rows.append([name, f"{size / 1e9:,.1f}", *fits])
    return rows


def saturation() -> Rows:
    """Images per second at which each part of one node of 8 GPUs is full (ViT-S)"""
    name = "vit_small"
    sent = reduced(name, 64)
    rows = [["part", "images/s", "kind"]]
    rows.append(["eight GPUs", f"{8 * speed(name):,.0f}", "eight times one, which is measured"])
    for store, rate in STORES.items():
        rows.append([f"reading from {store}", f"{rate / SIDE**2:,.0f}", "assumed rate"])
    read = 26_400
    rows.append(["one reading thread, from the system's cache", f"{read:,}", "measured on a CPU (docs/speed.md)"])
    for link, rate in LINKS.items():
        rows.append([f"gradients over {link}", f"{8 * IMAGES_PER_GPU * rate / sent:,.0f}", "computed"])
    return rows


def checks() -> Rows:
    """What was measured for this page"""
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    small, gloo = found["small"], found["two_processes"]
    rows = [["what", "computed", "measured"]]
    rows.append(["operations per image, ViT-Ti", _giga(flop("vit_tiny", groups())), _giga(small["flop_per_image"])])
    rows.append(["parameters of ViT-Ti with its head", f"{parameters('vit_tiny'):,}", f"{small['parameters']:,}"])
    kept = small["images"] * kept_bytes("vit_tiny", groups(), 4)
    grown = kept + 4 * (parameters("vit_tiny") + PROTOTYPES * OUT)
    of = f"ViT-Ti, {small['images']} images, float32"
    rows.append([f"MB kept for the way back, {of}", _mega(kept), _mega(small["kept_bytes"])])
    rows.append(
        ["MB by which the process grows in that step, gradients too", _mega(grown), _mega(small["growth_bytes"])]
    )
    for name, row in gloo.items():
        told = f"{1000 * row['seconds']:.0f} ms, {row['bytes'] / row['seconds'] / 1e6:.0f} MB/s"
        rows.append([f"all-reduce of {name}'s gradients, two processes on one machine, gloo", "", told])
    return rows


def _giga(value: float) -> str:
    return f"{value / 1e9:.2f} G"


def _mega(value: float) -> str:
    return f"{value / 1e6:,.0f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


TABLES: dict[str, Callable[[], Rows]] = {
    table.__name__: table for table in (checks, cost, memory, traffic, reading, packs, saturation)
}


def markdown(rows: Rows) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(page: str) -> str:
    """The page with its tables computed anew; each stands between two comments that name it."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, rest = page.split(start)
        page = before + start + markdown(table()) + end + rest.split(end)[1]
    return page


# --- measuring


def small_case(images: int = 16) -> dict[str, Any]:
    """The first step of MSN with ViT-Ti here: operations, parameters, bytes kept, growth of the process."""
    torch.manual_seed(0)
    config = msn.Config(mask_ratio=0.3, mask_focal=True, prototypes=min(PROTOTYPES, 44 * images))
    encoder = build_encoder(EncoderConfig(name="vit_tiny"))
    method = msn.Method(config, encoder, Setting(size=224, batch_size=images))
    draws = Draws.of(0, torch.arange(images))
    views = make_views(torch.rand(images, 1, SIDE, SIDE), method.plan, draws)
    schedule = {name: of.at(0, 100, 10) for name, of in method.schedules().items()}
    kept = Kept(method)
    before = _held("VmRSS")
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
            loss = method.step(views, None, draws, schedule).loss
        loss.backward()
    return {
        "images": images,
        "flop_per_image": counter.get_total_flops() / images,
        "parameters": sum(p.numel() for p in method.online.parameters()),
        "kept_bytes": kept.bytes,
        "growth_bytes": _held("VmHWM") - before,
    }


class Kept:
    """Counts what a step keeps for the way back, each piece of memory once, weights not at all."""

    def __init__(self, method: torch.nn.Module) -> None:
        self.pieces = {p.untyped_storage().data_ptr(): 0 for p in method.parameters()}

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self.pieces.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.pieces.values())


def _held(what: str) -> int:
    """Bytes of memory that this process holds (VmRSS) or held at most (VmHWM); Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


def two_processes() -> dict[str, Any]:
    """The gradients of an encoder, averaged between two processes over the loopback device."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_reduce, (folder,), nprocs=2)
        return json.loads((Path(folder) / "told.json").read_text())


def _reduce(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(Path(folder) / "store").as_uri(), rank=rank, world_size=2)
    told = {}
    for name in ENCODERS[:2]:
        gradients = torch.ones(parameters(name) + PROTOTYPES * OUT)
        taken = list(_timed(lambda gradients=gradients: dist.all_reduce(gradients), 5))
        told[name] = {"bytes": 4 * gradients.numel(), "seconds": min(taken)}
    if rank == 0:
        (Path(folder) / "told.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def _timed(work: Callable[[], object], repeats: int) -> Iterator[float]:
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        yield time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.measure:
        about = {"machine": machine(torch.device("cpu")), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        found = about | {"small": small_case(), "two_processes": two_processes()}
        MEASURED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if asked.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for table in TABLES.values():
        print(f"\n{table.__doc__}\n\n{markdown(table())}")


if __name__ == "__main__":
    main()
