"""How fast is a classifier fine-tuned from a pack, and where does the time go?

    python benchmarks/fine_tuning_speed.py --out FILE.json                                # a GPU, ViT-S/16, 224 px
    python benchmarks/fine_tuning_speed.py --encoder vit_tiny --batch-size 16 --images 256 --out FILE.json   # a laptop

Images per second end to end, from a pack of noise to the moved weights, by the loop, feed and watch of users' runs;
plain and, with `--compile`, compiled; pixels on the device and read. Beside it the network alone: the same steps on one
batch that is there already, so that what is left is reading, views and the loop.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from _measure import Job, gflop_per_image, noise_pack, steps_of, trained

from chexmsn.core.device import choose_device
from chexmsn.training.speed import machine, medians


def network_alone(job: Job, pack: Path, device: torch.device) -> float:
    """Images per second of forward, backward and optimiser, in plain steps."""
    steps = steps_of(job, pack, device)
    parts = medians([steps.step() for _ in range(4)][1:])  # the first warms up
    return job.batch_size / sum(parts[stage] for stage in ("forward", "backward", "optimiser"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--encoder", default="vit_small")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    device = choose_device(asked.device)
    job = Job(method="fine-tune", encoder=asked.encoder, batch_size=asked.batch_size, compile=asked.compile)
    with tempfile.TemporaryDirectory() as scratch:
        pack = noise_pack(Path(scratch) / "pack", 2 * asked.images).folder
        rates = {}
        for resident in ("always", "never"):
            how = Job(**vars(job) | {"resident": resident})
            rates[resident] = trained(how, pack, device, seconds=asked.seconds, warm=2)["images_per_second"]
        alone, gflop = network_alone(job, pack, device), gflop_per_image(job, pack, device)
    outside = {name: 1 - rate / alone for name, rate in rates.items()}
    told = {"machine": machine(device), "job": vars(job), "images_per_second": rates, "network_alone": alone}
    told |= {"gflop_per_image": gflop, "share_outside_the_network": outside}
    asked.out.write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
