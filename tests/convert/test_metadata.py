import io
import struct
import zlib

import pytest
from PIL import Image

from flowers_tpu.convert import metadata, photo_pixels
from flowers_tpu.convert.photo_pixels import Style

RED, GREEN = (230, 20, 20), (20, 200, 20)


def field(tag, kind, count, value):
    """A field of a TIFF, little-endian."""
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


TURNED = field(0x112, 3, 1, b"\6")  # the first row is the right side, the first column the top
FIRST_FREE = struct.pack("<I", 8 + 2 + 2 * 12 + 4)  # after a table of two fields


def tiff(*fields, tail=b""):
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + b"".join(fields) + b"\0" * 4 + tail


ODD_EXIF = {
    "a resolution that is text": tiff(TURNED, field(0x11A, 2, 4, b"300")),
    "a rational of -1/0": tiff(
        TURNED, field(0x11A, 10, 1, FIRST_FREE), tail=struct.pack("<ii", -1, 0)
    ),
    "a rational of 0/0": tiff(TURNED, field(0x11A, 5, 1, FIRST_FREE), tail=bytes(8)),
    "a negative number": tiff(TURNED, field(0x11A, 9, 1, b"\xff" * 4)),
    "a GPS pointer beyond the file": tiff(TURNED, field(0x8825, 4, 1, b"\xff\xff\xff\x7f")),
    "a GPS pointer that is text": tiff(TURNED, field(0x8825, 2, 4, b"gps")),
    "an EXIF pointer beyond the file": tiff(TURNED, field(0x8769, 4, 1, b"\xff\xff\xff\x7f")),
    "a kind of field that is not known": tiff(TURNED, field(0x9999, 77, 1, b"abcd")),
    "a length of gigabytes": tiff(TURNED, field(0x10F, 2, 0x7FFFFFFF, b"abcd")),
}
JUNK_EXIF = {
    "junk": b"junk" * 5,
    "cut short": b"II*\0\x08",
    "a table beyond the file": b"II*\0\xff\xff\xff\0",
    "an orientation that is text": tiff(field(0x112, 2, 2, b"6")),
    "an orientation of 9": tiff(field(0x112, 3, 1, b"\x09")),
}


def photo():
    """Wide: red at the left, green at the right."""
    image = Image.new("RGB", (96, 64), RED)
    image.paste(GREEN, (48, 0, 96, 64))
    return image


def encoded(name, **options):
    buffer = io.BytesIO()
    photo().save(buffer, name, **options)
    return buffer.getvalue()


def with_exif(name, exif):
    """A photo with just these bytes as its EXIF."""
    if name == "AVIF":  # Pillow reads what it is given to write
        placeholder = tiff(field(0x10F, 2, 3, b"me"), tail=b"?" * 40)
        whole = encoded(name, exif=placeholder)
        assert whole.count(placeholder) == 1
        return whole.replace(placeholder, exif.ljust(len(placeholder), b"\0"))
    return encoded(name, exif=b"Exif\0\0" + exif if name == "JPEG" else exif)


def rendered(tmp_path, content):
    (tmp_path / "photo").write_bytes(content)
    found = photo_pixels.render(str(tmp_path / "photo"), Style((16,), "pad", 95))
    return found, Image.open(io.BytesIO(found.jpegs[16]))


def check(tmp_path, content, *, is_turned):
    found, pixels = rendered(tmp_path, content)
    assert (found.width, found.height) == ((64, 96) if is_turned else (96, 64))
    first, last = ((7, 2), (7, 13)) if is_turned else ((2, 7), (13, 7))
    near_red, near_green = pixels.getpixel(first), pixels.getpixel(last)
    assert near_red[0] > 200 and near_red[1] < 60, near_red
    assert near_green[1] > 170 and near_green[0] < 60, near_green


@pytest.mark.parametrize("odd", ODD_EXIF)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_a_photo_is_turned_though_another_field_is_odd(tmp_path, name, odd):
    check(tmp_path, with_exif(name, ODD_EXIF[odd]), is_turned=True)


@pytest.mark.parametrize("junk", JUNK_EXIF)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_photo_whose_orientation_cannot_be_read_is_taken_as_it_is(tmp_path, name, junk):
    check(tmp_path, with_exif(name, JUNK_EXIF[junk]), is_turned=False)


def test_an_orientation_in_xmp_is_read_though_exif_is_junk(tmp_path):
    xmp = b'<x:xmpmeta><rdf tiff:Orientation="6"/></x:xmpmeta>'
    check(tmp_path, encoded("WEBP", exif=b"junk" * 5, xmp=xmp), is_turned=True)


def chunk(name, content, *, is_right=True):
    checksum = zlib.crc32(name + content) ^ (not is_right)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


LONG = zlib.compress(b"a" * (2 << 20))  # Pillow stops at 1 MB


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"tEXt", b"Comment\0of a damaged disk", is_right=False),
        chunk(b"pHYs", b"\0" * 9, is_right=False),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b"\0" * 4, is_right=False),
        chunk(b"prVt", b"a program's own", is_right=False),
        chunk(b"zTXt", b"Comment\0\0" + LONG),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
        chunk(b"zTXt", b"Comment\0\7 a method that is not known"),
        chunk(b"cHRM", b"short"),
        chunk(b"iCCP", b"name\0\0no profile"),
        chunk(b"acTL", b"animated"),
    ],
)
def test_a_png_is_read_whatever_its_other_chunks_hold(tmp_path, odd):
    whole = with_exif("PNG", tiff(TURNED))
    begin = len(metadata._PNG) + 25  # after the header
    check(tmp_path, whole[:begin] + odd + whole[begin:], is_turned=True)
    after = len(whole) - 12
    check(tmp_path, whole[:after] + odd + whole[after:], is_turned=True)


def test_transparency_and_profile_stay_where_a_text_is_damaged():
    kept = [chunk(b"tRNS", b"\0\1"), chunk(b"iCCP", b"p"), chunk(b"IDAT", b"d", is_right=False)]
    lost = [chunk(b"tRNS", b"\0\2", is_right=False), chunk(b"tEXt", b"a\0b")]
    both = [kept[0], lost[0], kept[1], lost[1], kept[2]]
    assert metadata.plain(metadata._PNG + b"".join(both)) == metadata._PNG + b"".join(kept)


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


MPF = tiff(field(0xB000, 7, 4, b"0100"), field(0xB002, 7, 16, b"\xff\xff\xff\0"))


@pytest.mark.parametrize(
    "odd",
    [
        segment(0xE2, b"MPF\0" + MPF),
        segment(0xE2, b"MPF\0" + tiff(field(0xB001, 4, 1, b"\2"))),
        segment(0xE2, b"MPF\0" + b"II*\0"),
        segment(0xE2, b"ICC_PROFILE\0\1"),
        segment(0xED, b"Photoshop 3.0\08BIM\4"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<"),
        segment(0xFE, b"\xff\0comment"),
    ],
)
def test_a_jpeg_is_read_whatever_its_other_segments_hold(tmp_path, odd):
    whole = with_exif("JPEG", tiff(TURNED))
    check(tmp_path, whole[:2] + odd + whole[2:], is_turned=True)
    first = 4 + int.from_bytes(whole[4:6], "big")
    check(tmp_path, whole[:first] + odd + whole[first:], is_turned=True)


@pytest.mark.parametrize(
    "odd",
    [
        (field(0x11A, 2, 4, b"300"), field(0x11B, 2, 4, b"300"), field(0x128, 3, 1, b"\3")),
        (field(0x8769, 4, 1, b"\xff\xff\xff\x7f"),),
        (field(0x8825, 2, 4, b"gps"),),
        (field(0x9999, 10, 1, b"\xff\xff\xff\x7f"),),
    ],
)
def test_a_tiff_is_read_whatever_its_other_fields_hold(tmp_path, odd):
    whole = encoded("TIFF", tiffinfo={0x112: 6})
    order, fields = metadata._tiff_fields(whole)
    fields = sorted([*fields, *odd], key=lambda f: struct.unpack_from("<H", f)[0])
    table = struct.pack("<H", len(fields)) + b"".join(fields) + b"\0" * 4
    odd_one = whole[:4] + struct.pack("<I", len(whole)) + whole[8:] + table
    assert order == "<"
    check(tmp_path, odd_one, is_turned=True)


def test_without_metadata_what_is_damaged_stays_so(tmp_path):
    whole = with_exif("JPEG", ODD_EXIF["a resolution that is text"])
    with pytest.raises(OSError, match=r"truncated|broken data stream"):
        rendered(tmp_path, whole[:-30])
    png = bytearray(with_exif("PNG", JUNK_EXIF["junk"]))
    png[png.index(b"IDAT") + 9] ^= 1
    with pytest.raises((OSError, SyntaxError)):
        rendered(tmp_path, bytes(png))


def test_only_some_kinds_can_be_stripped():
    assert metadata.plain(b"GIF89a") is None
    assert metadata.plain(b"II*\0\xff\xff\xff\0") is None
    assert metadata.plain(b"") is None
