"""How long a full-size radiograph in DICOM takes to become a square, by transfer syntax and rendering.

    OMP_NUM_THREADS=1 python benchmarks/dicom_speed.py --out benchmarks/results/dicom-speed.json

The image is drawn: 3056 x 2544 pixels of 12 bits in 16, smooth with noise of a few numbers, as a detector has. GDCM
decodes in a process of its own, whose time is counted. Processor time, the median of several rounds over all cases.
"""

import argparse
import json
import resource
import statistics
import tempfile
from pathlib import Path

import gdcm
import numpy as np

from chexmsn.data.decode import decode, fit_square
from chexmsn.data.look_alike import picture, write_dicom

SHAPE = (3056, 2544)
SYNTAXES = {
    "uncompressed": None,
    "RLE": "RLELossless",
    "JPEG lossless": "JPEGLosslessProcess14_1",
    "JPEG-LS": "JPEGLSLossless",
    "JPEG 2000": "JPEG2000Lossless",
}


def draw(file: Path) -> None:
    rng = np.random.default_rng(0)
    light = (picture(*SHAPE, rng) + rng.normal(0, 0.002, SHAPE)).clip(0, 1)
    write_dicom(file, light, WindowCenter=2000, WindowWidth=3800)


def transcode(plain: Path, syntax: str) -> Path:
    packed = plain.with_name(syntax)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    change.Change()
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()
    return packed


def processor_ms(work) -> float:
    """Of this process and of those it waited for."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    work()
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    return 1000 * seconds


def tag_rate(files: list[Path], folder: Path) -> float:
    from chexmsn.data.sources.dicom import _tags_of

    places = [str(file.relative_to(folder)) for file in files]
    return processor_ms(lambda: _tags_of(folder, places)) / len(places)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place) / "plain.dcm"
        draw(plain)
        files = {name: plain if syntax is None else transcode(plain, syntax) for name, syntax in SYNTAXES.items()}
        cases = {
            f"{name}, {rendering}": (file, rendering)
            for name, file in files.items()
            for rendering in ("window", "mimic-cxr-jpg")
        }
        times: dict[str, list[float]] = {
            name: [] for name in [*cases, "square of 256, 16 bits", "square of 256, 8 bits"]
        }
        deep, flat = (decode(plain, 512, rendering).pixels for rendering in ("window", "mimic-cxr-jpg"))
        for _ in range(given.rounds):
            for name, (file, rendering) in cases.items():
                times[name].append(processor_ms(lambda f=file, r=rendering: decode(f, 512, r)))
            times["square of 256, 16 bits"].append(processor_ms(lambda: fit_square(deep, 256, "crop")))
            times["square of 256, 8 bits"].append(processor_ms(lambda: fit_square(flat, 256, "crop")))
        result = {
            "unit": "ms of processor time per image of 3056 x 2544 pixels, 16 bits",
            "median": {name: round(statistics.median(values), 1) for name, values in times.items()},
            "megabytes": {name: round(file.stat().st_size / 1e6, 1) for name, file in files.items()},
            "tags of one file, ms": round(statistics.median(tag_rate([plain] * 50, Path(place)) for _ in range(5)), 2),
        }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
