"""DICOM files as lists of their elements, so that a test can spoil one and leave the rest as it was."""

import struct
from typing import NamedTuple

UNDEFINED = 0xFFFFFFFF
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Representations whose length has four bytes."""

END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0" + bytes(4)


class Element(NamedTuple):
    """One element as it is written; `length` is what its head says, right or wrong."""

    tag: tuple[int, int]
    kind: bytes
    value: bytes
    length: int


def element(tag: tuple[int, int], kind: bytes, value: bytes) -> Element:
    return Element(tag, kind, value, len(value))


def elements_of(content: bytes) -> list[Element]:
    """Those of a sound file, explicit and little endian, after its preamble."""
    found, at = [], 132
    while at < len(content):
        group, number, kind = struct.unpack_from("<HH2s", content, at)
        head, length = (12, "<I") if kind in LONG else (8, "<H")
        (told,) = struct.unpack_from(length, content, at + head - struct.calcsize(length))
        end = len(content) - len(END_OF_SEQUENCE) if told == UNDEFINED else at + head + told
        found.append(Element((group, number), kind, content[at + head : end], told))
        at = end + len(END_OF_SEQUENCE) * (told == UNDEFINED)
    return found


def content_of(elements: list[Element], implicit: bool = False) -> bytes:
    """A file of these elements; what describes the file itself (group 2) is never implicit."""
    written = (_written(one, implicit and one.tag[0] != 2) for one in elements)
    return bytes(128) + b"DICM" + b"".join(written)


def _written(one: Element, implicit: bool) -> bytes:
    tag, end = struct.pack("<HH", *one.tag), END_OF_SEQUENCE if one.length == UNDEFINED else b""
    if implicit:
        return tag + struct.pack("<I", one.length) + one.value + end
    if one.kind in LONG:
        return tag + one.kind + struct.pack("<HI", 0, one.length) + one.value + end
    return tag + one.kind + struct.pack("<H", one.length & 0xFFFF) + one.value + end


def nested(inner: bytes, depth: int) -> bytes:
    """`inner` as the one item of a sequence in the one item of a sequence ..., none of which says how long it is."""
    item, end_of_item = b"\xfe\xff\x00\xe0" + b"\xff" * 4, b"\xfe\xff\x0d\xe0" + bytes(4)
    sequence = b"\x08\x00\x40\x11SQ\0\0" + b"\xff" * 4
    return depth * (item + sequence) + item + inner + end_of_item + depth * (END_OF_SEQUENCE + end_of_item)
