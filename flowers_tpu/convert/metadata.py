"""What is written about a photo beside its pixels: read where it can be, else left out.

Metadata never decides whether a photo can be used. Where a reader stumbles over them, the same
pixels are read again from a copy without them.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import ExifTags, Image

_ORIENTATION = int(ExifTags.Base.Orientation)
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_TURNED = 5  # from here on width and height are exchanged

_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks that are no part of the picture itself, and yet kept: transparency, profile, orientation.
_PNG_KEPT = (b"tRNS", b"iCCP", b"eXIf")
_SCAN, _END = 0xDA, 0xD9  # JPEG: where the pixels begin, and where they end
_APP1, _APP15 = 0xE1, 0xEF
_LEAST_PROFILE = 4 + 12 + 2  # bytes: marker and length, the name, and two numbers
# Fields of a TIFF that say where its pixels are and what they mean, by their numbers.
_TIFF_KEPT = {
    *(254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320),
    *(322, 323, 324, 325, 332, 338, 339, 347, 512, 513, 514, 530, 531, 532, 34675),
}
# AVIF: the entry of an item in the table of contents (ISO 14496-12, 8.11.6): its kind is Exif.
_AVIF_EXIF = re.compile(rb"(infe\x02.{3}.{4})Exif", re.DOTALL)


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Returns an image as it is looked at, and whether width and height were exchanged for it.

    It stays as it is stored if its orientation cannot be read.
    """
    orientation = _orientation(image)
    method = _METHODS.get(orientation)
    return image if method is None else image.transpose(method), orientation >= _FIRST_TURNED


def _orientation(image: Image.Image) -> int:
    """By the EXIF tag, else by XMP, from 1 (upright) to 8."""
    found = None
    with contextlib.suppress(Exception):  # Pillow raises what it pleases at damaged EXIF
        found = image.getexif().get(_ORIENTATION)
    if found is None:
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        match = _XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else xmp)
        found = int(match[1]) if match else 1
    return found if isinstance(found, int) and found in _METHODS else 1


def plain(content: bytes) -> bytes | None:
    """Returns a file of the same pixels with hardly any metadata; None if it is of no known kind.

    Profile and orientation are kept where they are whole. What else is damaged stays so.
    """
    with contextlib.suppress(struct.error, IndexError):
        if content.startswith(_PNG):
            return _PNG + b"".join(_png_chunks(content))
        if content.startswith(b"\xff\xd8"):
            return _plain_jpeg(content)
        if content[:4] in (b"II*\0", b"MM\0*"):
            return _plain_tiff(content)
        if content[4:12] == b"ftypavif":
            return _AVIF_EXIF.sub(rb"\1skip", content, count=1)  # a kind of item nobody reads
    return None


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG that are kept, whole; what follows the last one that is whole."""
    begin = len(_PNG)
    while begin + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, begin)
        end = begin + 12 + length
        if end > len(content):
            break
        is_right = zlib.crc32(content[begin + 4 : end - 4]) == int.from_bytes(
            content[end - 4 : end], "big"
        )
        if name[:1].isupper() or (name in _PNG_KEPT and is_right):
            yield content[begin:end]
        begin = end
    yield content[begin:]


def _plain_jpeg(content: bytes) -> bytes:
    parts, begin, turn = [content[:2]], 2, 1
    while begin + 4 <= len(content) and content[begin] == 0xFF:
        marker = content[begin + 1]
        if marker == 0xFF:  # a marker may be preceded by any number of these
            begin += 1
            continue
        if marker in (_SCAN, _END):
            break
        end = begin + 2 + int.from_bytes(content[begin + 2 : begin + 4], "big")
        segment = content[begin:end]
        if segment[4:10] == b"Exif\0\0":
            turn = _orientation_of_exif(segment[10:])
        is_kept = segment[4:9] == b"Adobe" or (
            segment[4:16] == b"ICC_PROFILE\0" and len(segment) > _LEAST_PROFILE
        )
        if is_kept or not _APP1 <= marker <= _APP15:
            parts.append(segment)
        begin = end
    if turn != 1:
        exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, _ORIENTATION, 3, 1, turn, 0)
        parts.insert(1, b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    return b"".join(parts) + content[begin:]


def _orientation_of_exif(tiff: bytes) -> int:
    with contextlib.suppress(struct.error):
        order, fields = _tiff_fields(tiff)
        for field in fields:
            tag, kind, _ = struct.unpack_from(f"{order}HHI", field)
            if tag == _ORIENTATION and kind in (3, 4):
                value = struct.unpack_from(f"{order}{'HI'[kind - 3]}", field, 8)[0]
                return value if value in _METHODS else 1
    return 1


def _plain_tiff(content: bytes) -> bytes:
    """With another table of fields at its end; all else stays where it is."""
    order, fields = _tiff_fields(content)
    kept = [f for f in fields if struct.unpack_from(f"{order}H", f)[0] in _TIFF_KEPT]
    content += b"\0" * (len(content) % 2)
    table = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + b"\0" * 4
    return content[:4] + struct.pack(f"{order}I", len(content)) + content[8:] + table


def _tiff_fields(tiff: bytes) -> tuple[str, list[bytes]]:
    """The byte order, for `struct`, and the fields of the first picture, 12 bytes each."""
    order = "<" if tiff.startswith(b"II") else ">"
    (table,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, table)
    begins = range(table + 2, table + 2 + 12 * count, 12)
    return order, [tiff[b : b + 12] for b in begins if b + 12 <= len(tiff)]
