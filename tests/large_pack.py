"""A pack of any number of images at little cost: a few drawn radiographs, shifted and brightened image by image."""

from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.data._finish import finish
from chexmsn.data._partial import Partial
from chexmsn.data.decode import Decoded
from chexmsn.data.labels import CHEXPERT_FINDINGS
from chexmsn.data.pack import Pack, open_pack
from chexmsn.data.phantom.picture import Spec, picture
from chexmsn.data.source import LABEL, make_table
from chexmsn.data.squares import _note

STEP = 1000


def table_of(images: int) -> pd.DataFrame:
    """Six images a patient; nine patients of ten are for training. The identifiers are as long as MIMIC-CXR's."""
    number = np.arange(images)
    patient = pd.Series(number // 6)
    columns = {
        "path": "",
        "image_key": [f"{(n * 2654435761) % 2**32:08x}-{n:08x}-{n % 9973:08x}-{n:08x}" for n in number],
        "patient_id": "p" + (10_000_000 + patient).astype(str),
        "study_id": "s" + (50_000_000 + pd.Series(number // 2)).astype(str),
        "view": np.array(["AP", "PA", "LATERAL"])[number % 3],
        "split": np.array(["train"] * 8 + ["validate", "test"])[patient % 10],
        "sex": np.array(["F", "M"])[patient % 2],
        "age": 20.0 + patient % 70,
        "pixel_mm_row": 1.6,
        "pixel_mm_column": 1.6,
    }
    labels = np.random.default_rng(0).choice(np.float32([1, 0, -1, np.nan]), (images, len(CHEXPERT_FINDINGS)))
    return make_table(columns, pd.DataFrame(labels, columns=[LABEL + name for name in CHEXPERT_FINDINGS]))


def write_pack(out: Path, images: int, size: int) -> Pack:
    """Through the journal and the finishing of `chexmsn prepare`, all but its decoding."""
    drawn = np.stack([picture(Spec(0, size, patient, 0, 0)) for patient in range(10)])
    partial, table = Partial(out, size, "uint8"), table_of(images)
    recorded = {"source": "phantom", "options": {}, "size": size, "fit": "crop", "dtype": "uint8"}
    with partial.alone():
        partial.begin(recorded)
        for start in range(0, images, STEP):
            squares = [_changed(drawn, number) for number in range(start, min(start + STEP, images))]
            partial.append(np.stack(squares), [_note(square, Decoded.whole(square)) for square in squares])
        finish(partial, table, recorded | {"source_folder_name": out.name}, out)
        partial.remove()
    return open_pack(out)


def _changed(drawn: np.ndarray, number: int) -> np.ndarray:
    """No two images are the same: the number is written into the first pixels."""
    image = np.roll(drawn[number % len(drawn)], number // 10 % 16, axis=1) // 2 + np.uint8(number // 160 % 100)
    image[0, :4] = np.frombuffer(np.uint32(number).tobytes(), np.uint8)
    return image
