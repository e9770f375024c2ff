"""Hostile files: whatever lies in a folder, there is a pack, a listed skip or one clear line; no hang, no flood.

Every source is fuzzed, with as many examples as hostile.py says; `make campaign` has far more.
"""

import gzip
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection
from chexmsn.data.doctor import examine
from chexmsn.data.pack import open_pack, verify
from chexmsn.data.prepare import SOURCES, prepare
from chexmsn.data.source import LOOK_ALIKE, make_config, read_text_table
from chexmsn.data.squares import Form, Squares
from hostile import EXAMPLES, HOW, MEMORY, changed, fuzzed, marks, memory_is_limited  # noqa: F401

NAMES = lookup.names(SOURCES)
OF_FILES = [name for name in NAMES if lookup.load(SOURCES, name).SOURCE.files]
pytestmark = marks

OUTSIDE = ("../secret.png", "/etc/hostname", "a/../../secret.png")
NUMBERS = ("9" * 5000, "nan", "-1e999", "1e400", "-0", "2.0")
TEXTS = ("", " ", "\0", "'\"", "=1+1", "\u202e", "['unclosed", "<x>", "~", "*")
HOSTILE_VALUES = OUTSIDE + NUMBERS + TEXTS


@pytest.fixture(scope="module", params=NAMES)
def look_alike(request, tmp_path_factory):
    """A source's name, a look-alike of it, and the hashes of all that may be seen in it."""
    place = tmp_path_factory.mktemp(request.param)
    lookup.load(SOURCES, request.param).fake(place / "whole", patients=4, size=24)
    (place / "secret.png").write_bytes(png(np.full((24, 24), 77, np.uint8)))
    return request.param, place / "whole", seen(request.param, place / "whole")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def seen(source: str, folder: Path) -> set[str] | None:
    """The hashes of the images that packing the folder would show, or None where one clear line says why not."""
    module = lookup.load(SOURCES, source)
    try:
        table = module.read(folder, make_config(module, {}))
    except UserError as error:
        assert "\n" not in str(error)
        return None
    _, notes = Squares(Form(source, {}, 16), folder)(table.to_dict("records"))
    assert len(notes) == len(table)
    return {note["content_hash"] for note in notes if "reason" not in note}


def examined(source: str, folder: Path):
    try:
        return examine(source, folder, workers=2)
    except UserError as error:
        assert "\n" not in str(error)


@fuzzed
@given(
    which=st.floats(0, 0.999),
    how=st.sampled_from(HOW),
    where=st.floats(0, 0.999),
    amount=st.integers(1, 400),
    junk=st.binary(min_size=1, max_size=12),
)
def test_damaged_files(look_alike, which, how, where, amount, junk):
    source, whole, _ = look_alike
    files = [file for file in sorted(whole.rglob("*")) if file.is_file() and file.name != LOOK_ALIKE]
    victim = files[int(which * len(files))]
    content = victim.read_bytes()
    inner = gzip.decompress(content) if victim.suffix == ".gz" and amount % 2 else None
    try:
        damaged = changed(content if inner is None else inner, how, where, amount, junk)
        victim.write_bytes(damaged if inner is None else gzip.compress(damaged))
        seen(source, whole)
        examined(source, whole)
    finally:
        victim.write_bytes(content)


def tables_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.name.endswith((".csv", ".csv.gz")))


@fuzzed
@given(
    which=st.floats(0, 0.999),
    row=st.floats(0, 0.999),
    column=st.floats(0, 0.999),
    value=st.one_of(st.sampled_from(HOSTILE_VALUES), st.text(max_size=20)),
    rows=st.sampled_from([0, 1, 1, 1, 2]),
)
def test_strange_values_in_tables_never_show_what_lies_outside(look_alike, which, row, column, value, rows):
    source, whole, known = look_alike
    tables = tables_of(whole)
    if not tables:
        return
    victim = tables[int(which * len(tables))]
    content = victim.read_bytes()
    table = pd.read_csv(victim, dtype=str, keep_default_na=False)
    table.iloc[int(row * len(table)), int(column * table.shape[1])] = value.encode("utf-8", "replace").decode()
    try:
        pd.concat([table] * rows or [table[:0]]).to_csv(victim, index=False)
        shown = seen(source, whole)
        examined(source, whole)
        assert shown is None or source == "phantom" or shown <= known
    finally:
        victim.write_bytes(content)


# --- what is no file


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_out(path: Path) -> None:
    path.symlink_to(secret_beside(path))


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def a_huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room


def secret_beside(path: Path) -> Path:
    return next(above / "secret.png" for above in path.parents if (above / "secret.png").exists())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("odd", [a_pipe, a_folder, a_device, a_link_out, a_link_to_itself, a_huge_file])
def test_what_is_no_image_file_is_left_out(look_alike, odd):
    source, whole, known = look_alike
    module = lookup.load(SOURCES, source)
    if not module.SOURCE.files:
        return
    victim = Path(module.read(whole, make_config(module, {}))["path"].iloc[0])
    content = victim.read_bytes()
    victim.unlink()
    try:
        odd(victim)
        shown = seen(source, whole)
        assert shown is None or shown < known
        told = examined(source, whole)
        assert told is None or source == "dicom" or not told.whole
    finally:
        victim.rmdir() if victim.is_dir() and not victim.is_symlink() else victim.unlink()
        victim.write_bytes(content)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("odd", [a_pipe, a_folder])
def test_what_is_no_table_file_is_told(look_alike, odd):
    source, whole, _ = look_alike
    for victim in tables_of(whole):
        content = victim.read_bytes()
        victim.unlink()
        try:
            odd(victim)
            seen(source, whole)
            examined(source, whole)
        finally:
            victim.rmdir() if odd is a_folder else victim.unlink()
            victim.write_bytes(content)


# --- bombs


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, depth: int, colour: int, *more: bytes, rows: int | None = None) -> bytes:
    """A PNG of zeros, of as many `rows` as are wanted whatever its header says."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    per_row = 1 + width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] // 8
    packer = zlib.compressobj(1)
    content = (
        b"".join(packer.compress(bytes(per_row)) for _ in range(height if rows is None else rows)) + packer.flush()
    )
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose header says that it is large."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file, "jpeg")
    content = file.getvalue()
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def bombs() -> dict[str, bytes]:
    flood = zlib.compress(bytes(1 << 26), 9)
    text = png_chunk(b"zTXt", b"Comment\0\0" + flood)
    profile = png_chunk(b"iCCP", b"p\0\0" + flood)
    return {
        "huge.png": png_of(60_000, 60_000, 8, 0, rows=1),
        "larger-than-said.png": png_of(32, 32, 8, 0, rows=1_000_000),
        "large.png": png_of(4_000, 4_000, 16, 0),
        "text.png": png_of(32, 32, 8, 0, *[text] * 4),
        "profile.png": png_of(32, 32, 8, 0, *[profile] * 4),
        "huge.jpg": jpeg_of(65_500, 65_500),
        "wide.jpg": jpeg_of(65_500, 16),
        "large.jpg": jpeg_of(9_400, 9_400),
        "thin.png": png_of(80_000_000, 1, 8, 0, rows=0),
    }


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from chexmsn.cli.main import main
for folder in sys.argv[2:]:
    print(main(["prepare", "csv", folder, folder + "/pack", "--size", "16", "--workers", "1"]), flush=True)
"""


FLOODS = {
    "zeros": lambda: gzip.compress(bytes(1 << 26), 1) * 9,
    "rows": lambda: gzip.compress(b"image,patient_id\n" + b"a.png,1\n" * (8 << 20), 1) * 9,
    "header": lambda: b"a," * (1 << 22),
    "row": lambda: b"image,patient_id\n" + b"," * (1 << 22),
    "field": lambda: b'image,patient_id\n"' + b"a" * (1 << 22),
}


def test_bombs_are_left_out_and_tables_that_would_fill_the_memory_refused(tmp_path):
    files = bombs() | {"good.png": png(np.arange(1024, dtype=np.uint8).reshape(32, 32))}
    images = tmp_path / "images"
    images.mkdir()
    for name, content in files.items():
        (images / name).write_bytes(content)
    pd.DataFrame({"image": list(files), "patient_id": range(len(files))}).to_csv(images / "labels.csv", index=False)
    for name, flood in FLOODS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.csv").write_bytes(flood())
    folders = [str(tmp_path / name) for name in ("images", *FLOODS)]
    words = [sys.executable, "-c", LIMITED, str(MEMORY), *folders]  # one process: loading the libraries takes seconds
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["0"] + ["2"] * len(FLOODS), done.stderr[-2000:]
    told = [line for line in done.stderr.splitlines() if "labels.csv cannot be read as a CSV table" in line]
    assert len(told) == len(FLOODS), done.stderr[-2000:]
    left_out = pd.read_csv(images / "pack" / "left_out.csv").set_index("image_key")["reason"]
    assert {"huge.png", "huge.jpg", "thin.png", "text.png", "profile.png"} <= set(left_out.index)
    assert "good.png" not in left_out.index


@fuzzed
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(content)
    try:
        table = read_text_table(file)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, str) for value in table.to_numpy().ravel())


def test_rows_longer_than_the_header_do_not_shift(tmp_path):
    (tmp_path / "a.csv").write_text("image,patient_id\n1,a.png,7\n2,b.png,8\n")
    with pytest.raises(UserError, match="rows with more values than its header has names"):
        read_text_table(tmp_path / "a.csv")


# --- packs


@pytest.fixture(scope="module")
def pack_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("packs")
    lookup.load(SOURCES, "csv").fake(place / "raw", patients=6, size=24)
    prepare("csv", place / "raw", place / "pack", options={"findings": ["Effusion"]}, size=16, workers=1)
    return place / "pack"


@settings(fuzzed, max_examples=20 * EXAMPLES)
@given(
    name=st.sampled_from(["images.npy", "index.parquet", "pack.json"]),
    how=st.sampled_from(HOW),
    where=st.one_of(st.floats(0, 0.999), st.floats(0, 0.03)),
    amount=st.integers(1, 400),
    junk=st.binary(min_size=1, max_size=12),
)
@example(name="images.npy", how="cut", where=0.0, amount=1, junk=b"\0")  # nothing is left of it
@example(name="images.npy", how="into", where=0.02374552035723746, amount=2, junk=b"\n")  # a header of Python 2
def test_a_damaged_pack_is_refused_or_works(pack_folder, name, how, where, amount, junk):
    content = (pack_folder / name).read_bytes()
    try:
        (pack_folder / name).write_bytes(changed(content, how, where, amount, junk))
        pack = open_pack(pack_folder)
        images = Collection([pack], list(pack.info["splits"]))
        images.pixels(np.arange(len(images)))
        verify(pack)
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        (pack_folder / name).write_bytes(content)
