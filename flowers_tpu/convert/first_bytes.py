"""What a file is, by its first bytes, whatever its name says."""

import re
import struct
from typing import NamedTuple

_HEAD = 1 << 12  # bytes that are looked at
_AS_JPEG = "export it as JPEG"
_DNG_VERSION = 50706  # the field of a TIFF that makes it the raw picture of a camera

# Pictures as cameras leave them; many are TIFFs, of which Pillow would read the thumbnail.
RAW_ENDINGS = frozenset(
    (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc"),
        *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl"),
        *(".sr2", ".srf", ".srw", ".x3f"),
    )
)
# Names of other pictures that Pillow reads with more installed, or not at all.
_OTHER_ENDINGS = frozenset((".heic", ".heif", ".hif", ".jxl", ".avif", ".jxr", ".wdp", ".hdp"))
PICTURE_ENDINGS = RAW_ENDINGS | _OTHER_ENDINGS


class Kind(NamedTuple):
    """What a file is.

    Attributes:
        name: in words, with an article.
        is_picture: whether it would be one of the photos.
        reader: Pillow's name of the format; '' for what it cannot read.
        advice: what to do if it cannot be read; '' for nothing.
    """

    name: str
    is_picture: bool
    reader: str = ""
    advice: str = ""


_RAW = Kind("a camera's raw picture", True, "", _AS_JPEG)
_HEIC = Kind(
    "a HEIC picture",
    True,
    "HEIF",
    f"install pillow-heif (pip install pillow-heif), or {_AS_JPEG}",
)
_AVIF = Kind("an AVIF picture", True, "AVIF", f"install a newer Pillow, or {_AS_JPEG}")
_VIDEO = Kind("a video", False, "", "export a frame of it as JPEG")
_WEB_PAGE = Kind("a web page", False, "", "the download gave no file; fetch it again")
_JXL = Kind("a JPEG XL picture", True, "", _AS_JPEG)

# By what a file begins with.
_BEGINNINGS = (
    (b"\xff\xd8\xff", Kind("a JPEG", True, "JPEG")),
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG", True, "PNG")),
    (b"GIF8", Kind("a GIF", True, "GIF")),
    (b"8BPS", Kind("a Photoshop file", True, "PSD")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", Kind("a JPEG 2000 picture", True, "JPEG2000")),
    (b"\xff\x4f\xff\x51", Kind("a JPEG 2000 picture", True, "JPEG2000")),
    (b"qoif", Kind("a QOI picture", True, "QOI")),
    (b"\0\0\0\x0cJXL \r\n\x87\n", _JXL),
    (b"\xff\x0a", _JXL),
    (b"II\xbc\x01", Kind("a JPEG XR picture", True, "", _AS_JPEG)),
    (b"\x76\x2f\x31\x01", Kind("an OpenEXR picture", True, "", _AS_JPEG)),
    (b"#?RADIANCE", Kind("a Radiance picture", True, "", _AS_JPEG)),
    (b"FLIF", Kind("a FLIF picture", True, "", _AS_JPEG)),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"IIRO", _RAW), (b"IIRS", _RAW), (b"MMOR", _RAW), (b"IIU\0", _RAW),
    (b"FOVb", _RAW), (b"\0MRM", _RAW), (b"II\x1a\0\0\0HEAPCCDR", _RAW),
    (b"II+\0", Kind("a BigTIFF", True, "TIFF")), (b"MM\0+", Kind("a BigTIFF", True, "TIFF")),
    (b"version https://git-lfs", Kind("a Git LFS pointer", False, "",
                                      "the file itself is not here; run git lfs pull")),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"%PDF", Kind("a PDF", False, "", _AS_JPEG)),
    (b"%!PS", Kind("a PostScript file", False, "", _AS_JPEG)),
    (b"PK\3\4", Kind("a zip archive", False, "", "unpack it")),
    (b"Rar!", Kind("a rar archive", False, "", "unpack it")),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", False, "", "unpack it")),
    (b"\x1f\x8b", Kind("a gzip archive", False, "", "unpack it")),
    (b"\0\5\x16\7", Kind("a Mac's notes on another file", False)),
    (b"\xd0\xcf\x11\xe0", Kind("Windows' store of thumbnails, or an Office file", False)),
    (b"SQLite format 3", Kind("a database", False)),
)  # fmt: skip
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1"), _HEIC),
    **dict.fromkeys((b"msf1", b"heif"), _HEIC),
    b"crx ": _RAW,
    b"jxl ": _JXL,
}


def kind_of(head: bytes, ending: str = "") -> Kind | None:
    """Returns what a file is; None if its bytes are of no kind that is known here.

    Args:
        head: its first bytes, of which up to 4,096 are looked at.
        ending: of its name, in lower case, as `.nef`: raw pictures that are TIFFs differ in little
            else.
    """
    if head[:4] in (b"II*\0", b"MM\0*"):
        is_raw = ending in RAW_ENDINGS or head[8:10] == b"CR" or _has_dng_version(head)
        return _RAW if is_raw else Kind("a TIFF", True, "TIFF")
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if head[:4] == b"RIFF":
        return Kind("a WebP picture", True, "WEBP") if head[8:12] == b"WEBP" else _VIDEO
    # Two letters are little to go by.
    if head[:2] == b"BM" and head[6:10] == b"\0" * 4 and head[15:18] == b"\0" * 3:
        return Kind("a BMP", True, "BMP")
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    text = head[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if re.match(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg|<svg)", text, re.DOTALL):
        return Kind("an SVG drawing", False, "", _AS_JPEG)
    if re.match(
        rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype html|<html|<head)", text, re.DOTALL
    ):
        return _WEB_PAGE
    return None


def read_kind(path: str, ending: str = "") -> Kind | None:
    """Returns what a file is, see `kind_of`; None also if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return kind_of(file.read(_HEAD), ending)
    except OSError:
        return None


def _of_brands(head: bytes) -> Kind:
    """Of the container of MPEG-4, by what its readers must know (ISO 14496-12, 4.3)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[n : n + 4] for n in range(16, end, 4))]
    known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if _AVIF in known:  # it says besides that it is a picture of any kind
        return _AVIF
    return known[0] if known else _VIDEO


def _has_dng_version(head: bytes) -> bool:
    order = "<" if head.startswith(b"II") else ">"
    try:
        (table,) = struct.unpack_from(f"{order}I", head, 4)
        (count,) = struct.unpack_from(f"{order}H", head, table)
        tags = (struct.unpack_from(f"{order}H", head, table + 2 + 12 * n)[0] for n in range(count))
        return _DNG_VERSION in tags
    except struct.error:  # the table is elsewhere
        return False
