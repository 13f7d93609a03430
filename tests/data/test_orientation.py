import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image, ImageOps

from flowers_tpu.data.orientation import orientation, upright
from tests.photos import jpeg, photo

PIXELS = photo(np.random.default_rng(0), 16)
read = tf.function(orientation, input_signature=[tf.TensorSpec([], tf.string)])


def exif(value, *, endian="<", tags_before=2, kind=3):
    """An APP1 segment with the tag Orientation, as cameras write it."""
    tags = [(0x0100 + number, 3, 7) for number in range(tags_before)] + [(0x0112, kind, value)]
    table = struct.pack(f"{endian}H", len(tags))
    for tag, of_kind, content in tags:
        table += struct.pack(f"{endian}HHIHH", tag, of_kind, 1, content, 0)
    header = (b"II" if endian == "<" else b"MM") + struct.pack(f"{endian}HI", 42, 8)
    content = b"Exif\0\0" + header + table + struct.pack(f"{endian}I", 0)
    return segment(0xE1, content)


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content


def with_segments(*segments):
    """Those segments before all others of a JPEG."""
    plain = jpeg(PIXELS)
    return plain[:2] + b"".join(segments) + plain[2:]


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_it_is_read_as_pillow_does(value, endian):
    content = with_segments(exif(value, endian=endian))
    assert Image.open(io.BytesIO(content)).getexif()[ExifTags.Base.Orientation] == value
    assert read(content).numpy() == value


@pytest.mark.parametrize("value", range(1, 9))
def test_an_image_is_turned_as_pillow_does(value):
    image = Image.open(io.BytesIO(with_segments(exif(value))))
    turned = upright(tf.constant(np.asarray(image)), tf.constant(value))
    np.testing.assert_array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))


def test_it_may_stand_after_other_segments():
    others = [segment(0xE0, b"JFIF\0" + bytes(9)), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0")]
    others += [segment(0xE2, bytes(65533)), b"\xff\xff"]
    assert read(with_segments(*others, exif(6))).numpy() == 6


@pytest.mark.parametrize(
    "content",
    [
        with_segments(),
        with_segments(exif(0)),
        with_segments(exif(9)),
        with_segments(exif(6)[:30]),  # the rest is read as a part of it, and is no table
        with_segments(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
        with_segments(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f")),
        jpeg(PIXELS) + exif(6),  # after the picture
        b"\xff\xd8",
        b"",
    ],
)
def test_what_cannot_be_read_is_upright(content):
    assert read(content).numpy() == 1


def test_where_it_is_cut_short_nothing_is_raised():
    content = with_segments(exif(6))
    for end in range(2, 60):
        assert read(content[:end]).numpy() in (1, 6)
