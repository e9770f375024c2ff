"""Files of all kinds become upright 8-bit gray, or say why not; squares keep what they promise."""

import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from chexmsn.data.decode import (
    UnreadableImage,
    decode,
    enough_for,
    fit_square,
    medfuse_resize,
    shrinkage,
    to_depth,
)


def ramp(height=80, width=120) -> np.ndarray:
    """Brighter to the right, a little brighter downwards."""
    return (np.linspace(0, 200, width)[None, :] + np.linspace(0, 50, height)[:, None]).astype(np.uint8)


def saved(tmp_path, image, name="image.png", **how):
    path = tmp_path / name
    image.save(path, **how)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_png_of_any_mode_is_its_luma(tmp_path, mode):
    decoded = decode(saved(tmp_path, Image.fromarray(ramp()).convert(mode)), enough=16)
    assert np.array_equal(decoded.pixels, ramp())
    assert decoded.stored == (80, 120)


def test_transparency_changes_nothing(tmp_path):
    image = Image.fromarray(ramp()).convert("RGBA")
    image.putalpha(10)
    assert np.array_equal(decode(saved(tmp_path, image), 16).pixels, ramp())


def test_colour_becomes_luma(tmp_path):
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    assert decode(saved(tmp_path, red), 16).pixels[0, 0] == 76  # 0.299 * 255
    assert abs(int(decode(saved(tmp_path, red, "a.jpg", quality=95), 16).pixels[0, 0]) - 76) <= 2


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_any_mode(tmp_path, mode):
    path = saved(tmp_path, Image.fromarray(ramp()).convert("RGB").convert(mode), "image.jpg", quality=97)
    assert np.abs(decode(path, 80).pixels.astype(int) - ramp()).mean() < 2


def test_16_bits_are_scaled_by_the_image_s_own_range(tmp_path):
    twelve_bit = (ramp().astype(np.uint16) * 16) + 100
    pixels = decode(saved(tmp_path, Image.fromarray(twelve_bit)), 16).pixels
    assert pixels.dtype == np.uint16
    assert pixels.min() == 0
    assert pixels.max() == 65535
    expected = (ramp() - ramp().min()) / (ramp().max() - ramp().min()) * 65535
    assert np.abs(pixels - expected).max() <= 1


def test_alpha_and_palettes_with_transparency_are_noted(tmp_path):
    plain, clear = Image.fromarray(ramp()), Image.fromarray(ramp()).convert("P")
    assert not decode(saved(tmp_path, plain), 16).alpha
    assert decode(saved(tmp_path, plain.convert("LA")), 16).alpha
    decoded = decode(saved(tmp_path, clear, transparency=3), 16)
    assert decoded.alpha
    assert np.array_equal(decoded.pixels, ramp())


def test_a_palette_of_colours_is_its_luma(tmp_path):
    image = Image.new("P", (32, 32))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 32, 16))
    assert decode(saved(tmp_path, image), 16).pixels[[0, 31], 0].tolist() == [150, 76]


def test_16_bits_stand_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    deep = np.arange(32 * 40, dtype=np.uint16).reshape(32, 40) * 51
    decoded = decode(saved(tmp_path, Image.fromarray(np.ascontiguousarray(np.rot90(deep))), exif=exif), 16)
    assert decoded.pixels.dtype == np.uint16
    assert np.abs(decoded.pixels.astype(float) - deep * (65535 / deep.max())).max() <= 1


@given(values=arrays(np.uint16, (5, 7)))
def test_8_bits_are_the_nearest_of_16_and_white_stays_white(values):
    eight = to_depth(values, np.dtype(np.uint8))
    assert np.abs(eight * 257.0 - values).max() <= 128
    again = to_depth(eight, np.dtype(np.uint16))
    assert np.array_equal(to_depth(again, np.dtype(np.uint8)), eight)


@given(height=st.integers(16, 200), width=st.integers(16, 200), fit=st.sampled_from(["crop", "stretch", "pad"]))
def test_a_square_of_16_bits_is_that_of_8_only_finer(height, width, fit):
    deep = to_depth(ramp(height, width), np.dtype(np.uint16))
    fine, coarse = fit_square(deep, 32, fit), fit_square(ramp(height, width), 32, fit)
    assert fine.dtype == np.uint16
    assert np.abs(fine / 257 - coarse).max() <= 1.01  # Pillow rounds after each of the two axes


def test_16_bits_of_one_value_are_black(tmp_path):
    assert decode(saved(tmp_path, Image.fromarray(np.full((32, 32), 700, np.uint16))), 16).pixels.max() == 0


def test_a_large_jpeg_is_decoded_smaller_but_large_enough(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp(1600, 2000)), "large.jpg", quality=95)
    decoded = decode(path, enough=300)
    assert decoded.stored == (1600, 2000)
    assert 300 <= min(decoded.pixels.shape) < 600
    whole = decode(path, enough=1600)
    assert whole.pixels.shape == (1600, 2000)
    small = [fit_square(image.pixels, 64, "stretch").astype(int) for image in (decoded, whole)]
    assert np.abs(small[0] - small[1]).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_exif_orientation_is_undone(tmp_path, orientation, name):
    undo = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1),  # shown after a quarter turn to the right, so stored turned to the left
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = np.ascontiguousarray(undo.get(orientation, lambda a: a)(ramp()))
    decoded = decode(saved(tmp_path, Image.fromarray(stored), name, exif=exif), 80)
    assert decoded.stored == ramp().shape
    assert np.abs(decoded.pixels.astype(int) - ramp()).mean() < 3


def test_the_content_counts_and_not_the_name(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(ramp()).save(buffer, "PNG")
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(buffer.getvalue())
    assert np.array_equal(decode(path, 16).pixels, ramp())


def png_bytes():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg_bytes():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


UNREADABLE = {
    "empty": (b"", "empty file"),
    "text": (b"not an image at all, though it is called .jpg", "neither JPEG, PNG nor DICOM"),
    "truncated JPEG": (jpeg_bytes()[:1500], "."),
    "truncated PNG": (png_bytes()[:1500], "."),
    "JPEG head alone": (jpeg_bytes()[:20], "."),
    "damaged PNG": (png_bytes()[:200] + bytes(300) + png_bytes()[500:], "."),
    "GIF": (b"GIF89a" + bytes(100), "neither JPEG, PNG nor DICOM"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_says_why(tmp_path, kind):
    content, reason = UNREADABLE[kind]
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        decode(path, 16)


def test_what_is_no_file_or_too_large_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait forever
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(UnreadableImage, match="no file"):
            decode(path, 16)
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(UnreadableImage, match=r"a file of 3\.0 GB"):
        decode(tmp_path / "huge.png", 16)


def test_a_jpeg_made_to_take_forever_is_refused(tmp_path):
    path = tmp_path / "scans.jpg"
    Image.fromarray(ramp()).save(path, progressive=True)
    path.write_bytes(path.read_bytes()[:-2] + bytes.fromhex("ffda0008010100003f0000") * 501 + b"\xff\xd9")
    with pytest.raises(UnreadableImage, match="more than 500 scans"):
        decode(path, 16)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        decode(tmp_path / "nowhere.png", 16)


def test_absurd_sizes_are_refused(tmp_path):
    with pytest.raises(UnreadableImage, match="only 3 x 40"):
        decode(saved(tmp_path, Image.new("L", (3, 40))), 16)
    for side in (9_500, 14_000):  # where Pillow warns, and where it raises
        with pytest.raises(UnreadableImage, match="89 million"):
            decode(saved(tmp_path, Image.new("1", (side, side))), 16)


@given(
    cut=st.integers(0, 5000), at=st.integers(0, 5000), value=st.integers(0, 255), kind=st.sampled_from(["png", "jpg"])
)
def test_no_damage_gets_out_as_anything_but_unreadable(tmp_path_factory, cut, at, value, kind):
    content = bytearray(png_bytes() if kind == "png" else jpeg_bytes())
    content[at % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: cut or None])
    try:
        decoded = decode(path, 16)
    except UnreadableImage as error:
        assert str(error)
    else:
        assert decoded.pixels.dtype == np.uint8


sides = st.integers(16, 200)
fits = st.sampled_from(["crop", "stretch", "pad"])


@given(height=sides, width=sides, size=st.integers(16, 64), fit=fits, value=st.integers(0, 255))
def test_a_square_has_its_size_and_a_flat_image_stays_flat(height, width, size, fit, value):
    square = fit_square(np.full((height, width), value, np.uint8), size, fit)
    assert square.shape == (size, size)
    assert set(np.unique(square)) <= ({0, value} if fit == "pad" else {value})


@given(height=sides, width=sides, size=st.integers(16, 64))
def test_fits_agree_on_squares_and_differ_as_they_say(height, width, size):
    image = ramp(height, width)
    side = min(height, width)
    same = [fit_square(image[:side, :side], size, fit) for fit in ("crop", "stretch", "pad")]
    assert np.array_equal(same[0], same[1])
    assert np.array_equal(same[0], same[2])
    stretched = fit_square(image, size, "stretch")
    assert abs(float(stretched.mean()) - float(image.mean())) < 4


@given(height=sides, width=sides, size=st.integers(16, 64), fit=fits)
def test_mirrored_images_become_mirrored_squares(height, width, size, fit):
    image = ramp(height, width)
    mirrored = fit_square(np.ascontiguousarray(image[:, ::-1]), size, fit)[:, ::-1]
    square = fit_square(image, size, fit)
    if fit == "pad" and (size - round(width * size / max(height, width))) % 2:
        return  # an odd margin lies on one side by one pixel more
    assert np.abs(mirrored.astype(int) - square).max() <= 1


@pytest.mark.parametrize(("shape", "height"), [((900, 700), 658), ((301, 1201), 128)])
def test_medfuse_is_its_program_and_then_the_centre(tmp_path, shape, height):
    film = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    path = saved(tmp_path, Image.fromarray(film).resize(shape[::-1]), "film.jpg", quality=95)
    Image.open(path).resize((512, height)).save(tmp_path / "resized.jpg")  # as theirs: filter and quality not named
    resized = np.asarray(Image.open(tmp_path / "resized.jpg"))
    decoded = decode(path, enough_for(256, "medfuse"))
    assert np.array_equal(medfuse_resize(decoded.pixels), resized)
    assert np.array_equal(fit_square(decoded.pixels, 64, "medfuse"), fit_square(resized, 64, "crop"))
    assert shrinkage(decoded.stored, 64, "medfuse") == shrinkage(decoded.stored, 64, "crop")


def test_scaled_decoding_of_a_noisy_film_is_within_half_a_gray_level(tmp_path):
    rng = np.random.default_rng(0)
    film = np.asarray(Image.fromarray(rng.integers(60, 200, (12, 10), np.uint8)).resize((1280, 1600)), np.float32)
    noisy = (film + rng.normal(0, 4, film.shape)).round().clip(0, 255).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(noisy), "film.jpg", quality=95)
    scaled = decode(path, enough_for(128, "crop"))
    assert scaled.pixels.shape == (200, 160), "an eighth"
    squares = [fit_square(decoded.pixels, 128, "crop").astype(float) for decoded in (scaled, decode(path, 1280))]
    assert np.abs(squares[0] - squares[1]).mean() < 0.5


def test_crop_takes_the_centre():
    image = np.zeros((100, 300), np.uint8)
    image[:, 100:200] = 255
    square = fit_square(image, 50, "crop")
    assert square[:, 1:-1].min() == 255  # the filter blends the outermost pixels with what lies beyond
    assert square.min() > 200


def test_resizing_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))
    assert np.abs(fit_square(stripes, 32, "crop").astype(int) - 127).max() <= 6


def test_shrinkage_turns_stored_pixels_into_pack_pixels():
    assert shrinkage((512, 1024), 256, "pad") == (4.0, 4.0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x50\x00\x50\x01\x01\x11\x00\xff\xd9", "a JPEG .* of 12 bits"),
        (b"\x89PNG and no more", "a PNG whose head"),
        (b"GIF89a", "neither JPEG, PNG nor DICOM"),
    ],
)
def test_what_pillow_does_not_know_is_called_what_it_is(content, reason, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        decode(tmp_path / "a.jpg", 16)
