"""Hostile DICOM: tag by tag spoilt, there is an image, a reason why not, or one clear line; no hang, no flood.

Damaged bytes of every source's files are in test_data_hostile.py; here lengths, kinds, values and nesting are wrong
one at a time, so that most of a file is still what a reader trusts.
"""

import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid

from chexmsn.core.errors import UserError
from chexmsn.data.decode import decode
from chexmsn.data.dicom import Rendering
from chexmsn.data.image import SMALLEST_SIDE, UnreadableImage
from chexmsn.data.sources import dicom as folder_of_dicom
from chexmsn.data.squares import Form, Squares
from dicom_elements import UNDEFINED, Element, content_of, element, elements_of, nested
from dicom_files import dicom, transcoded
from hostile import EXAMPLES, HOW, changed, fuzzed, limited, marks, memory_is_limited  # noqa: F401

pytestmark = [*marks, pytest.mark.filterwarnings("ignore")]  # pydicom remarks on what is written here

PIXELS = (0x7FE0, 0x0010)
SECONDS = 20  # of processor time for one small file, in which nothing takes one
NAME = b"DOE^JANE"

NUMBERS = st.one_of(st.sampled_from([0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 32, 64, 255, 32767, 32768, 65535]))
VALUES = st.one_of(
    NUMBERS.map(lambda number: struct.pack("<H", number)),
    st.sampled_from(
        [
            *(b"", b"\0", b" ", b"\\", b"\\" * 1000, b"nan", b"inf", b"-inf", b"1e400", b"-1", b"1e-320", b"0\\0"),
            *(b"9" * 400, b"0.2\\0.2\\0.2", b"\xff" * 4, b"\xff\xfe", b"\x1b$B", b"ISO 2022 IR 87", b"MONOCHROME1"),
            *(b"PALETTE COLOR", b"YBR_FULL_422", b"RGB", b"SIGMOID", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"),
        ]
    ),
    st.binary(max_size=40),
)
KINDS = st.sampled_from([*b"AE AS AT CS DA DS DT FD FL IS LO LT OB OW OF PN SH SL SQ SS TM UI UL UN US UT ZZ".split()])
LENGTHS = st.sampled_from([0, 1, 2, 3, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFD, UNDEFINED])
SYNTAXES = st.one_of(
    st.sampled_from([syntax.encode() for syntax in (*uid.AllTransferSyntaxes, *uid.PrivateTransferSyntaxes)]),
    st.sampled_from([b"", b"1.2", b"not one at all", b"1.2.840.10008.1.2.1 "]),
)
MORE = (  # what no file below has, or not every one
    *((0x0008, 0x0005), (0x0028, 0x0004), (0x0028, 0x0006), (0x0028, 0x0008), (0x0028, 0x0030), (0x0018, 0x1114)),
    *((0x0028, 0x0120), (0x0028, 0x0121), (0x0028, 0x1050), (0x0028, 0x1051), (0x0028, 0x1052), (0x0028, 0x1053)),
    *((0x0028, 0x1055), (0x0028, 0x1056), (0x0028, 0x1101), (0x0028, 0x1201), (0x0028, 0x3000), (0x0028, 0x3010)),
    *((0x0018, 0x1164), (0x0018, 0x5101), (0x0054, 0x0220), (0x6000, 0x3000), (0x7FE0, 0x0001), (0x7FE0, 0x0002)),
    *((0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x0009, 0x0010), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD), (0x0010, 0x0020)),
)


def spoilt(elements: list[Element], how: str, draw) -> list[Element]:
    """One element is wrong."""
    at = draw(st.integers(0, len(elements) - 1))
    before, one, after = elements[:at], elements[at], elements[at + 1 :]
    if how == "value":
        one = element(one.tag, one.kind, draw(VALUES))
    elif how == "kind":
        one = one._replace(kind=draw(KINDS))
    elif how == "length":
        one = one._replace(length=draw(st.one_of(LENGTHS, st.just(max(0, len(one.value) + draw(st.integers(-9, 9)))))))
    elif how == "more":
        before = [*before, element(draw(st.sampled_from(MORE)), draw(KINDS), draw(VALUES))]
    elif how == "twice":
        after = [one, *after]
    elif how == "last":
        return [*before, *after, one]
    elif how == "gone":
        return [*before, *after]
    elif how == "deep":
        inner = nested(b"", draw(st.sampled_from([1, 10, 1000, 20_000])))
        before = [*before, Element((0x0008, 0x1140), b"SQ", inner, UNDEFINED)]
    return [*before, one, *after]


def with_pixels(elements: list[Element], draw) -> list[Element]:
    """Its pixels, or the frames they are packed in, are damaged."""
    where, amount = draw(st.one_of(st.floats(0, 0.999), st.floats(0, 0.1))), draw(st.integers(1, 400))
    how, junk = draw(st.sampled_from(HOW)), draw(st.binary(min_size=1, max_size=12))
    return [
        one._replace(value=changed(one.value or NAME, how, where, amount, junk)) if one.tag == PIXELS else one
        for one in elements
    ]


def with_syntax(elements: list[Element], draw) -> list[Element]:
    value = draw(SYNTAXES)
    return [element(one.tag, one.kind, value) if one.tag == (0x0002, 0x0010) else one for one in elements]


@st.composite
def hostile(draw, content: bytes) -> bytes:
    """A sound file with one to four things wrong."""
    elements = elements_of(content)
    ways = ("value", "value", "kind", "length", "more", "more", "twice", "last", "gone", "deep", "pixels", "syntax")
    for how in draw(st.lists(st.sampled_from(ways), min_size=1, max_size=4)):
        if elements:
            others = {"pixels": with_pixels, "syntax": with_syntax}
            elements = others[how](elements, draw) if how in others else spoilt(elements, how, draw)
    whole = content_of(elements, implicit=draw(st.booleans()) and draw(st.booleans()))
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 9)) == 0 else whole


# --- sound files


def scene() -> np.ndarray:
    y, x = np.mgrid[:40, :32]
    return (2000 + 1500 * np.sin(x / 9) * np.cos(y / 12)).astype(np.uint16)


def table(descriptor: list[int], values: list[int]) -> pydicom.Dataset:
    look_up = pydicom.Dataset()
    look_up.LUTDescriptor, look_up.LUTData = descriptor, values
    look_up["LUTDescriptor"].VR = look_up["LUTData"].VR = "US"
    return look_up


PACKED = ("RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless")


def sound_files(folder) -> dict[str, bytes]:
    who = {"PatientName": NAME.decode(), "PatientID": NAME.decode(), "StudyInstanceUID": "1.2.4", "Modality": "DX"}
    twelve = who | {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3000, "ImagerPixelSpacing": [0.2, 0.2]}
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 8]), ("Data", bytes(range(256))))
    }
    gray, low = scene(), (scene() >> 4).astype(np.uint8)
    return {
        "plain": dicom(gray, **twelve, RescaleSlope=1, RescaleIntercept=-1000, PixelPaddingValue=0),
        "signed": dicom(gray.astype(np.int16) - 2000, **who, VOILUTSequence=[table([4, 0, 8], [0, 80, 160, 255])]),
        "look-up": dicom(gray, **twelve, ModalityLUTSequence=[table([3, 0, 16], [30, 20, 10])]),
        "palette": dicom(low, **who, PhotometricInterpretation="PALETTE COLOR", **palette),
        "colour": dicom(np.stack([low] * 3, axis=-1), **who),
        "JPEG": transcoded(dicom(np.stack([low] * 3, axis=-1), **who), "JPEGBaselineProcess1", folder),
        **{syntax: transcoded(dicom(gray, **twelve), syntax, folder) for syntax in PACKED},
    }


KINDS_OF_FILES = ("plain", "signed", "look-up", "palette", "colour", "JPEG", *PACKED)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, bytes]:
    return sound_files(tmp_path_factory.mktemp("sound"))


def test_taken_apart_and_put_together_a_file_is_the_same(sound, tmp_path):
    for name, content in sound.items():
        assert content_of(elements_of(content)) == content, name
        assert is_image(placed(content, tmp_path), "window"), name


# --- fuzzing


def placed(content: bytes, folder: Path) -> Path:
    (folder / "hostile").write_bytes(content)
    return folder / "hostile"


def processor_seconds() -> float:
    return sum(os.times()[:4])  # of decoders that work in a process of their own, too


def is_image(file: Path, rendering: Rendering) -> bool:
    """Whether it can be shown; where not, one line says why, and names nobody."""
    start = processor_seconds()
    try:
        decoded = decode(file, SMALLEST_SIDE, rendering)
    except UnreadableImage as error:
        assert re.fullmatch(".{1,300}", str(error))
        assert "JANE" not in str(error)
        return False
    finally:
        assert processor_seconds() - start < SECONDS
    assert decoded.pixels.shape == decoded.stored
    assert decoded.pixel_mm is None or all(0 < side < math.inf for side in decoded.pixel_mm)
    return True


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_a_file_spoilt_tag_by_tag_is_an_image_or_says_why_not(kind, sound, tmp_path):
    @settings(fuzzed, max_examples=10 * EXAMPLES)
    @given(content=hostile(sound[kind]), rendering=st.sampled_from(get_args(Rendering)))
    def check(content, rendering):
        is_image(placed(content, tmp_path), rendering)

    check()


def packed(folder: Path) -> set[str]:
    """The hashes of what a folder shows; empty where one clear line says why there is nothing."""
    try:
        table = folder_of_dicom.read(folder, folder_of_dicom.Config(patient_tags=["sex", "age"]))
    except UserError as error:
        assert "\n" not in str(error)
        return set()
    assert not table.drop(columns="path").map(lambda value: "JANE" in str(value)).any(axis=None)
    _, notes = Squares(Form("dicom", {}, 16), folder)(table.to_dict("records"))
    return {note["content_hash"] for note in notes if "reason" not in note}


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_a_spoilt_file_takes_no_other_with_it(kind, sound, tmp_path):
    (tmp_path / "sound").write_bytes(dicom(scene()[::-1], SOPInstanceUID="1.2.9"))
    expected = packed(tmp_path)
    assert len(expected) == 1

    @fuzzed
    @given(content=hostile(sound[kind]))
    def check(content):
        placed(content, tmp_path)
        assert expected <= packed(tmp_path)

    check()


# --- bombs

LENGTH = 1 << 23  # bytes of each; larger ones take as much more time and memory where nothing stops them


def with_one(elements: list[Element], one: Element) -> list[Element]:
    return sorted([*(other for other in elements if other.tag != one.tag), one], key=lambda element: element.tag)


def with_one_value(content: bytes, tag: tuple[int, int], value: bytes) -> bytes:
    """Implicit, where every value may have gigabytes."""
    syntax = element((0x0002, 0x0010), b"UI", uid.ImplicitVRLittleEndian.encode())
    return content_of(with_one(with_one(elements_of(content), syntax), element(tag, b"UN", value)), implicit=True)


def with_pixel_value(content: bytes, value: bytes) -> bytes:
    return content_of([one._replace(value=value) if one.tag == PIXELS else one for one in elements_of(content)])


def deflated(length: int) -> bytes:
    content = dicom(scene(), syntax=uid.DeflatedExplicitVRLittleEndian)
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return content[: 144 + struct.unpack_from("<I", content, 140)[0]] + packer.compress(bytes(length)) + packer.flush()


EMPTY_ITEM = b"\xfe\xff\x00\xe0" + bytes(4)
BOMBS = {
    "window": lambda sound: with_one_value(sound["plain"], (0x0028, 0x1050), b"1\\" * (LENGTH // 2)),
    "window-within-limits": lambda sound: with_one_value(sound["plain"], (0x0028, 0x1050), b"1\\" * (LENGTH // 10)),
    "identifier": lambda sound: with_one_value(sound["plain"], (0x0008, 0x0018), b"1\\" * (LENGTH // 10)),
    "character-set": lambda sound: with_one_value(sound["plain"], (0x0008, 0x0005), b"1\\" * (LENGTH // 2)),
    "sequence": lambda sound: content_of(
        with_one(elements_of(sound["plain"]), Element((0x0008, 0x1140), b"SQ", EMPTY_ITEM * (LENGTH // 8), UNDEFINED))
    ),
    "fragments": lambda sound: with_pixel_value(sound["RLELossless"], EMPTY_ITEM * (LENGTH // 8)),
    "deflated": lambda sound: deflated(256 * LENGTH),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_takes_neither_time_nor_memory(kind, sound, tmp_path):
    file = placed(BOMBS[kind](sound), tmp_path)
    with limited(1 << 30):
        is_image(file, "window")
        packed(tmp_path)


def test_a_file_without_end_is_read_no_further_than_its_tags(tmp_path):
    file = placed(content_of([element((0x0008, 0x0008), b"OB", b"")._replace(length=UNDEFINED)]), tmp_path)
    os.truncate(file, 1 << 40)  # sparse: a terabyte that takes no room
    assert not is_image(file, "window")
    assert packed(tmp_path) == set()
