import io
import struct

import pytest
from PIL import Image

from flowers_tpu.convert import first_bytes, photo_files


def encoded(name):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, name)
    return buffer.getvalue()


def container(*brands):
    """The beginning of a file of the family of MPEG-4."""
    listed = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(listed)) + b"ftyp" + listed + b"\0\0\0\x08free"


def tiff(*tags, order="<"):
    table = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, 0) for tag in tags)
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IH", 8, len(tags)) + table


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF"])
def test_what_pillow_writes_is_a_picture_that_it_reads(name):
    kind = first_bytes.kind_of(encoded(name))
    assert kind.is_picture and kind.reader == name


@pytest.mark.parametrize(
    ("head", "ending", "name"),
    [
        (container(b"heic", b"mif1", b"heic"), "", "a HEIC picture"),
        (container(b"mif1", b"mif1", b"heix"), ".jpg", "a HEIC picture"),
        (container(b"mif1", b"mif1", b"avif", b"miaf"), "", "an AVIF picture"),
        (container(b"crx ", b"crx ", b"isom"), ".cr3", "a camera's raw picture"),
        (tiff(254, 271), ".nef", "a camera's raw picture"),
        (tiff(254, 50706), ".tif", "a camera's raw picture"),
        (tiff(50706, order=">"), "", "a camera's raw picture"),
        (tiff(271)[:8] + b"CR\2\0", "", "a camera's raw picture"),
        (b"FUJIFILMCCD-RAW 0201", "", "a camera's raw picture"),
        (b"IIU\0\x18\0\0\0", "", "a camera's raw picture"),
        (b"\xff\x0a\xfa\x7f", "", "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", ".jxl", "a JPEG XL picture"),
        (b"II\xbc\x01\x20\0\0\0", "", "a JPEG XR picture"),
    ],
)
def test_pictures_that_pillow_does_not_read_by_itself(head, ending, name):
    kind = first_bytes.kind_of(head, ending)
    assert kind.is_picture and kind.name == name and "export it as JPEG" in kind.advice


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (container(b"qt  ", b"qt  "), "a video"),
        (container(b"isom", b"mp41"), "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "a web page"),
        (b'<?xml version="1.0"?>\n<html xmlns="x">', "a web page"),
        (b'<?xml version="1.0"?><!-- a flower --><svg width="9">', "an SVG drawing"),
        (b"%PDF-1.7", "a PDF"),
        (b"PK\3\4", "a zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Windows' store of thumbnails, or an Office file"),
    ],
)
def test_what_is_no_picture(head, name):
    kind = first_bytes.kind_of(head)
    assert not kind.is_picture and kind.name == name


@pytest.mark.parametrize("head", [b"", b"notes", b"BMW and other cars", b"II", b"<?xml?><plist>"])
def test_what_is_of_no_known_kind(head):
    assert first_bytes.kind_of(head) is None


@pytest.mark.parametrize(
    "name",
    ["a.jpg?x=1", "a.jpg_large", "a.pjpeg", "a.mpo", "a.jpg!d", "a.jpe_", "a.photo", "a", "a.1"],
)
def test_a_photo_is_one_under_any_name(tmp_path, name):
    (tmp_path / name).write_bytes(encoded("JPEG"))
    assert photo_files.no_photo(str(tmp_path / name)) == ""


@pytest.mark.parametrize("name", ["a.HEIC", "a.nef", "a.jxl", "a.jpg"])
def test_the_name_of_a_photo_suffices(tmp_path, name):
    (tmp_path / name).write_bytes(b"damaged")
    assert photo_files.no_photo(str(tmp_path / name)) == ""


@pytest.mark.parametrize("name", ["a.jpg_original", "a.jpg~", "a.THM", "a.jpeg.bak", "a.jpg.tmp"])
def test_copies_that_programs_keep_are_no_photos(tmp_path, name):
    (tmp_path / name).write_bytes(encoded("JPEG"))
    assert "a program keeps" in photo_files.no_photo(str(tmp_path / name))


def test_folders_of_systems_are_left_out():
    for name in ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "System Volume Information",
                 ".thumbnails", "lost+found", "@Recycle"):  # fmt: skip
        assert photo_files.is_left_out(name)
    assert not any(map(photo_files.is_left_out, ["rose", "@home", "#1", "MACOSX"]))
