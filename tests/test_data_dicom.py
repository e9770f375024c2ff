"""DICOM: stored numbers become the gray levels that they stand for, or a reason why not. Expected values by hand."""

import io
import os
import struct
import sys
import tracemalloc

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from chexmsn.core.errors import UserError
from chexmsn.data._apart import WorkDied, array_apart
from chexmsn.data.decode import decode
from chexmsn.data.dicom import decode_dicom, equalisation, is_cut_off, is_dicom, windowed
from chexmsn.data.image import UnreadableImage
from dicom_files import dataset, dicom, transcoded, written


def block(values, dtype=np.uint16) -> np.ndarray:
    """16 x 16 pixels that repeat these numbers."""
    return np.resize(np.array(values, dtype), (16, 16))


def shown(values, rendering="window", dtype=np.uint16, **tags) -> list[int]:
    """The gray levels of these numbers."""
    return decode_dicom(dicom(block(values, dtype), **tags), rendering).pixels.ravel()[: len(values)].tolist()


def scene(height=96, width=80) -> np.ndarray:
    """12 bits, smooth with some noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 20, x.shape)
    return (2000 + 1500 * np.sin(x / 30) * np.cos(y / 40) + noise).astype(np.uint16)


# --- window


def test_without_a_window_the_whole_range_is_shown():
    assert shown([100, 150, 200, 300]) == [0, 16384, 32768, 65535]
    assert shown([100, 150, 200, 228], dtype=np.uint8) == [0, 100, 199, 255]


def test_eight_stored_bits_give_eight():
    assert decode_dicom(dicom(block([0, 255]), BitsStored=8)).pixels.dtype == np.uint8
    assert decode_dicom(dicom(block([0, 4095]), BitsStored=12)).pixels.dtype == np.uint16


WINDOWS = {
    # (x - (c - 0.5)) / (w - 1) + 0.5 with c = 100, w = 101: 49.5 is black, 149.5 white
    "LINEAR": ([0, 49, 50, 75, 100, 149, 150], [0, 0, 328, 16711, 33095, 65207, 65535], 101),
    # (x - c) / w + 0.5 with c = 100, w = 100
    "LINEAR_EXACT": ([0, 50, 75, 100, 150], [0, 0, 16384, 32768, 65535], 100),
    # 1 / (1 + exp(-4 (x - c) / w)): 1 / (1 + e^2) is .119203, 1 / (1 + e) is .268941
    "SIGMOID": ([50, 75, 100, 125, 150], [7812, 17625, 32768, 47910, 57723], 100),
}


@pytest.mark.parametrize("function", WINDOWS)
def test_windows_have_the_shape_that_the_standard_gives_them(function):
    numbers, expected, width = WINDOWS[function]
    window = {"WindowCenter": 100, "WindowWidth": width, "VOILUTFunction": function}
    assert shown(numbers, **window) == expected


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom(function):
    image = dataset(block([0]), WindowCenter=1800, WindowWidth=900, VOILUTFunction=function, BitsStored=12)
    numbers = np.arange(4096)
    theirs = apply_windowing(numbers, image) / 4095
    ours = windowed(numbers.astype(float), 1800.0, 900.0, function).clip(0, 1)
    assert np.abs(ours - theirs).max() < 1e-12


def test_of_several_windows_the_first_counts_and_one_without_width_does_not():
    assert shown([0, 50, 100], WindowCenter=[50, 9], WindowWidth=[101, 2]) == shown(
        [0, 50, 100], WindowCenter=50, WindowWidth=101
    )
    assert shown([0, 50, 100], WindowCenter=50, WindowWidth=0) == [0, 32768, 65535]
    assert shown([99, 100, 101], WindowCenter=100.5, WindowWidth=1) == [0, 32768, 65535]


def test_rescaling_comes_before_the_window():
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 100, "WindowWidth": 200}
    assert shown([50, 100, 150], VOILUTFunction="LINEAR_EXACT", **rescaled) == [0, 32768, 65535]
    assert shown([1, 2, 3], RescaleSlope=-1, RescaleIntercept=0) == [65535, 32768, 0]


def test_a_look_up_table_goes_before_a_window():
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4, 10, 8], [0, 51, 102, 255]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    numbers = [9, 10, 11, 12, 13, 99]  # below and above it the first and last entry holds
    values = shown(numbers, VOILUTSequence=[table], WindowCenter=1, WindowWidth=9)
    assert values == [0, 0, 13107, 26214, 65535, 65535]


def test_a_modality_table_replaces_the_numbers():
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [3, 0, 16], [30, 20, 10]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    assert shown([0, 1, 2], ModalityLUTSequence=[table]) == [65535, 32768, 0]


# --- polarity, padding, bits


def test_monochrome1_shows_its_lowest_number_white():
    assert shown([0, 1, 2], PhotometricInterpretation="MONOCHROME1") == [65535, 32768, 0]


RENDERINGS = st.sampled_from(["window", "mimic-cxr-jpg"])


@settings(max_examples=40)
@given(numbers=arrays(np.uint16, (16, 16), elements=st.integers(0, 4095)), windows=st.booleans())
def test_what_monochrome1_turns_over_looks_the_same(numbers, windows):
    window = {"WindowCenter": 1000, "WindowWidth": 800, "VOILUTFunction": "LINEAR_EXACT"} if windows else {}
    turned = {"WindowCenter": 4095 - 1000} if windows else {}
    plain = decode_dicom(dicom(numbers, BitsStored=12, **window)).pixels.astype(int)
    mirrored = dicom(4095 - numbers, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **(window | turned))
    if numbers.min() < numbers.max() or windows:  # one number alone is black, whichever way round
        assert np.abs(decode_dicom(mirrored).pixels - plain).max() <= 1


@settings(max_examples=40)
@given(
    numbers=arrays(np.uint16, (16, 16)),
    center=st.floats(-1000, 70000),
    width=st.floats(1, 70000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_a_higher_number_is_never_darker(numbers, center, width, function):
    window = {"WindowCenter": f"{center:.3f}", "WindowWidth": f"{width:.3f}", "VOILUTFunction": function}
    gray = decode_dicom(dicom(numbers, **window)).pixels
    assert (np.diff(gray.ravel()[numbers.ravel().argsort()].astype(int)) >= 0).all()


def test_padding_is_black_and_left_out_of_the_range():
    assert shown([0, 1000, 1500, 2000], PixelPaddingValue=0) == [0, 0, 32768, 65535]
    padded = {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 4095}
    assert shown([1000, 2000, 3000, 4000], **padded) == [0, 65535, 0, 0]
    turned = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    assert shown([0, 1000, 1500, 2000], **turned) == [0, 65535, 32768, 0]


def test_padding_of_signed_numbers_is_known_even_where_it_lost_its_sign():
    image = dataset(block([-2000, 0, 50, 100], np.int16))
    image.add_new("PixelPaddingValue", "US", 63536)  # -2000 as two's complement
    assert decode_dicom(written(image)).pixels.ravel()[:4].tolist() == [0, 0, 32768, 65535]


def test_an_image_of_padding_alone_is_black():
    assert set(shown([7, 7], PixelPaddingValue=7)) == {0}


def test_signed_numbers():
    assert shown([-100, 0, 100], dtype=np.int16) == [0, 32768, 65535]
    assert shown([-2048, 0, 2047], dtype=np.int16, BitsStored=12) == [0, 32776, 65535]


def test_bits_beside_the_number_do_not_count():
    overlay = block([0, 2000, 4095]) | 0xA000
    assert shown(overlay.ravel()[:3], BitsStored=12) == [0, 32007, 65535]
    left_justified = block([0, 2000, 4095]) << 4 | 0x5
    assert shown(left_justified.ravel()[:3], BitsStored=12, HighBit=15) == [0, 32007, 65535]
    negative = block([-2048, 2047], np.int16) & 0x0FFF  # without the sign above the twelfth bit
    assert shown(negative.ravel()[:2], dtype=np.int16, BitsStored=12) == [0, 65535]


def test_planes_of_overlays_are_not_drawn():
    image = dataset(block([10, 20]))
    for element, kind, value in ((0x0010, "US", 16), (0x0011, "US", 16), (0x3000, "OW", b"\xff" * 32)):
        image.add_new((0x6000, element), kind, value)
    assert decode_dicom(written(image)).pixels.ravel()[:2].tolist() == [0, 65535]


# --- as MIMIC-CXR-JPG


def test_equalisation_of_a_small_image_by_hand():
    # 0, 100, 200, 300 to 8 bits, cut off: 0, 85, 170, 255. Each is a quarter; the darkest is left out of the count,
    # so the three others end at a third, two thirds and all of 255.
    assert shown([0, 100, 200, 300], "mimic-cxr-jpg") == [0, 85, 170, 255]
    # 128 of 256 pixels are 0; 64 each are 10 and 20, that is 127 and 255: half and all of 255 after equalisation
    assert shown([0, 0, 10, 20], "mimic-cxr-jpg") == [0, 0, 128, 255]


def test_equalisation_after_polarity():
    turned = {"PhotometricInterpretation": "MONOCHROME1"}
    # 255, 255, 128, 0 after polarity; of the 192 pixels above the darkest, 64 are up to 128, all up to 255
    assert shown([0, 0, 10, 20], "mimic-cxr-jpg", **turned) == [255, 255, 85, 0]


def test_its_window_rescaling_and_padding_are_not_looked_at():
    tags = {"WindowCenter": 3, "WindowWidth": 2, "RescaleSlope": 5, "RescaleIntercept": 7, "PixelPaddingValue": 0}
    assert shown([0, 0, 10, 20], "mimic-cxr-jpg", **tags) == [0, 0, 128, 255]


def test_equalisation_is_that_of_opencv():
    """Frozen from cv2.equalizeHist of OpenCV 5.0.0 on this image."""
    image = np.clip(np.random.default_rng(7).normal(90, 30, (64, 64)), 0, 255).astype(np.uint8)
    table = equalisation(np.bincount(image.ravel(), minlength=256))
    assert table[[40, 60, 75, 90, 105, 120, 150]].tolist() == [12, 44, 83, 134, 181, 218, 250]
    assert table[image].astype(int).sum() == 526946


def test_one_gray_level_stays_what_it_is():
    assert equalisation(np.bincount([9] * 5, minlength=256))[9] == 9
    assert set(shown([7, 7], "mimic-cxr-jpg")) == {0}


# --- colour


def test_colour_becomes_luma_and_is_not_windowed():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = [255, 0, 0]
    gray = decode_dicom(dicom(pixels, WindowCenter=10, WindowWidth=5)).pixels
    assert (gray[0, 0], gray[8, 0]) == (76, 0)  # 0.299 * 255


def test_ybr_is_turned_into_gray_by_its_colours():
    pixels = np.full((16, 16, 3), 128, np.uint8)
    pixels[..., 0] = 77
    assert decode_dicom(dicom(pixels, PhotometricInterpretation="YBR_FULL")).pixels[0, 0] == 77


def test_a_palette_is_looked_up():
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [4, 0, 8]), ("Data", bytes([0, 100, 200, 255])))
    }
    values = shown([0, 1, 2, 3], dtype=np.uint8, PhotometricInterpretation="PALETTE COLOR", **palette)
    assert values == [0, 100, 200, 255]


# --- how it is written

LOSSLESS = ("RLELossless", "JPEGLosslessProcess14_1", "JPEGLosslessProcess14", "JPEGLSLossless", "JPEG2000Lossless")


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("kind", ["12 bits", "8 bits"])
def test_lossless_compression_changes_nothing(syntax, kind, tmp_path):
    numbers, bits = (scene(), 12) if kind == "12 bits" else ((scene() >> 4).astype(np.uint8), 8)
    plain = dicom(numbers, BitsStored=bits, WindowCenter=2 ** (bits - 1), WindowWidth=2**bits)
    packed = transcoded(plain, syntax, tmp_path)
    assert packed != plain
    assert np.array_equal(decode_dicom(packed).pixels, decode_dicom(plain).pixels)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless"])
def test_signed_numbers_in_compression(syntax, tmp_path):
    plain = dicom(scene().astype(np.int16) - 2000)
    assert np.array_equal(decode_dicom(transcoded(plain, syntax, tmp_path)).pixels, decode_dicom(plain).pixels)


def test_without_gdcm_what_it_decodes_is_refused_and_not_left_out_as_damaged(monkeypatch, tmp_path):
    file = transcoded(dicom(scene()), "JPEGLSLossless", tmp_path)
    monkeypatch.setitem(sys.modules, "gdcm", None)
    with pytest.raises(UserError, match=r"needs the library gdcm, which is missing: pip install chexmsn"):
        decode_dicom(file)


@pytest.mark.parametrize("syntax", ["JPEGBaselineProcess1", "JPEG2000", "JPEGLSNearLossless"])
def test_lossy_compression_is_close(syntax, tmp_path):
    plain = dicom((scene() >> 4).astype(np.uint8))
    decoded = [decode_dicom(content).pixels.astype(int) for content in (plain, transcoded(plain, syntax, tmp_path))]
    assert np.abs(decoded[0] - decoded[1]).mean() < 2


def test_colour_jpeg(tmp_path):
    pixels = np.stack([(scene() >> 4).astype(np.uint8)] * 3, axis=-1)
    image = pydicom.dcmread(io.BytesIO(transcoded(dicom(pixels), "JPEGBaselineProcess1", tmp_path)))
    image.PhotometricInterpretation = "YBR_FULL_422"  # which it is; GDCM leaves RGB there
    assert np.abs(decode_dicom(written(image)).pixels.astype(int) - pixels[..., 0]).mean() < 3


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_ways_to_write_plain_numbers(syntax):
    numbers = scene()
    stored = numbers.astype(">u2") if syntax == ExplicitVRBigEndian else numbers
    image = dataset(numbers, PixelData=stored.tobytes(), syntax=syntax)
    image["PixelData"].VR = "OW"
    assert np.array_equal(decode_dicom(written(image)).pixels, decode_dicom(dicom(numbers)).pixels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, None])
@pytest.mark.parametrize("head", ["with a head", "without any"])
def test_files_without_preamble(syntax, head):
    numbers = scene()
    how = {} if syntax is None else {"syntax": syntax}
    whole = dicom(numbers, **how)
    meta = 144 + int.from_bytes(whole[140:144], "little")  # the length of group 2 is its first value
    bare = whole[132:] if head == "with a head" else whole[meta:]
    assert is_dicom(bare)
    assert np.array_equal(decode_dicom(bare).pixels, decode_dicom(whole).pixels)


def test_any_source_may_list_dicom_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(dicom(block([0, 0, 10, 20])))
    assert decode(tmp_path / "a.jpg", 16).pixels.ravel()[:4].tolist() == [0, 0, 32768, 65535]
    assert decode(tmp_path / "a.jpg", 16, "mimic-cxr-jpg").pixels.ravel()[:4].tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"text of any kind", b"GIF89a"])
def test_other_files_are_not_taken_for_dicom(content):
    assert not is_dicom(content + bytes(200))


# --- size of a pixel


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.3, 0.3]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.3, 0.15]}, (0.3, 0.15)),
        ({"ImagerPixelSpacing": [0.3, 0.15], "EstimatedRadiographicMagnificationFactor": 1.5}, (0.2, 0.1)),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": ["9e999", 1]}, None),
    ],
)
def test_size_of_a_pixel(tags, expected):
    decoded = decode_dicom(dicom(scene(), **tags))
    assert decoded.stored == (96, 80)
    assert decoded.pixel_mm == (expected if expected is None else pytest.approx(expected))


# --- what is refused

REFUSED = {
    "no Rows": ({"Rows": None}, "DICOM without Rows$"),
    "no pixels": ({"PixelData": None}, "DICOM without PixelData"),
    "several tags": ({"BitsStored": None, "HighBit": None, "PhotometricInterpretation": None}, "Photo.*, BitsStored"),
    "frames": ({"NumberOfFrames": 12}, "12 frames"),
    "bits": ({"BitsAllocated": 32, "BitsStored": 32}, "32 of 32 bits"),
    "kind": ({"PhotometricInterpretation": "HSV"}, "1 samples of 'HSV'"),
    "samples": ({"SamplesPerPixel": 4}, "4 samples"),
    "small": ({"Rows": 3}, "only 80 x 3 pixels"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "more than 89 million"),
    "short": ({"PixelData": bytes(100)}, "damaged DICOM"),
    "slope": ({"RescaleSlope": "nan", "RescaleIntercept": "0"}, "damaged DICOM|no numbers"),
}


@pytest.mark.filterwarnings("ignore")  # pydicom remarks on what is written here
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_shown_says_why(case):
    tags, reason = REFUSED[case]
    with pytest.raises(UnreadableImage, match=reason):
        decode_dicom(dicom(scene(), **({"BitsStored": 16} | tags)))


def test_absurd_sizes_take_no_memory():
    content = dicom(scene(), Rows=65535, Columns=65535)
    tracemalloc.start()
    with pytest.raises(UnreadableImage):
        decode_dicom(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_deflated_files_are_refused_unopened():
    with pytest.raises(UnreadableImage, match="deflated"):
        decode_dicom(dicom(scene(), syntax=DeflatedExplicitVRLittleEndian))


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"])
def test_a_frame_of_another_size_than_its_tags_say(syntax, tmp_path):
    content = transcoded(dicom(scene()), syntax, tmp_path)
    rows = b"\x28\x00\x10\x00US\x02\x00"
    with pytest.raises(UnreadableImage, match=r"\(48, 80, 1\).* \(96, 80, 1\) in its pixels"):
        decode_dicom(content.replace(rows + struct.pack("<H", 96), rows + struct.pack("<H", 48)))


def test_what_is_written_in_a_way_that_is_not_read_says_so(tmp_path):
    lossy = transcoded(dicom(scene(), BitsStored=12), "JPEGExtendedProcess2_4", tmp_path)
    with pytest.raises(UnreadableImage, match=r"^DICOM in lossy JPEG of 12 bits, which is not read"):
        decode_dicom(lossy)
    with pytest.raises(UnreadableImage, match=r"^DICOM written as MPEG2 .*, which is not read"):
        decode_dicom(dicom(scene(), syntax=MPEG2MPML, PixelData=encapsulate([bytes(100)])))


def test_runs_that_unfold_without_end_are_refused_before_memory_is_taken(tmp_path):
    content = transcoded(dicom(np.zeros((300, 300), np.uint16)), "RLELossless", tmp_path)
    image = pydicom.dcmread(io.BytesIO(content))
    head = struct.pack("<16I", 2, 64, 64, *[0] * 13)
    image.PixelData = encapsulate([head + bytes([129, 0]) * 80_000])  # 10 MB for 90,000 pixels
    content = written(image)
    tracemalloc.start()
    with pytest.raises(UnreadableImage, match="its runs unfold to more than its pixels"):
        decode_dicom(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * len(content)


def test_a_frame_that_ends_its_decoder_does_not_end_this_process(tmp_path):
    """The second marker destroyed: GDCM calls abort()."""
    content = bytearray(transcoded(dicom(scene(), BitsStored=12), "JPEGLosslessProcess14_1", tmp_path))
    start = content.find(b"\xff\xd8\xff")
    content[start + 15] = 0
    assert JPEGLosslessSV1.encode() in content
    with pytest.raises(UnreadableImage, match="damaged DICOM: the process of the decoder ended"):
        decode_dicom(bytes(content))


def test_work_apart_gives_its_array_or_dies():
    assert np.array_equal(array_apart(lambda: scene(), 2 * 96 * 80), scene())
    for work in (os.abort, lambda: 1 / 0, lambda: np.zeros(10_000)):
        with pytest.raises(WorkDied):
            array_apart(work, 16)


PLAIN = dicom(scene(), BitsStored=12, WindowCenter=2000, WindowWidth=3000)


@settings(max_examples=150)
@given(
    cut=st.integers(0, len(PLAIN)),
    damage=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=6),
    rendering=RENDERINGS,
)
@pytest.mark.filterwarnings("ignore")  # pydicom remarks on what is damaged; `decode` silences it
def test_no_damage_gets_out_as_anything_but_unreadable(cut, damage, rendering):
    content = bytearray(PLAIN)
    for place, value in damage:
        content[place] = value
    try:
        decoded = decode_dicom(bytes(content[: cut or None]), rendering)
    except UnreadableImage as error:
        assert str(error)
        assert "\n" not in str(error)
    else:
        assert decoded.pixels.dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize("syntax", [None, "ImplicitVRLittleEndian", "JPEGLSLossless", "RLELossless"])
def test_a_file_that_ends_before_its_pixels_is_cut_off(syntax, tmp_path):
    plain = dicom(scene())
    whole = transcoded(plain, syntax, tmp_path) if syntax else plain
    assert not is_cut_off(io.BufferedReader(io.BytesIO(whole)), len(whole))
    for lost in (9, len(whole) // 4):
        part = whole[:-lost]
        assert is_cut_off(io.BufferedReader(io.BytesIO(part)), len(part))


@pytest.mark.parametrize(
    "content", [b"", dicom(np.zeros((64, 64), np.uint8))[:300], dicom(np.zeros((64, 64), np.uint8), Rows=None)]
)
def test_of_what_tells_no_size_nothing_is_said(content):
    assert not is_cut_off(io.BufferedReader(io.BytesIO(content)), len(content))
