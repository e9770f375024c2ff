"""Two classifiers that CheXMSN has no part in, for its stress test: a network of timm and a table of scikit-learn.

    python benchmarks/foreign_models.py network ../shared/data/nih14 runs/foreign/resnet10t
    python benchmarks/foreign_models.py table ../shared/data/nih14 runs/foreign/pixels.csv

The network (ResNet-10t, one channel, 112 px, no weights of anybody) learns from folds 0 to 2 in a plain loop of torch,
its epoch is chosen on fold 3, and timm saves it as for its hub. The table holds the probabilities of a logistic
regression on 32 x 32 pixels, of folds 3 (clean) and 4: clean, under Gaussian noise and blur at the levels of ImageNet-C
made here by NumPy and SciPy, and under a vignette, which is a condition of its own. About ten minutes on one core.
Then, with a pack of `nih14` as recipes/real-cpu.yaml prepares it:

    chexmsn stress runs/foreign/resnet10t packs/nih14 --adapter timm --options.answers logits --out runs/foreign/network
    chexmsn scores runs/foreign/pixels.csv packs/nih14 --image image_key --name pixels --out runs/foreign/table
    chexmsn compare runs/foreign/network runs/foreign/table --conditions gaussian-noise gaussian-blur \
        --out runs/foreign/comparison
    chexmsn report runs/foreign/network runs/foreign/table runs/foreign/comparison --out runs/foreign/report

Nothing of `chexmsn` is imported: what is shown is that the test needs none of it.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.models import save_for_hf
from torch import nn

FINDINGS = [
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
]
STORED, SEEN = 128, 112  # px: 7/8 of the side are seen, timm's crop_pct
NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)
VIGNETTE = (0.2, 0.4, 0.6, 0.8, 1.0)


def read(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of labels, and all images as N x 128 x 128 in [0, 1]."""
    table = pd.read_csv(folder / "labels.csv")
    images = [
        Image.open(folder / name).convert("L").resize((STORED, STORED), Image.Resampling.BOX) for name in table["image"]
    ]
    return table, np.stack([np.asarray(image, np.float32) for image in images]) / 255


def central(images: np.ndarray) -> np.ndarray:
    """The part that a classifier sees."""
    edge = (STORED - SEEN) // 2
    return images[..., edge : edge + SEEN, edge : edge + SEEN]


def macro_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Over the findings with both classes."""
    both = (labels.min(axis=0) == 0) & (labels.max(axis=0) == 1)
    return float(roc_auc_score(labels[:, both], scores[:, both], average="macro"))


# --- the network


def train(table: pd.DataFrame, images: np.ndarray, out: Path, epochs: int, batch: int = 32) -> None:
    """ResNet-10t from drawn weights; the epoch with the best macro AUROC of fold 3 is saved."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    mean, std = float(images.mean()), float(images.std())
    labels = table[FINDINGS].to_numpy(np.float32)
    learn, judge = (np.flatnonzero(table["fold"].isin(folds)) for folds in ([0, 1, 2], [3]))
    network = timm.create_model("resnet10t", pretrained=False, in_chans=1, num_classes=len(FINDINGS))
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(learn) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    best, kept = 0.0, copy.deepcopy(network.state_dict())
    for epoch in range(epochs):
        network.train()
        order = draw.permutation(learn)
        for rows in order[: len(order) // batch * batch].reshape(-1, batch):
            views = torch.from_numpy((moved(images[rows], draw) - mean) / std)[:, None]
            loss = nn.functional.binary_cross_entropy_with_logits(network(views), torch.from_numpy(labels[rows]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        reached = macro_auroc(answers(network, (central(images[judge]) - mean) / std), labels[judge])
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}, macro AUROC of fold 3 {reached:.3f}", flush=True)
        if reached > best:
            best, kept = reached, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    seen = {"input_size": (1, SEEN, SEEN), "crop_pct": SEEN / STORED, "mean": (mean,), "std": (std,)}
    save_for_hf(network, out, {"label_names": FINDINGS}, safe_serialization=True, data_config=seen)


def moved(images: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Each image at a random place within its border, half of them mirrored."""
    room = STORED - SEEN
    places = draw.integers(0, room + 1, (len(images), 2))
    cut = [image[y : y + SEEN, x : x + SEEN] for image, (y, x) in zip(images, places, strict=True)]
    return np.stack([one[:, ::-1] if draw.random() < 0.5 else one for one in cut])


@torch.inference_mode()
def answers(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits."""
    network.eval()
    return torch.cat([network(part[:, None]) for part in torch.from_numpy(images).split(64)]).numpy()


# --- the table


def tabulate(table: pd.DataFrame, images: np.ndarray, out: Path) -> None:
    """A logistic regression per finding on 32 x 32 pixels, and its probabilities under this file's own conditions."""
    labels, seen = table[FINDINGS].to_numpy(), central(images)
    learn, held_out, test = (np.flatnonzero(table["fold"].isin(folds)) for folds in ([0, 1, 2], [3], [4]))
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, max_iter=500)).fit(small(seen[learn]), column)
        for column in labels[learn].T
    ]
    shown = [(held_out, "clean", 0.0, seen[held_out]), (test, "clean", 0.0, seen[test])]
    shown += [(test, "gaussian-noise", k, noisy(seen[test], s)) for k, s in enumerate(NOISE, 1)]
    shown += [(test, "gaussian-blur", k, gaussian_filter(seen[test], (0, s, s), mode="nearest"))
              for k, s in enumerate(BLUR, 1)]  # fmt: skip
    shown += [(test, "vignette", k, seen[test] * shade(s)) for k, s in enumerate(VIGNETTE, 1)]
    parts = []
    for rows, condition, severity, pixels in shown:
        scores = np.stack([model.predict_proba(small(pixels))[:, 1] for model in models], axis=1)
        print(f"{condition} {severity}: macro AUROC {macro_auroc(scores, labels[rows]):.3f} of {len(rows)} images")
        about = {"image_key": "nih14/" + table["image"].to_numpy()[rows], "condition": condition, "severity": severity}
        parts.append(pd.DataFrame(about | dict(zip(FINDINGS, scores.T, strict=True))))
    out.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(parts).to_csv(out, index=False)


def small(images: np.ndarray) -> np.ndarray:
    """32 x 32 pixels in a row."""
    shrunk = nn.functional.interpolate(torch.from_numpy(images)[:, None], (32, 32), mode="area")
    return shrunk.flatten(1).numpy()


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal(images.shape, np.float32)
    return (images + deviation * drawn).clip(0, 1)


def shade(depth: float) -> np.ndarray:
    """Darker towards the corners."""
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, SEEN, dtype=np.float32)], indexing="ij")
    return 1 - np.float32(depth) * (x**2 + y**2) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["network", "table"])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    asked = parser.parse_args()
    table, images = read(asked.data)
    if asked.what == "network":
        train(table, images, asked.out, asked.epochs)
    else:
        tabulate(table, images, asked.out)


if __name__ == "__main__":
    main()
