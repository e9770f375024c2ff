"""What packing a full-size radiograph costs, side by side with the usual Pillow lines, and how near the pixels stay.

    OMP_NUM_THREADS=1 python benchmarks/prepare_speed.py --out benchmarks/results/prepare-speed.json

Radiographs are drawn phantoms, enlarged to 2544 x 3056 px, with as much noise as makes 8-bit gray JPEG files of about
2.5 MB at quality 95. Processor time of one process, all films by each way in turn.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from chexmsn.data.decode import decode, fit_square
from chexmsn.data.phantom.picture import Spec, picture
from chexmsn.data.prepare import prepare
from chexmsn.data.squares import Form, Squares

ROWS, COLUMNS, BYTES = 3056, 2544, 2.5e6
MIMIC_CXR = 377_110  # images of all views
WHOLE = 1 << 16  # more pixels than any JPEG has along a side: nothing is decoded smaller


def write_films(folder: Path, count: int) -> list[Path]:
    """JPEG files of the size and weight of MIMIC-CXR-JPG's, with the table that source csv reads."""
    films = [folder / f"{number}.jpg" for number in range(count)]
    for number, film in enumerate(films):
        film.write_bytes(_film(number))
    table = {"image": [film.name for film in films], "patient_id": range(count)}
    pd.DataFrame(table).to_csv(folder / "labels.csv", index=False)
    return films


def _film(number: int) -> bytes:
    drawn = Image.fromarray(picture(Spec(0, 512, number, 0, 0))).resize((COLUMNS, ROWS), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(number).standard_normal((ROWS, COLUMNS), np.float32)
    coded = [_coded(np.asarray(drawn) + sigma * noise) for sigma in (3.5, 4.0, 4.5, 5.0)]
    return min(coded, key=lambda content: abs(len(content) - BYTES))


def _coded(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels.round().clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def with_pillow(film: Path, mode: str = "RGB") -> Image.Image:
    """The lines that everybody writes."""
    image = Image.open(film).convert(mode)
    scale = 256 / min(image.size)
    return image.resize((round(scale * image.width), round(scale * image.height)))


def timed(job: Callable[[], object]) -> float:
    started = time.process_time()
    job()
    return 1000 * (time.process_time() - started)


def measure(films: list[Path], repeats: int) -> dict[str, float]:
    """Milliseconds per image: medians over the repeats, in each of which every way has all films in turn."""
    ours = Squares(Form("csv", {}), films[0].parent)
    ways = {
        "Pillow open, convert RGB, resize": lambda: [with_pillow(film) for film in films],
        "Pillow open, convert L, resize": lambda: [with_pillow(film, "L") for film in films],
        "chexmsn, a chunk in a worker": lambda: ours([{"path": str(film)} for film in films]),
        "chexmsn, decoded whole": lambda: [fit_square(decode(film, WHOLE).pixels, 256, "crop") for film in films],
    }
    taken = [{name: timed(way) / len(films) for name, way in ways.items()} for _ in range(repeats)]
    return {name: round(statistics.median(each[name] for each in taken), 1) for name in ways}


def measure_command(films: list[Path], place: Path) -> float:
    """Milliseconds per image of `prepare` from the table to the checksums, of ten copies of each film."""
    copies = [place / f"{copy}-{film.name}" for copy in range(10) for film in films]
    for number, copy in enumerate(copies):
        copy.hardlink_to(films[number % len(films)])
    table = {"image": [copy.name for copy in copies], "patient_id": range(len(copies))}
    pd.DataFrame(table).to_csv(place / "labels.csv", index=False)
    return timed(lambda: prepare("csv", place, place / "pack", workers=1)) / len(copies)


def difference(films: list[Path], packed: np.ndarray) -> list[float]:
    """Mean absolute difference of each packed square to a full decode with an antialiased resize, in gray levels."""
    whole = [fit_square(decode(film, WHOLE).pixels, 256, "crop").astype(float) for film in films]
    return [float(np.abs(square - other).mean()) for square, other in zip(packed, whole, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        (folder := Path(place) / "films").mkdir()
        (copies := Path(place) / "copies").mkdir()
        films = write_films(folder, options.images)
        milliseconds = measure(films, options.repeats)
        whole = measure_command(films, copies)
        apart = difference(films, prepare("csv", folder, Path(place) / "pack", workers=1).images)
        megabytes = sum(film.stat().st_size for film in films) / len(films) / 1e6
    milliseconds["chexmsn prepare, from table to checksums"] = round(whole, 1)
    usual = milliseconds["Pillow open, convert RGB, resize"]
    told = {
        "MB per file": round(megabytes, 2),
        "milliseconds": milliseconds,
        "times as fast as Pillow": {n: round(usual / ms, 2) for n, ms in milliseconds.items() if "chexmsn" in n},
        "mean absolute difference": {"mean": round(float(np.mean(apart)), 3), "largest": round(max(apart), 3)},
        "all of MIMIC-CXR on 16 cores, minutes": round(MIMIC_CXR * whole / 1000 / 16 / 60, 1),
        "all of MIMIC-CXR at 256 px, GB": round(MIMIC_CXR * 256**2 / 1e9, 1),
    }
    print(json.dumps(told, indent=2))
    options.out.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
