"""From a photo as a camera or a program left it to square sRGB JPEGs."""

import contextlib
import functools
import io
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from flowers_tpu.convert import first_bytes, metadata
from flowers_tpu.system.errors import first_line

# No TensorFlow here: photos are converted in threads of Pillow's own code.

_WHITE = (255, 255, 255)  # behind what is transparent
_GREY = (128, 128, 128)  # around a padded photo; what most networks scale to about zero
# A JPEG may be decoded at a half, quarter or eighth of its size, as long as it stays so many times
# as large as what is made of it.
_DECODED_AT_LEAST = 2
# Between sizes further apart than this, whole blocks of pixels are averaged first.
_REDUCING_GAP = 3.0


class Style(NamedTuple):
    """What is made of every photo."""

    sizes: tuple[int, ...]  # sides of the squares, pixels
    crop: str  # center: the largest square in the middle; pad: the whole photo, grey around it
    quality: int  # of the JPEGs, 1 to 100


class Rendered(NamedTuple):
    """A photo that was converted."""

    jpegs: dict[int, bytes]  # by size
    width: int  # of the photo as it is looked at, pixels
    height: int


def render(path: str, style: Style) -> Rendered:
    """Reads a photo once and makes a square JPEG of each size of it.

    The EXIF orientation is honoured, colours are converted to sRGB where the photo has a profile,
    transparent pixels are laid on white, and of several frames the first is taken. Nothing but
    pixels goes on: no EXIF (which may say where a photo was taken), no comments, no thumbnails.

    Raises:
        Exception: of any kind, since Pillow's readers raise what they please at damaged files;
            also at photos of over twice `PIL.Image.MAX_IMAGE_PIXELS`. `why_unreadable` makes
            words of it.
    """
    kind = first_bytes.read_kind(path, _ending(path))
    if kind and kind.is_picture and not kind.reader:
        raise UnidentifiedImageError(kind.name)  # though Pillow may find a thumbnail in it
    try:
        pixels = _load(path, style)
    except Exception as error:  # of any kind: see above
        pixels = _load_plain(path, style, error)
    square = _crop if style.crop == "center" else _pad
    jpegs = {size: _encode(square(pixels.image, size), style.quality) for size in style.sizes}
    return Rendered(jpegs, pixels.width, pixels.height)


def render_or_keep(path: str, style: Style) -> Rendered:
    """`render`, but keeps an upright JPEG as it is where just that size is to be made of it."""
    rendered = render(path, style)
    if rendered.width != rendered.height or rendered.width not in style.sizes:
        return rendered
    with Image.open(path, formats=_formats()) as image:
        is_plain = image.format == "JPEG" and image.mode in ("L", "RGB")
        is_plain = is_plain and not {"exif", "icc_profile"} & set(image.info)
    if not is_plain:
        return rendered
    with open(path, "rb") as file:
        return rendered._replace(jpegs={**rendered.jpegs, rendered.width: file.read()})


class _Pixels(NamedTuple):
    """A photo in sRGB, upright, possibly decoded at a reduced size."""

    image: Image.Image
    width: int  # of all of it, pixels
    height: int


def _load(source: str | io.BytesIO, style: Style) -> _Pixels:
    with Image.open(source, formats=_formats()) as image:
        width, height = image.size
        side = max(style.sizes) * _DECODED_AT_LEAST
        factor = side / (min(width, height) if style.crop == "center" else max(width, height))
        if factor < 1:
            image.draft(None, (round(width * factor), round(height * factor)))
        image.load()  # turns a TIFF by itself
        turned, is_exchanged = metadata.upright(image)
        if is_exchanged:
            width, height = height, width
        return _Pixels(_to_srgb(turned), width, height)


def _load_plain(path: str, style: Style, error: Exception) -> _Pixels:
    """Loads a photo without its metadata; raises `error` if they were not at fault."""
    if isinstance(error, Image.DecompressionBombError) or not os.path.isfile(path):
        raise error
    with open(path, "rb") as file:
        content = metadata.plain(file.read())
    if content is None:
        raise error
    return _load(io.BytesIO(content), style)


def why_unreadable(path: str, error: Exception) -> str:
    """Returns what is wrong with a photo at which `render` raised, in words.

    Args:
        path: of the photo.
        error: what was raised.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    with contextlib.suppress(OSError):
        if not os.path.getsize(path):
            return "an empty file"
    kind = first_bytes.read_kind(path, _ending(path))
    if not isinstance(error, UnidentifiedImageError):
        return f"{first_line(error)}{f' ({kind.name})' if kind else ''}"
    if kind is None:
        return "no picture that Pillow can read"
    if kind.reader not in _formats():
        return f"{kind.name}{f': {kind.advice}' if kind.advice else ''}"
    return f"{kind.name}: {_cause(path, kind.reader)}"


def _cause(path: str, reader: str) -> str:
    """What Pillow's reader of one format says of a file, which `Image.open` leaves out."""
    try:
        with open(path, "rb") as file:
            Image.OPEN[reader][0](file, "").load()
    except Exception as error:  # of any kind: see `render`
        return first_line(error) or type(error).__name__
    return "Pillow cannot read it"


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def is_enlarged(width: int, height: int, size: int, crop: str) -> bool:
    """Whether a photo had fewer pixels than the square that was made of it."""
    return (min if crop == "center" else max)(width, height) < size


@functools.cache
def file_endings() -> frozenset[str]:
    """Returns the endings of names (`.jpg`) of what Pillow can read."""
    formats = _formats()
    return frozenset(e for e, name in Image.registered_extensions().items() if name in formats)


@functools.cache
def _formats() -> tuple[str, ...]:
    """All formats but PostScript, which Pillow would give to another program to run."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif  # HEIC: the extra `heif`

        pillow_heif.register_heif_opener()
    return tuple(sorted(set(Image.OPEN) - {"EPS"}))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Returns the pixels as 8-bit sRGB."""
    profile = image.info.get("icc_profile")
    if image.mode == "F":
        raise ValueError("floating-point pixels, of which none is known to be white")
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode not in ("L", "RGB", "CMYK"):  # what profiles are for
        image = image.convert("RGB")
    image = _apply_profile(image, profile).convert("RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, _WHITE), alpha)
    return image


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Scales 0…65535 to 0…255; Pillow's own conversion makes white of all above 255."""
    values = np.clip(np.asarray(image, np.int64), 0, 65535)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts to sRGB by a colour profile, if there is one and it is of any use."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).startswith("sRGB"):
            return image
        into = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, into, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image  # damaged, or for another kind of pixels; other programs ignore it too


def _crop(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box, _REDUCING_GAP)


def _pad(image: Image.Image, size: int) -> Image.Image:
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    inner = image.resize((width, height), Image.Resampling.LANCZOS, None, _REDUCING_GAP)
    square = Image.new("RGB", (size, size), _GREY)
    square.paste(inner, ((size - width) // 2, (size - height) // 2))
    return square


def _encode(image: Image.Image, quality: int) -> bytes:
    image.info.clear()  # Pillow would write the comment of the photo
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
