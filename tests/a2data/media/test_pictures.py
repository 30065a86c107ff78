"""One reader of picture files, and one crop for frames and for references."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from a2data.media.pictures import crop_resize, read_picture

RED = (255, 0, 0)


def saved(tmp_path, image: Image.Image, name: str = "a.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_transparent_grey_and_cmyk_pictures_are_read_as_they_look(tmp_path):
    clear = Image.new("RGBA", (20, 20), (*RED, 0))
    clear.paste((*RED, 255), (0, 0, 10, 20))
    read = read_picture(saved(tmp_path, clear))
    assert (read[:, :10] == RED).all()
    assert (read[:, 10:] == 255).all()
    assert (read_picture(saved(tmp_path, Image.new("L", (20, 20), 77))) == 77).all()
    assert read_picture(saved(tmp_path, Image.new("CMYK", (20, 20)), "a.jpg")).shape == (20, 20, 3)


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    turned = read_picture(saved(tmp_path, Image.new("RGB", (40, 20)), "a.jpg", exif=exif))
    assert turned.shape == (40, 20, 3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p.write_bytes(b"no picture"), "not a readable image"),
        (lambda p: Image.new("RGB", (1, 1)).save(p), "1 x 1 px; a picture must have at least 16 px a side"),
        (lambda p: Image.new("1", (10000, 6000)).save(p), "60 megapixels"),
        (lambda p: Image.new("1", (10001, 16)).save(p), "10001 x 16 px; a picture may have at most 10000 px a side"),
        (lambda p: p.write_bytes(half_a_picture()), "damaged"),
    ],
)
def test_what_is_no_usable_picture_is_named(tmp_path, make, sentence):
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(ValueError, match=sentence) as error:
        read_picture(path)
    assert str(path) in str(error.value)


def half_a_picture() -> bytes:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole, "PNG")
    return whole.getvalue()[: len(whole.getvalue()) // 2]


def test_a_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "none.png")


@pytest.mark.parametrize("size", [(9000, 6000), (30_000, 30_000)])  # Pillow warns of the second by itself
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "a.png"
    Image.new("1", (9000, 6000)).save(path)
    data = bytearray(path.read_bytes())
    head = struct.pack(">II", *size) + bytes(data[24:29])
    data[16:33] = head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"54 megapixels|not a readable image"):
        read_picture(path)


def test_a_picture_without_a_path_is_reported_by_its_name():
    with pytest.raises(ValueError, match="ref0 of sample 7 is not a readable image"):
        read_picture(io.BytesIO(b"no picture"), "ref0 of sample 7")


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 60))
def test_frames_are_cropped_and_resized_as_backgrounds_are(h, w, height, width):
    references = pytest.importorskip("model_zoo.a2.references")
    picture = np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)
    assert np.array_equal(crop_resize(picture, height, width), references.cropped(picture, height, width))


def test_the_crop_is_where_it_was_asked_for():
    picture = np.arange(64, dtype=np.uint8)[:, None, None] * np.ones((1, 32, 3), np.uint8)
    tops = [int(crop_resize(picture, 32, 32, (at, 0.5))[0, 0, 0]) for at in (0, 0.5, 1)]
    assert tops == [0, 16, 32]
    assert crop_resize(picture, 32, 32)[0, 0, 0] == 16


def test_fine_stripes_become_grey_instead_of_wide_stripes():
    stripes = np.tile(np.uint8([0, 255]), 80)[None, :, None] * np.ones((64, 1, 3), np.uint8)
    assert np.ptp(crop_resize(stripes, 28, 70)[:, 4:-4].astype(int)) < 40
