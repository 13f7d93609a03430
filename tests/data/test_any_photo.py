import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image

from flowers_tpu.convert import photo_pixels
from flowers_tpu.data import decode
from flowers_tpu.data.any_photo import AnyPhotoDecoder, upright_square
from tests.photos import jpeg


def scene(width, height):
    """Soft colours that differ everywhere, so that a turned or shifted one is another."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    x, y = x / width, y / height
    channels = [255 * x, 255 * y, 127 + 120 * np.sin(9 * x + 5 * y)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def content_of(pixels, orientation=None):
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(("photo_size", "image_size"), [(32, 32), (48, 32), (64, 32), (100, 32)])
def test_a_photo_of_the_data_sets_size_is_decoded_as_the_pipeline_does(photo_size, image_size):
    own = decode.for_evaluation(photo_size, image_size)
    content = jpeg(np.random.default_rng(0).integers(0, 256, (photo_size,) * 2 + (3,), np.uint8))
    np.testing.assert_array_equal(AnyPhotoDecoder(own)(tf.constant(content)), own(content))


@pytest.mark.parametrize("orientation", [None, 1, 2, 3, 4, 5, 6, 7, 8])
def test_any_other_as_a_conversion_then_the_pipeline_do(tmp_path, orientation):
    content = content_of(scene(301, 200), orientation)
    (tmp_path / "photo.jpg").write_bytes(content)
    style = photo_pixels.Style((48,), "center", 95)
    converted = photo_pixels.render(str(tmp_path / "photo.jpg"), style).jpegs[48]
    own = decode.for_evaluation(48, 32)
    found, wanted = AnyPhotoDecoder(own)(tf.constant(content)), own(converted)
    difference = np.abs(np.int32(found) - np.int32(wanted))
    assert difference.mean() < 1 and difference.max() <= 8
    # A scene that is turned otherwise is far from it.
    assert np.abs(np.int32(wanted)[::-1] - np.int32(wanted)).mean() > 20


@pytest.mark.parametrize(
    ("width", "height", "reduced_by"),
    [(200, 301, 2), (64, 64, 1), (20, 31, 1), (1000, 130, 2), (300, 600, 4), (4, 4, 1), (1, 1, 1)],
)
def test_sizes_and_aspects(width, height, reduced_by):
    content = content_of(scene(width, height))
    found = upright_square(tf.constant(content), 32)
    decoded = Image.fromarray(tf.io.decode_jpeg(content, 3, reduced_by).numpy())
    difference = np.abs(np.int32(found) - np.int32(np.asarray(photo_pixels._crop(decoded, 32))))
    assert difference.mean() < 0.5 and difference.max() <= 6


def test_a_grey_photo_gets_three_channels():
    content = io.BytesIO()
    Image.fromarray(scene(90, 60)[..., 0]).save(content, "JPEG")
    found = upright_square(tf.constant(content.getvalue()), 32).numpy()
    assert found.shape == (32, 32, 3) and (found[..., 0] == found[..., 1]).all()


def test_what_is_no_jpeg_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        AnyPhotoDecoder(decode.for_evaluation(32, 32))(tf.constant(b"no photo"))
