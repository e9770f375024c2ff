"""Any folder of JPEG, PNG or DICOM files with a table that says what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from chexmsn.core.errors import UserError
from chexmsn.data.columns import ages, inside, leads_out, sexes
from chexmsn.data.decode import decode
from chexmsn.data.dicom import Rendering
from chexmsn.data.image import Decoded
from chexmsn.data.source import (
    Source,
    Table,
    blank_to_null,
    check_table,
    keep,
    make_table,
    need_folder,
    read_labels,
    read_text_table,
)
from chexmsn.data.splits import check_names, grouped_split

SOURCE = Source(
    title="A folder of images with a table",
    licence="that of the images",
    citation="that of the images",
    url="",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which column says what.

    The split comes from one of `split`, `split_as` and `shares`; without any of them every image is `train`.

    Attributes:
        table: the CSV file, inside the folder.
        image: column with the image files, relative to the table.
        patient: column with the patient; where every image is a patient of its own, give the image column.
        study: column with the study.
        view: column with the view position (AP, PA, LATERAL ...).
        sex: column with the sex (M, F, male, female).
        age: column with the age in years; 058Y is 58.
        findings: columns with labels (1, 0, -1 or blank), or columns by finding: {Effusion: Pleural Effusion}.
        split: column with the split.
        splits: what its values mean, {train: [0, 1, 2], validate: [3], test: [4]}; a value in no list is left out.
        split_as: one split for all images.
        shares: splits drawn by patient, {train: 0.8, validate: 0.1, test: 0.1}.
        rendering: how DICOM is shown: window (that of the file) or mimic-cxr-jpg (as MIMIC-CXR-JPG was rendered).
        key_prefix: put before every image key, to keep the keys of joined packs apart.
        collection: whose patients these are, nih14 for a copy of NIH's; where empty, the name of the folder. In packs
            of one collection equal patient numbers are the same patient, in others they are not.
    """

    table: str = "labels.csv"
    image: str = "image"
    patient: str = "patient_id"
    study: str | None = None
    view: str | None = None
    sex: str | None = None
    age: str | None = None
    findings: Sequence[str] | Mapping[str, str] = ()
    split: str | None = None
    splits: Mapping[str, Sequence[str | int]] | None = None
    split_as: str | None = None
    shares: Mapping[str, float] | None = None
    rendering: Rendering = "window"
    key_prefix: str = ""
    collection: str | None = None

    def __post_init__(self) -> None:
        ways = [name for name in ("split", "split_as", "shares") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise UserError(f"{' and '.join(ways)} both say what the split is: give only one of them")
        if self.splits is not None and self.split is None:
            raise UserError("`splits` maps the values of a column: name that column with `split`")
        check_names([*(self.splits or ()), *(self.shares or ()), *filter(None, [self.split_as])])

    def finding_columns(self) -> Mapping[str, str]:
        """{column: finding}."""
        return self.findings if isinstance(self.findings, Mapping) else {name: name for name in self.findings}

    def columns(self) -> list[str]:
        """Every column that must be there."""
        named = (self.image, self.patient, self.study, self.view, self.sex, self.age, self.split)
        return [*filter(None, named), *self.finding_columns()]


def read(folder: Path, config: Config) -> Table:
    """The images of the table. Raises UserError for everything that is not as `config` says."""
    need_folder(folder)
    file = folder / config.table
    if leads_out(config.table):
        raise UserError(
            f"the option `table` is a place inside the folder {folder}, not {config.table}: move the table there, or "
            "give a folder that holds both it and the images"
        )
    if not file.is_file():
        raise UserError(f"{folder} has no table {config.table}: name it with the option `table`")
    rows = read_text_table(file, config.columns())
    images = inside(rows[config.image], file)
    columns = {
        "path": [str(file.parent / name) for name in images],
        "image_key": config.key_prefix + images,
        "patient_id": rows[config.patient].str.strip(),
        "split": _splits(rows, config),
        "study_id": _optional(rows, config.study),
        "view": _optional(rows, config.view).str.upper(),
        "sex": sexes(_optional(rows, config.sex)),
        "age": ages(_optional(rows, config.age), file),
    }
    table = make_table(columns, read_labels(rows, config.finding_columns(), file))
    return check_table(_without_left_out(table, config), file)


def collection(folder: Path, config: Config) -> str:
    """Whose patients these are, by the user's word."""
    return config.collection or folder.resolve().name


def load(record: Mapping[str, Any], config: Config, enough: int) -> Decoded:
    """One image; DICOM as asked."""
    return decode(Path(record["path"]), enough, config.rendering)


def _optional(rows: pd.DataFrame, column: str | None) -> pd.Series:
    if column is None:
        return pd.Series(None, index=rows.index, dtype="str")
    return blank_to_null(rows[column])


def _splits(rows: pd.DataFrame, config: Config) -> Sequence[str | None]:
    if config.shares is not None:
        return grouped_split(rows[config.patient].str.strip().tolist(), config.shares, seed=0)
    if config.split is None:
        return [config.split_as or "train"] * len(rows)
    values = rows[config.split].str.strip()
    if config.splits is None:
        return values.tolist()
    name_of = {str(value): name for name, values in config.splits.items() for value in values}
    return [name_of.get(value) for value in values]


def _without_left_out(table: Table, config: Config) -> Table:
    if config.splits is None:
        return table
    return keep(table, table["split"].notna(), f"`splits` gives their {config.split} to no split")


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a small folder as the default options read it: JPEG and PNG, gray and colour, two images a patient."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(2 * patients):
        name = f"images/{number:04d}.{'png' if number % 3 else 'jpg'}"
        coarse = rng.integers(0, 256, (6, 6), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size, size + 8), Image.Resampling.BICUBIC)
        image.convert("RGB" if number % 4 == 0 else "L").save(folder / name)
        rows.append(_fake_row(name, number, rng))
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)


def _fake_row(name: str, number: int, rng: np.random.Generator) -> dict[str, object]:
    return {
        "image": name,
        "patient_id": f"patient-{number // 2}",
        "fold": number // 2 % 5,
        "view": ("AP", "PA", "")[number % 3],
        "sex": ("M", "F", "")[number // 2 % 3],
        "age": ("58", "058Y", "")[number // 2 % 3],
        "Effusion": rng.choice(["1", "0", "-1", ""]),
        "Cardiomegaly": rng.choice(["1.0", "0.0"]),
    }
