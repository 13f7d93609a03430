import io
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image, ImageCms, ImageDraw

from flowers_tpu.convert import photo_pixels
from flowers_tpu.convert.photo_pixels import Rendered, Style

A, B, C, D = (230, 20, 20), (20, 200, 20), (20, 20, 220), (220, 210, 30)


def render(path, size=32, crop="center", quality=95):
    return photo_pixels.render(str(path), Style((size,), crop, quality))


def pixels(path, size=32, crop="center"):
    jpeg = render(path, size, crop).jpegs[size]
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


def near(found, expected):
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=3)


def quadrants(width=64, height=64):
    """A at the top left, B top right, C bottom left, D bottom right."""
    image = Image.new("RGB", (width, height), A)
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), B)
    draw.rectangle((0, height // 2, width // 2 - 1, height), C)
    draw.rectangle((width // 2, height // 2, width, height), D)
    return image


# By the EXIF standard's words on where the stored first row and first column are seen.
@pytest.mark.parametrize(
    ("orientation", "corners"),
    [
        (1, (A, B, C, D)),  # top, left
        (2, (B, A, D, C)),  # top, right
        (3, (D, C, B, A)),  # bottom, right
        (4, (C, D, A, B)),  # bottom, left
        (5, (A, C, B, D)),  # left, top
        (6, (C, A, D, B)),  # right, top
        (7, (D, B, C, A)),  # right, bottom
        (8, (B, D, A, C)),  # left, bottom
    ],
)
@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_exif_orientation(tmp_path, ending, orientation, corners):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    how = {"quality": 100, "subsampling": 0} if ending == "jpg" else {}
    quadrants(96, 64).save(tmp_path / f"photo.{ending}", exif=exif, **how)
    photo = render(tmp_path / f"photo.{ending}")
    assert (photo.width, photo.height) == ((96, 64) if orientation < 5 else (64, 96))
    found = pixels(tmp_path / f"photo.{ending}")
    for (y, x), colour in zip(((4, 4), (4, 27), (27, 4), (27, 27)), corners, strict=True):
        near(found[y, x], colour)


def save_16_bit_rgb(path):
    values = tf.constant([200 * 257, 100 * 257 + 100, 65535], tf.uint16)
    path.write_bytes(tf.io.encode_png(tf.broadcast_to(values, (40, 40, 3))).numpy())


def save_frames(path):
    first, second = (Image.new("RGB", (40, 40), colour) for colour in (A, B))
    first.save(path, save_all=True, append_images=[second], lossless=True)


def palette(transparency=None):
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, *A])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def plain(mode, value):
    return lambda path: Image.new(mode, (40, 40), value).save(path)


@pytest.mark.parametrize(
    ("name", "save", "expected"),
    [
        ("grey.png", plain("L", 100), (100, 100, 100)),
        ("black-and-white.png", plain("1", 1), (255, 255, 255)),
        ("grey.jpg", plain("L", 100), (100, 100, 100)),
        ("clear.png", plain("RGBA", (200, 0, 0, 0)), (255, 255, 255)),
        ("half.png", plain("RGBA", (255, 0, 0, 128)), (255, 127, 127)),
        ("half-grey.png", plain("LA", (0, 51)), (204, 204, 204)),  # a fifth black, the rest white
        ("opaque.webp", plain("RGBA", (*A, 255)), A),
        ("palette.gif", lambda path: palette().save(path), A),
        ("palette.png", lambda path: palette().save(path), A),
        ("clear-palette.png", lambda path: palette(1).save(path), (255, 255, 255)),
        ("clear-colour.png", lambda p: Image.new("RGB", (40, 40), A).save(p, transparency=A),
         (255, 255, 255)),
        ("ink.jpg", plain("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        ("ink.tif", plain("CMYK", (255, 0, 255, 0)), (0, 255, 0)),
        ("16.png", plain("I;16", 128 * 257), (128, 128, 128)),
        ("16.tif", plain("I;16", 65535), (255, 255, 255)),
        ("32.tif", plain("I", 100 * 257), (100, 100, 100)),
        ("16-rgb.png", save_16_bit_rgb, (200, 100, 255)),
        ("video.tif", plain("YCbCr", (100, 128, 128)), (100, 100, 100)),
        ("frames.gif", save_frames, A),
        ("frames.webp", save_frames, A),
        ("frames.png", save_frames, A),
        ("plain.bmp", plain("RGB", A), A),
        ("plain.JPEG", plain("RGB", A), A),
    ],
)  # fmt: skip
def test_every_kind_of_picture(tmp_path, name, save, expected):
    save(tmp_path / name)
    near(pixels(tmp_path / name), expected)


def exchanged_profile():
    """An sRGB profile in which what is stored as red is seen as blue, and the other way."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    for one, other in ((b"rXYZ", b"bXYZ"), (b"rTRC", b"bTRC")):
        profile = profile.replace(one, b"????", 1).replace(other, one, 1).replace(b"????", other, 1)
    return profile


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.tif"])
def test_colour_profiles_are_applied(tmp_path, name):
    Image.new("RGB", (40, 40), (255, 0, 0)).save(tmp_path / name, icc_profile=exchanged_profile())
    near(pixels(tmp_path / name), (0, 0, 255))


def test_a_profile_goes_with_transparency_and_palettes(tmp_path):
    profile = exchanged_profile()
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 128))
    clear.save(tmp_path / "half.png", icc_profile=profile)
    near(pixels(tmp_path / "half.png"), (127, 127, 255))
    palette().save(tmp_path / "palette.png", icc_profile=profile)
    near(pixels(tmp_path / "palette.png"), A[::-1])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_profile_of_no_use_changes_nothing(tmp_path, mode):
    image = Image.new("RGB", (40, 40), (90, 90, 90)).convert(mode)
    image.save(tmp_path / "damaged.tif", icc_profile=b"no profile")
    near(pixels(tmp_path / "damaged.tif"), 90)
    other = exchanged_profile() if mode != "RGB" else b""
    image.save(tmp_path / "other.tif", icc_profile=other)  # of other pixels than the photo's
    near(pixels(tmp_path / "other.tif"), 90)


def test_center_is_the_middle_square(tmp_path):
    image = Image.new("RGB", (90, 30), A)
    image.paste(B, (30, 0, 60, 30))
    image.save(tmp_path / "wide.png")
    near(pixels(tmp_path / "wide.png", 30), B)
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    near(pixels(tmp_path / "tall.png", 30), B)


def test_pad_keeps_all_of_it_with_grey_around(tmp_path):
    Image.new("RGB", (80, 40), A).save(tmp_path / "wide.png")
    found = pixels(tmp_path / "wide.png", 32, "pad")
    near(found[:7], 128)
    near(found[9:23], A)
    near(found[25:], 128)
    Image.new("RGB", (1000, 1), A).save(tmp_path / "line.png")
    near(pixels(tmp_path / "line.png", 32, "pad")[:8], 128)


def test_all_sizes_come_from_one_decoding(tmp_path, monkeypatch):
    quadrants().save(tmp_path / "photo.png")
    opened = []
    real = Image.open
    monkeypatch.setattr(
        photo_pixels.Image, "open", lambda path, **o: opened.append(path) or real(path, **o)
    )
    photo = photo_pixels.render(str(tmp_path / "photo.png"), Style((16, 24, 200), "center", 95))
    assert len(opened) == 1
    sizes = {size: real(io.BytesIO(jpeg)).size for size, jpeg in photo.jpegs.items()}
    assert sizes == {16: (16, 16), 24: (24, 24), 200: (200, 200)}


@pytest.mark.parametrize("crop", ["center", "pad"])
def test_decoding_at_a_reduced_scale_loses_nothing_to_speak_of(tmp_path, crop):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    image = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
    image.save(tmp_path / "photo.jpg", quality=95)
    image.save(tmp_path / "photo.png")  # is decoded in full
    error = pixels(tmp_path / "photo.jpg", 64, crop) - pixels(tmp_path / "photo.png", 64, crop)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40


def test_downscaling_averages(tmp_path):
    board = np.uint8(np.indices((400, 400)).sum(0) % 2 * 255)  # single pixels, black and white
    Image.fromarray(board).save(tmp_path / "board.png")
    near(pixels(tmp_path / "board.png", 40), 128)


def test_nothing_but_pixels_goes_on(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    quadrants().save(tmp_path / "p.jpg", exif=exif, comment=b"at home", dpi=(300, 300))
    jpeg = render(tmp_path / "p.jpg").jpegs[32]
    assert b"somebody" not in jpeg and b"at home" not in jpeg and b"Exif" not in jpeg


def test_quality(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    sizes = [len(render(tmp_path / "noise.png", quality=q).jpegs[32]) for q in (50, 95)]
    assert sizes[0] * 1.5 < sizes[1]


def test_what_counts_as_enlarged():
    photo = Rendered({}, width=300, height=200)
    assert [
        photo_pixels.is_enlarged(photo.width, photo.height, s, "center") for s in (200, 201)
    ] == [False, True]
    assert [photo_pixels.is_enlarged(photo.width, photo.height, s, "pad") for s in (300, 301)] == [
        False,
        True,
    ]


def save_truncated(path):
    quadrants(200, 200).save(path, quality=95)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_postscript(path):
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("truncated.jpg", save_truncated),
        ("truncated.png", save_truncated),
        ("empty.jpg", lambda path: path.write_bytes(b"")),
        ("text.jpg", lambda path: path.write_text("no picture")),
        ("float.tif", plain("F", 0.5)),
        ("postscript.jpg", save_postscript),
        ("missing.jpg", lambda path: None),
    ],
)
def test_what_cannot_be_read_raises(tmp_path, name, save):
    save(tmp_path / name)
    with pytest.raises((OSError, ValueError)):
        render(tmp_path / name)


def test_decompression_bombs_raise_and_merely_large_photos_do_not(tmp_path, monkeypatch):
    quadrants(64, 64).save(tmp_path / "photo.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    with pytest.raises(Image.DecompressionBombError):
        render(tmp_path / "photo.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert render(tmp_path / "photo.png").width == 64


def test_endings_are_those_of_pictures():
    endings = photo_pixels.file_endings()
    assert {".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".bmp"} <= endings
    assert not {".eps", ".pdf", ".txt", ".csv", ""} & endings
