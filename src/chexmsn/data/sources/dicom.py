"""Any folder of DICOM files, however deep and whatever they are called.

Patients, views and kinds of images are read from the tags. No tag about a patient goes into the pack unless it is
named: identifiers become keyed hashes, from which nobody without the key can find them again by trying all numbers.
Labels are not part of such a folder: where a table has them, the source `csv` reads the same files.
"""

import hashlib
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydicom
from pydicom.uid import generate_uid

from chexmsn.core.errors import UserError
from chexmsn.core.progress import progress
from chexmsn.core.words import are, counted
from chexmsn.data._pool import cores, ordered_map
from chexmsn.data._tree import walk
from chexmsn.data.columns import ages, sexes
from chexmsn.data.decode import decode
from chexmsn.data.dicom import BROKEN, Rendering, is_dicom, read_tags
from chexmsn.data.image import Decoded, UnreadableImage
from chexmsn.data.look_alike import picture, write_dicom
from chexmsn.data.source import Source, Table, blank_to_null, check_table, make_table, need_folder
from chexmsn.data.splits import check_names, grouped_split

SOURCE = Source(
    title="A folder of DICOM files",
    licence="that of the images",
    citation="that of the images",
    url="",
)

MODALITIES = ("CR", "DX", "RG")
"""Computed, digital and conventional radiography (DICOM PS3.3 C.7.3.1.1.1)."""

TAGS = (
    *("SOPInstanceUID", "StudyInstanceUID", "PatientID", "PatientSex", "PatientAge"),
    *("Modality", "PresentationIntentType", "ViewPosition", "ViewCodeSequence", "Rows"),
)

VIEW_CODES = {
    "postero-anterior": "PA",
    "antero-posterior": "AP",
    "lateral": "LATERAL",
    "left lateral": "LL",
    "right lateral": "RL",
}
"""What ViewCodeSequence says in words (context group 4010 of DICOM PS3.16) as the ViewPosition it stands for."""

SHARES = {"train": 0.8, "validate": 0.1, "test": 0.1}
OLDEST = 90
"""Ages above are among the identifiers of the United States' privacy rule (45 CFR 164.514 b)."""

SUFFIXES = ("", ".dcm", ".dicom")
"""A file with such a name should be DICOM; one with another name may be."""

CHUNK = 64  # files that a process reads the tags of in one go
FEW = 512  # files; starting processes takes longer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How the images are shown, how they are split, and what may be known of the patients.

    Attributes:
        rendering: window (that of the file) or mimic-cxr-jpg (as MIMIC-CXR-JPG was rendered).
        modalities: kinds of images to take; a file that does not name its kind is taken.
        shares: splits drawn by patient.
        seed: another seed, other patients.
        patient_tags: what of sex and age goes into the pack.
        identifiers: patients, studies and images by keyed hashes (hashed) or by their own identifiers (keep).
        key_file: any file that is kept secret, as the key of the hashes: one file, and a patient has the same hash in
            several folders. Without it, the key is made of all identifiers in the folder.
    """

    rendering: Rendering = "window"
    modalities: Sequence[str] = MODALITIES
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    seed: int = 0
    patient_tags: Sequence[Literal["sex", "age"]] = ()
    identifiers: Literal["hashed", "keep"] = "hashed"
    key_file: str | None = None

    def __post_init__(self) -> None:
        check_names(self.shares)


def collection(folder: Path, config: Config) -> str:
    """Whose patients these are: equal hashes are the same person everywhere, equal numbers only within a folder."""
    return "dicom" if config.identifiers == "hashed" else folder.resolve().name


def read(folder: Path, config: Config) -> Table:
    """The radiographs in the folder. Raises UserError where there are none, and for a key that cannot be read."""
    need_folder(folder)
    every = _tags_below(folder)
    name = _hasher(every, config)
    files = _radiographs(every, folder, config.modalities)
    patients = _patients(files)
    columns = {
        "path": files["path"],
        "image_key": [name("image", uid) for uid in files["SOPInstanceUID"]],
        "patient_id": [name("patient", patient) for patient in patients],
        "study_id": [name("study", uid) if uid else None for uid in files["StudyInstanceUID"]],
        "view": _views(files),
        "split": grouped_split(patients.tolist(), config.shares, config.seed),
        "sex": sexes(files["PatientSex"]) if "sex" in config.patient_tags else None,
        "age": _ages(files["PatientAge"], folder) if "age" in config.patient_tags else None,
    }
    return check_table(make_table(columns, pd.DataFrame(index=files.index)), folder)


def load(record: Mapping[str, Any], config: Config, enough: int) -> Decoded:
    """One image, rendered as asked."""
    return decode(Path(record["path"]), enough, config.rendering)


# --- tags


def _tags_below(folder: Path) -> pd.DataFrame:
    """One row per DICOM file: `path`, `bytes`, and TAGS as text, blank for what it does not say."""
    sizes = walk(folder, threads=8).sizes
    places = sorted(sizes)
    if not places:
        raise UserError(f"{folder} is empty: give the folder that holds the DICOM files (.dcm or any other name)")
    chunks = [places[start : start + CHUNK] for start in range(0, len(places), CHUNK)]
    workers = 1 if len(places) <= FEW else min(cores(), len(chunks))
    read = (row for rows in ordered_map(partial(_tags_of, folder), chunks, workers, [__name__]) for row in rows)
    told = progress(read, total=len(places), title="reading tags", unit="file")
    rows = [row | {"bytes": sizes[place]} for place, row in zip(places, told, strict=True) if row]
    if not rows:
        raise UserError(f"{folder} holds no DICOM file (.dcm or any other name): give the folder that does")
    log.info("%d of %d files are DICOM, or should be by their name", len(rows), len(places))
    return pd.DataFrame(rows, columns=["path", "bytes", *TAGS], dtype="object")


def _tags_of(folder: Path, places: Iterable[str]) -> list[dict[str, str] | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on odd values
        return [_tags(folder, place) for place in places]


def _tags(folder: Path, place: str) -> dict[str, str] | None:
    """The tags of a DICOM file without its pixels; of a damaged one its place alone; None for another file."""
    unknown = {"path": f"{folder}/{place}"} | dict.fromkeys(TAGS, "") | {"SOPInstanceUID": place, "Rows": "unknown"}
    try:
        with (folder / place).open("rb") as file:
            if not is_dicom(file.read(132)):
                return unknown if Path(place).suffix.lower() in SUFFIXES else None
            file.seek(0)
            header = read_tags(file, TAGS)
            told = {tag: _text(header.get(tag)) for tag in TAGS}
            return unknown | told | {"SOPInstanceUID": told["SOPInstanceUID"] or place}
    except (*BROKEN, UnreadableImage):
        return unknown


def _text(value: Any) -> str:
    """A value as text; the words of the first code of a sequence."""
    if isinstance(value, pydicom.Sequence):
        value = value[0].get("CodeMeaning") if value else None
    return "" if value is None else str(value).strip()


# --- what stays


def _radiographs(files: pd.DataFrame, folder: Path, modalities: Sequence[str]) -> pd.DataFrame:
    """Without what is no radiograph, or is one twice. What is damaged stays, to be listed with the reason."""
    raw = files["PresentationIntentType"].str.upper() == "FOR PROCESSING"
    unwanted = {
        "they hold no image": files["Rows"] == "",
        f"their modality is none of {', '.join(modalities)}": ~files["Modality"].str.upper().isin([*modalities, ""]),
        "they are for processing, not for presentation": raw,
        "another file holds the same image": _copies(files),
    }
    reasons = np.select(list(unwanted.values()), list(unwanted), "")
    for reason, count in Counter(reasons[reasons != ""].tolist()).items():
        log.info("%s %s left out: %s", counted(count, "file"), are(count), reason)
    if (reasons != "").all():
        raise UserError(f"{folder} holds DICOM files, but none to pack: choose their kinds with the option modalities")
    return files[reasons == ""].reset_index(drop=True)


def _copies(files: pd.DataFrame) -> pd.Series:
    """Which files hold an image that a longer file holds, or one of this length before it.

    Of two copies the one that was cut off, as an export that was broken off and repeated leaves them, is the shorter.
    """
    longest_first = files.sort_values("bytes", ascending=False, kind="stable")
    return longest_first["SOPInstanceUID"].duplicated().reindex(files.index)


def _patients(files: pd.DataFrame) -> pd.Series:
    """Who each image is of, as far as the tags tell: without a patient, a study is; without a study, an image."""
    known = files["PatientID"] != ""
    if not known.all():
        nameless = int((~known).sum())
        log.warning("%s without a patient: each of their studies counts as one", counted(nameless, "image"))
    elif files["PatientID"].nunique() == 1 < files["StudyInstanceUID"].nunique():
        log.warning("all images name one patient: if that stands for everybody, they cannot be split by patient")
    study = files["StudyInstanceUID"].where(files["StudyInstanceUID"] != "", files["SOPInstanceUID"])
    return files["PatientID"].where(known, study)


def _views(files: pd.DataFrame) -> pd.Series:
    coded = files["ViewCodeSequence"].str.lower().map(VIEW_CODES)
    return blank_to_null(files["ViewPosition"]).str.upper().fillna(coded)


def _ages(text: pd.Series, folder: Path) -> pd.Series:
    return ages(text.where(text.str.fullmatch(r"\d{1,3}[DWMY]"), ""), folder).clip(upper=OLDEST)


# --- who they are


def _hasher(files: pd.DataFrame, config: Config) -> Callable[[str, str], str]:
    """`name(kind, identifier)`: what stands for an identifier in the pack."""
    if config.identifiers == "keep":
        return lambda kind, identifier: identifier
    key = _secret(config.key_file) if config.key_file else _of_all(files)
    return lambda kind, identifier: _hash(key, kind, identifier)


def _hash(key: bytes, kind: str, identifier: str) -> str:
    return hashlib.blake2b(identifier.encode(), key=key, person=kind.encode(), digest_size=8).hexdigest()


def _of_all(files: pd.DataFrame) -> bytes:
    """A key that is the same whenever the folder is, and that nobody can guess who has not got all of it."""
    known = sorted("\0".join(row) for row in files[["PatientID", "StudyInstanceUID", "SOPInstanceUID"]].to_numpy())
    return hashlib.blake2b("\n".join(known).encode()).digest()


def _secret(file: str) -> bytes:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"the key file {file} cannot be read: {error.strerror}") from None
    if len(content) < 16:
        raise UserError(f"the key file {file} must hold at least 16 bytes: head -c 32 /dev/urandom > {file}")
    return hashlib.blake2b(content).digest()


# --- look-alike


def fake(folder: Path, *, patients: int = 8, seed: int = 0, size: int = 96) -> None:
    """Write a folder as it comes from an archive: a folder per patient and study, names without extension, blank and
    missing tags, files that are no radiographs, one of them without preamble."""
    rng = np.random.default_rng(seed)
    for number in range(patients):
        for study in range(1 + number % 2):
            _fake_study(folder / f"DOE_{number:03d}" / f"ST{study:04d}", number, study, rng, size)
    (folder / "README.txt").write_text("Exported from the archive.\n", encoding="utf-8")
    first = folder / "DOE_000" / "ST0000" / "IM0000"
    first.write_bytes(first.read_bytes()[132:])


def _fake_study(folder: Path, number: int, study: int, rng: np.random.Generator, size: int) -> None:
    who = {
        "PatientName": f"Doe^Person {number}",
        "PatientID": f"MRN{7000000 + 13 * number}",
        "PatientBirthDate": "19500101",
        "PatientSex": ("M", "F", "O")[number % 3],
        "PatientAge": ("058Y", "093Y", "")[number % 3],
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", str(number), str(study)]),
    }
    for image, view in enumerate(("PA", "")):
        rows = size + int(rng.integers(0, size // 4))
        how = {"PhotometricInterpretation": ("MONOCHROME2", "MONOCHROME1")[number % 2], "ViewPosition": view}
        how |= {"ImagerPixelSpacing": [0.2, 0.2], "WindowCenter": 2000, "WindowWidth": 4000}
        code = pydicom.Dataset()
        code.CodeMeaning = "left lateral"
        how |= {} if view else {"ViewCodeSequence": [code]}
        write_dicom(folder / f"IM{image:04d}", picture(rows, size, rng), **who, **how)
    write_dicom(folder / "IM9000", picture(size, size, rng), **who, PresentationIntentType="FOR PROCESSING")
