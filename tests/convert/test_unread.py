"""Photos that are there and cannot be read: named, counted, and refused by --strict."""

import io
import re
import sys

import pytest
from PIL import Image

from flowers_tpu.convert import photo_pixels
from flowers_tpu.convert.photo_pixels import Style
from flowers_tpu.runs.naming import photos_in
from flowers_tpu.system.errors import RequestError
from tests.convert.converting import draw, make, table

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(20)
JXL = b"\xff\x0a" + bytes(20)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture
def no_heif(monkeypatch):
    """As if pillow-heif were not installed."""
    photo_pixels._formats.cache_clear()
    photo_pixels.file_endings.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "OPEN", {n: o for n, o in Image.OPEN.items() if n != "HEIF"})
    yield
    photo_pixels._formats.cache_clear()
    photo_pixels.file_endings.cache_clear()


def reason(path):
    with pytest.raises(Exception) as caught:
        photo_pixels.render(str(path), Style((16,), "center", 95))
    return photo_pixels.why_unreadable(str(path), caught.value)


def broken_png():
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[18] ^= 1  # within the header, whose checksum is then wrong
    return bytes(content)


def tiff_thumbnail():
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.heic", HEIC, "a HEIC picture: install pillow-heif .*or export it as JPEG"),
        ("a.jpg", HEIC, "a HEIC picture: install pillow-heif"),
        ("a.jxl", JXL, "a JPEG XL picture: export it as JPEG"),
        ("a.NEF", tiff_thumbnail(), "a camera's raw picture: export it as JPEG"),
        ("a.png", LFS, "a Git LFS pointer: .*git lfs pull"),
        ("a.jpg", b"<!DOCTYPE html>", "a web page: .*fetch it again"),
        ("a.jpg", b"", "an empty file"),
        ("a.jpg", b"notes", "no picture that Pillow can read"),
        ("a.png", broken_png(), "a PNG: broken PNG file .*IHDR"),
        (
            "a.webp",
            b"RIFF\x20\0\0\0WEBPVP8 junk",
            "could not create decoder object .a WebP picture",
        ),
        ("a.gif", b"GIF89a\1", "a GIF: .+"),
    ],
)
def test_the_reason_names_what_was_found(tmp_path, no_heif, name, content, found):
    (tmp_path / name).write_bytes(content)
    assert re.fullmatch(f"{found}.*", reason(tmp_path / name))


def test_a_class_that_is_lost_is_said(tmp_path, no_heif, caplog):
    photos = tmp_path / "photos"
    for number in range(4):
        draw(photos / "rose" / f"{number}.jpg", 90, number)
    (photos / "tulip").mkdir()
    for number in range(3):
        (photos / "tulip" / f"{number}.heic").write_bytes(HEIC + bytes([number]))
    output = make(tmp_path / "data", photos=str(photos), sizes="16")
    assert "NO PHOTO of 1 classes can be read" in caplog.text
    assert "tulip (a HEIC picture: install pillow-heif" in caplog.text
    unreadable = table(output, "unreadable")
    assert unreadable["path"].tolist() == [f"tulip/{number}.heic" for number in range(3)]
    with pytest.raises(RequestError, match=r"(?s)3 of 7 photos cannot be read.*--strict.*HEIC"):
        make(tmp_path / "strict", photos=str(photos), sizes="16", strict=True)


def test_photos_under_odd_names_are_converted(tmp_path):
    photos = tmp_path / "photos"
    for number, name in enumerate(["a.jpg?x=1", "b.jpg_large", "c.pjpeg", "d.mpo", "e.heic"]):
        draw(photos / "rose" / f"{number}.jpg", 90, number)
        (photos / "rose" / f"{number}.jpg").rename(photos / "rose" / name)
    output = make(tmp_path / "data", photos=str(photos), sizes="16", strict=True)
    assert len(table(output, "photos")) == 5
    assert len(photos_in([str(photos)])) == 5


def test_heic_is_read_with_pillow_heif(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (96, 64), (230, 20, 20))
    image.paste((20, 200, 20), (48, 0, 96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    written = heif.from_pillow(image)
    written.save(tmp_path / "a.heic", quality=95)
    written.info["exif"] = exif.tobytes()
    written.save(tmp_path / "turned.heic", quality=95)
    (tmp_path / "turned.heic").rename(tmp_path / "turned.jpg")
    for name, size in (("a.heic", (96, 64)), ("turned.jpg", (64, 96))):
        found = photo_pixels.render(str(tmp_path / name), Style((16,), "pad", 95))
        pixels = Image.open(io.BytesIO(found.jpegs[16]))
        assert (found.width, found.height) == size
        first, last = ((2, 8), (13, 8)) if size[0] > size[1] else ((8, 2), (8, 13))
        assert pixels.getpixel(first)[0] > 190 and pixels.getpixel(last)[1] > 160
    assert ".heic" in photo_pixels.file_endings()


def test_heic_whose_exif_is_junk_is_read(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    image = heif.from_pillow(Image.new("RGB", (96, 64), (230, 20, 20)))
    for number, junk in enumerate([b"junk" * 9, b"II*\0\x08", b"Exif\0\0MM\0*\xff\xff\xff\xff"]):
        image.info["exif"] = junk
        image.save(tmp_path / f"{number}.heic")
        found = photo_pixels.render(str(tmp_path / f"{number}.heic"), Style((16,), "center", 95))
        assert (found.width, found.height) == (96, 64)
