"""Where does a stress test spend its time? Making the conditions of each grid beside the model's own passes.

    OMP_NUM_THREADS=1 python benchmarks/stress_speed.py --out benchmarks/results/stress-speed.json

Milliseconds per image of 224 px in batches, a ViT-S/16 of random weights: processor time on a CPU, wall time on a GPU
(`--device gpu --batch-size 250`). The model is timed on all patches and at each share of tokens; a grid's time in the
model is put together from these. Reading comes on top: a batch is read once for all conditions.

With `--tested 5000` a whole stress test of the standard grid is run besides, from a pack of noise to its tables, and
told with the share of its time that lies outside the model.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from _measure import FINDINGS, noise_pack

from chexmsn.core.device import choose_device
from chexmsn.core.draws import Draws, keys_of
from chexmsn.corruptions import Known, kept_patches
from chexmsn.data.pack import open_pack
from chexmsn.evaluation.adapters._model import Model
from chexmsn.evaluation.adapters.chexmsn import model_of
from chexmsn.evaluation.conditions import REGIONS, Condition, chosen
from chexmsn.evaluation.facts import saliency_of
from chexmsn.evaluation.scoring import degrade, view, why_not
from chexmsn.evaluation.stress import StressConfig, stress
from chexmsn.models.artefact import ClassifierArtefact, load_classifier, save_classifier
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.training.speed import fastest, machine, wait

GRIDS = ("standard", "fills", "missing", "imagenet-c", "radiographic", "extended")


def vit_small(device: torch.device) -> Model:
    classifier = Classifier(build_encoder(EncoderConfig(name="vit_small", patch=16, size=224)), ("Edema",)).eval()
    return model_of(ClassifierArtefact(classifier, ("Edema",), {}, {}, Path("model"))).to(device)


def milliseconds(work: Callable[[], object], device: torch.device, images: int, repeats: int) -> float:
    """Per image, the shortest of several."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    taken = []
    for _ in range(repeats + 1):  # the first warms up
        wait(device)
        start = clock()
        work()
        wait(device)
        taken.append(clock() - start)
    return 1000 * min(taken[1:]) / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--grids", nargs="+", choices=GRIDS, default=GRIDS)
    parser.add_argument("--tested", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    device, batch = choose_device(asked.device), asked.batch_size
    model = vit_small(device)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 1, 16, 16, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=256, mode="bicubic").clamp(0, 1)[:, 0]
    pixels = (255 * smooth).to(torch.uint8)
    draws = Draws.of(0, keys_of(map(str, range(batch))).to(device))

    def timed(work: Callable[[], object]) -> float:
        return milliseconds(work, device, batch, asked.repeats)

    images = view(pixels, model)
    known = Known(saliency=images)
    making = {c: timed(lambda c=c: degrade(images, c, draws, model, 0.5, known)) for c in chosen(asked.grids)}
    shares = {c.severity: degrade(images, c, draws, model, 0.5).kept for c in chosen(["tokens-removed"])}
    passing = {share: timed(lambda kept=kept: model.scores(images, kept)) for share, kept in shares.items()}
    told = {
        "machine": machine(device),
        "batch_size": batch,
        "reading": timed(lambda: reading(batch)),
        "view": timed(lambda: view(pixels, model)),
        "saliency_per_finding": timed(lambda: saliency_of(model, images, (0,))),
        "model": passing,
        "grids": {grid: of_grid(grid, making, passing) for grid in asked.grids},
        "slowest": {f"{c.corruption}:{c.severity:g}": making[c] for c in sorted(making, key=making.get)[-5:]},
    }
    if asked.tested:
        with tempfile.TemporaryDirectory() as scratch:
            pack = noise_pack(Path(scratch) / "pack", 2 * asked.tested)
            told["whole"] = end_to_end(EncoderConfig(), pack.folder, Path(scratch), device, batch_size=batch)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))


def end_to_end(
    network: EncoderConfig, pack: Path, scratch: Path, device: torch.device, *, batch_size: int
) -> dict[str, float]:
    """Seconds of a stress test of the standard grid on the test split, judging included, and what the model takes."""
    torch.manual_seed(0)
    classifier = Classifier(build_encoder(network), FINDINGS)
    torch.nn.init.normal_(classifier.head.weight)  # answers that differ from image to image
    save_classifier(scratch / "classifier", classifier, thresholds={}, provenance={})
    name = {"cuda": "gpu"}.get(device.type, device.type)
    out = scratch / f"stress-{time.time_ns()}"
    config = StressConfig(
        model=scratch / "classifier", data=pack, out=out, conditions=("standard",), batch_size=batch_size, device=name
    )
    start = time.perf_counter()
    stress(config)
    whole = time.perf_counter() - start
    tested = len(open_pack(pack).rows(["test"]))
    inside = model_seconds(model_of(load_classifier(scratch / "classifier")).to(device), batch_size) * tested
    return {"images": tested, "seconds": whole, "seconds_in_model": inside, "share_outside": 1 - inside / whole}


def model_seconds(model: Model, batch: int) -> float:
    """Of the passes of the standard grid, per image, the images and patches already made."""
    side = model.input.size
    images = torch.rand(batch, 1, side, side, device=model.device)
    draws = Draws.of(0, torch.arange(batch, device=model.device))
    scored = [c for c in chosen(["standard"]) if why_not(c, model) is None]
    shares = {c: c.severity if _removes(c) else 0.0 for c in scored}
    kept = {share: kept_patches(draws, model.patches, share) if share else None for share in set(shares.values())}
    taken = {s: fastest(lambda k=k: model.scores(images, k), model.device, repeats=2) for s, k in kept.items()}
    return sum(taken[share] for share in shares.values()) / batch


def reading(batch: int) -> np.ndarray:
    """A batch of a pack, from a file that lies in memory."""
    with tempfile.TemporaryFile() as file:
        file.truncate(batch * 256 * 256)
        return np.memmap(file, np.uint8, "r", shape=(batch, 256, 256))[np.arange(batch)]


def of_grid(grid: str, making: Mapping[Condition, float], passing: Mapping[float, float]) -> dict[str, float]:
    conditions = chosen([grid])
    made = sum(making[c] for c in conditions)
    passed = sum(passing[c.severity if _removes(c) else 0.0] for c in conditions)
    return {"conditions": len(conditions), "corruptions": made, "model": passed, "share": made / (made + passed)}


def _removes(condition: Condition) -> bool:
    region = REGIONS.get(condition.corruption)
    return region is not None and region.fill is None


if __name__ == "__main__":
    main()
