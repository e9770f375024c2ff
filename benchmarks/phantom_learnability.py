"""Which findings can a classifier learn from the phantom? AUROC per finding of a small CNN trained from scratch on it.

    python benchmarks/phantom_learnability.py --patients 1300 --size 96 --epochs 14 --out learnability.json

About ten minutes on one core at these settings. A label of 1 counts as positive, 0 and blank as negative, -1 is left
out; validation patients are not used. The printed table and the JSON file hold AUROC and positives per finding.
"""

import argparse
import json
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import timm
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from chexmsn.core.draws import Draws, keys_of
from chexmsn.data.phantom.people import FINDINGS
from chexmsn.data.sources import phantom


def draw(patients: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, float]:
    """All images (uint8), raw labels, splits and the milliseconds an image took."""
    with tempfile.TemporaryDirectory() as folder:
        phantom.fake(Path(folder), patients=patients, seed=seed, size=size)
        table = phantom.read(Path(folder), phantom.Config())
    start = time.process_time()
    images = np.stack(
        [phantom.load(record, phantom.Config(), 0).pixels for record in table[["path"]].to_dict("records")]
    )
    per_image = 1000 * (time.process_time() - start) / len(images)
    labels = table[[f"label:{finding}" for finding in FINDINGS]].to_numpy(np.float32, copy=True)
    return torch.from_numpy(images), torch.from_numpy(labels), table["split"].to_numpy(), per_image


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int, batch: int, seed: int) -> nn.Module:
    """A ResNet-10 with 14 outputs, one-cycle schedule, random shifts and flips."""
    torch.manual_seed(seed)
    net = timm.create_model("resnet10t", pretrained=False, in_chans=1, num_classes=len(FINDINGS))
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    known, target = (labels != -1).float(), (labels == 1).float()
    for epoch in range(epochs):
        order = Draws.of(seed, keys_of([f"epoch {epoch}"])).permutation(len(images))[0]
        for rows in order[: len(order) // batch * batch].view(-1, batch):
            loss = nn.functional.binary_cross_entropy_with_logits(net(augment(images[rows])), target[rows], known[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}", flush=True)
    return net.eval()


def augment(images: torch.Tensor) -> torch.Tensor:
    shift = torch.randint(-6, 7, (2,)).tolist()
    moved = torch.roll(images, shift, dims=(1, 2))
    return normal(moved.flip(2) if torch.rand(()) < 0.5 else moved)


def normal(images: torch.Tensor) -> torch.Tensor:
    return (images[:, None].float() / 255 - 0.45) / 0.28


def score(net: nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([net(normal(part)) for part in images.split(128)]).numpy()


def table_of(scores: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    rows = {}
    for number, finding in enumerate(FINDINGS):
        known = labels[:, number] != -1
        positive = labels[known, number] == 1
        auroc = float(roc_auc_score(positive, scores[known, number]))
        rows[finding] = {"auroc": round(auroc, 3), "positives": int(positive.sum()), "images": int(known.sum())}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=1300)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    start = time.time()
    images, labels, split, per_image = draw(given.patients, given.size, given.seed)
    print(f"{len(images)} images of {given.size} px, {per_image:.1f} ms of processor time each", flush=True)
    learn, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    net = train(images[learn], labels[learn], given.epochs, given.batch, given.seed)
    rows = table_of(score(net, images[test]), labels[test].numpy())
    for finding, row in rows.items():
        print(f"{finding:28s} AUROC {row['auroc']:.3f}   {row['positives']:4d} of {row['images']} images")
    if given.out:
        about = {"date": str(date.today()), "machine": platform.machine(), "seconds": round(time.time() - start)}
        options = {name: value for name, value in vars(given).items() if name != "out"}
        given.out.write_text(
            json.dumps({**about, "options": options, "train_images": len(learn), "findings": rows}, indent=2)
        )


if __name__ == "__main__":
    main()
