"""Lays the real radiographs of `../shared/data/nih14` out as the NIH archive is: names, folders, table, lists.

    python tests/relaid_nih14.py ../shared/data/nih14 /tmp/nih14
    chexmsn prepare nih14 /tmp/nih14 /tmp/packs/nih14

Fold 4 stands for the official test list. The width, height and pixel spacing of the originals are not known and stay
blank; the files have 384 pixels a side (a few 256) instead of 1024.
"""

import sys
from pathlib import Path

import pandas as pd
from PIL import Image

from chexmsn.data.sources.nih14 import LABELS, NO_FINDING, TABLES, TEST, TRAIN, archive_of


def lay_out(given: Path, folder: Path, images: int | None = None) -> None:
    """Write the first `images` of the real radiographs, all where that is None, in the archive's layout."""
    rows = pd.read_csv(given / "labels.csv").iloc[:images]
    for name, file in zip(rows["original_file"], rows["image"], strict=True):
        archive = folder / archive_of(Path(name).name) / "images"
        archive.mkdir(parents=True, exist_ok=True)
        with Image.open(given / file) as image:
            image.save(archive / Path(name).name, compress_level=1)
    table(rows).to_csv(folder / TABLES[0], index=False)
    names = rows["original_file"].map(lambda name: Path(name).name)
    for list_name, listed in ((TRAIN, rows["fold"] != 4), (TEST, rows["fold"] == 4)):
        (folder / list_name).write_text("\n".join(names[listed]))


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """The archive's table of the rows of `labels.csv`."""
    findings = [label for label in LABELS if label != NO_FINDING]
    named = ["|".join(label for label in findings if row[label] == 1) or NO_FINDING for _, row in rows.iterrows()]
    columns = {
        "Image Index": rows["original_file"].map(lambda name: Path(name).name),
        "Finding Labels": named,
        "Follow-up #": rows["follow_up"],
        "Patient ID": rows["patient_id"].str.removeprefix("nih-"),
        "Patient Age": rows["age"],
        "Patient Gender": rows["sex"],
        "View Position": rows["view"],
    }
    unknown = dict.fromkeys(("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"))
    return pd.DataFrame(columns | unknown)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]), Path(sys.argv[2]))
