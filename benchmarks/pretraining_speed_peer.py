"""lightly's MSN on the other side of a pipe, put together from its public parts as its documentation does.

Run by benchmarks/pretraining_speed.py with the Python that has it. The first line that comes is JSON: what to build.
Each further line is a number of steps, answered with their seconds by stage, by the clock and of the processor; an
empty line, with the most memory held. Everything that documentation leaves to its reader is done well: targets pass
without gradient, focal views in one pass, the mask ratio is an option.
"""

import copy
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import timm
import torch
from lightly.data import LightlyDataset
from lightly.loss import MSNLoss
from lightly.models import utils
from lightly.models.modules.heads import MSNProjectionHead
from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM
from lightly.transforms.msn_transform import MSNTransform
from torch.utils.data import DataLoader, RandomSampler

PROTOTYPES, WIDTH, LR, DECAY, MOMENTUM = 1024, 256, 1e-3, 0.04, 0.996


class Student(torch.nn.Module):
    def __init__(self, vit: torch.nn.Module, mask_ratio: float, mask_focal: bool) -> None:
        super().__init__()
        self.backbone = MaskedVisionTransformerTIMM(vit)
        self.head = MSNProjectionHead(vit.embed_dim, 2048, WIDTH)
        self.patch = vit.patch_embed.patch_size[0]
        self.mask_ratio, self.mask_focal = mask_ratio, mask_focal

    def forward(self, images: torch.Tensor, masked: bool) -> torch.Tensor:
        kept = None
        if masked:
            tokens = (images.shape[-1] // self.patch) ** 2 + 1  # lightly counts the class token, and keeps it
            size = (len(images), tokens)
            kept, _ = utils.random_token_mask(size, mask_ratio=self.mask_ratio, device=images.device)
        return self.head(self.backbone(images, idx_keep=kept))

    def anchors(self, views: list[torch.Tensor]) -> torch.Tensor:
        focal = torch.cat(views[2:])
        return torch.cat([self(views[1], True), self(focal, self.mask_focal)])


def build(how: dict) -> tuple:
    torch.manual_seed(0)
    vit = timm.create_model(how["encoder"], num_classes=0, dynamic_img_size=True)
    student = Student(vit, how["mask_ratio"], how["mask_focal"]).train()
    target = copy.deepcopy(student)
    utils.deactivate_requires_grad(target)
    prototypes = torch.nn.Linear(WIDTH, PROTOTYPES, bias=False).weight
    optimiser = torch.optim.AdamW([*student.parameters(), prototypes], lr=LR, weight_decay=DECAY)
    return student, target, prototypes, optimiser


def batches(how: dict):
    data = LightlyDataset(how["images"], transform=MSNTransform(focal_views=how["focal_views"]))
    endless = RandomSampler(data, replacement=True, num_samples=10**7)  # or workers would begin anew with every epoch
    return iter(DataLoader(data, batch_size=how["batch_size"], sampler=endless, num_workers=how["workers"]))


def now() -> list[float]:
    return [time.perf_counter(), processor()]


def processor() -> float:
    """Seconds of this process and of the workers that read for it, which are still running."""
    own = os.getpid()
    seconds = time.process_time()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended
        if int(fields[1]) == own:
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def most_memory() -> float:
    """GiB; what `resource` tells begins with that of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def step(feed, student, target, prototypes, optimiser, loss_of) -> dict[str, list[float]]:
    times = [now()]
    views = next(feed)[0]
    times.append(now())
    utils.update_momentum(student, target, MOMENTUM)
    with torch.no_grad():
        targets = target(views[0], False)
    loss = loss_of(student.anchors(views), targets, prototypes)
    times.append(now())
    loss.backward()
    times.append(now())
    optimiser.step()
    optimiser.zero_grad()
    times.append(now())
    stages = ("read and views", "forward", "backward", "optimiser")
    return {
        stage: [late - early for early, late in zip(*pair, strict=True)]
        for stage, pair in zip(stages, pairwise(times), strict=True)
    }


def main() -> None:
    how = json.loads(sys.stdin.readline())
    torch.set_num_threads(how["threads"])
    parts, feed, loss_of = build(how), batches(how), MSNLoss()
    for line in sys.stdin:
        answer = [step(feed, *parts, loss_of) for _ in range(int(line))] if line.strip() else most_memory()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
