import pathlib

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import decode, records
from tests import photos

_SHARED = pathlib.Path(__file__).parents[3] / "shared"
REAL = _SHARED / "data/oxford102/tfrecords-jpeg-512x512/train"


def full(jpeg, size):
    """Decoded whole, then made smaller."""
    image = tf.io.decode_jpeg(jpeg, channels=3)
    return tf.image.resize(image, [size, size], antialias=True).numpy()


def psnr(image, reference) -> float:
    """Peak signal-to-noise ratio, dB."""
    return 10 * np.log10(255**2 / np.mean((np.float64(image) - reference) ** 2))


@pytest.mark.parametrize(
    ("photo_size", "image_size", "least_side", "factor", "side"),
    [
        (512, 512, 1.0, 1, 512),
        (512, 512, 0.7, 1, 512),
        (512, 257, 1.0, 1, 512),
        (512, 256, 1.0, 2, 256),
        (512, 256, 0.7, 1, 512),  # the least crop has 358 pixels: 179 of half the size
        (512, 179, 0.7, 2, 256),
        (512, 180, 0.7, 1, 512),
        (512, 65, 1.0, 4, 128),
        (512, 64, 1.0, 8, 64),
        (512, 10, 1.0, 8, 64),  # a decoder knows no smaller scale
        (331, 165, 1.0, 2, 166),  # decoders round up
        (331, 166, 1.0, 1, 331),  # of 165.5 pixels, it would be enlarged
        (32, 192, 1.0, 1, 32),
        (512, 128, 0.25, 1, 512),
    ],
)
def test_how_far_a_training_photo_is_reduced(photo_size, image_size, least_side, factor, side):
    decoder = decode.for_training(photo_size, image_size, least_side)
    assert (decoder.factor, decoder.side) == (factor, side)
    # What is cut out is never smaller than what is made of it just for having been reduced.
    assert factor == 1 or photo_size * least_side / factor >= image_size


@pytest.mark.parametrize(
    ("photo_size", "image_size", "least_side", "factor", "side"),
    [
        (512, 192, 0.7, 1, 275),  # 0.7 of it are just the 192 pixels that are wanted
        (512, 64, 0.7, 4, 92),
        (512, 512, 0.7, 1, 512),  # never enlarged
        (512, 360, 0.7, 1, 512),
    ],
)
def test_photos_to_be_warped_are_shrunk_before(photo_size, image_size, least_side, factor, side):
    decoder = decode.for_training(photo_size, image_size, least_side, warps=True)
    assert (decoder.factor, decoder.side) == (factor, side)


@pytest.mark.parametrize(
    ("photo_size", "image_size", "factor"),
    [
        *((512, 512, 1), (512, 331, 1), (512, 257, 1)),
        *((512, 256, 2), (512, 192, 2), (512, 129, 2), (512, 128, 4), (512, 64, 8), (512, 7, 8)),
        *((331, 192, 1), (331, 165, 2), (192, 192, 1), (224, 112, 2)),
    ],
)
def test_how_far_a_photo_of_an_evaluation_is_reduced(photo_size, image_size, factor):
    decoder = decode.for_evaluation(photo_size, image_size)
    assert (decoder.factor, decoder.side) == (factor, image_size)


@pytest.mark.parametrize("photo_size", [64, 67, 40])
@pytest.mark.parametrize("image_size", [5, 8, 16, 20, 33])
def test_photos_get_the_size_that_was_worked_out(photo_size, image_size):
    jpeg = photos.jpeg(photos.photo(np.random.default_rng(0), photo_size))
    for decoder in (
        decode.for_training(photo_size, image_size, 1.0),
        decode.for_training(photo_size, image_size, 0.6),
        decode.for_evaluation(photo_size, image_size),
    ):
        compiled = tf.function(decoder, input_signature=[tf.TensorSpec([], tf.string)])
        image = compiled(tf.constant(jpeg))
        assert compiled.get_concrete_function().structured_outputs.shape == [decoder.side] * 2 + [3]
        assert (image.shape, image.dtype) == ((decoder.side, decoder.side, 3), tf.uint8)


def test_a_photo_of_the_size_that_is_wanted_comes_as_it_is():
    jpeg = photos.jpeg(photos.photo(np.random.default_rng(0), 40))
    pixels = tf.io.decode_jpeg(jpeg, channels=3)
    np.testing.assert_array_equal(decode.for_evaluation(40, 40)(jpeg), pixels)
    np.testing.assert_array_equal(decode.for_training(40, 40, 0.7)(jpeg), pixels)


def test_what_is_not_a_factor_away_is_shrunk_by_tensorflow_with_antialiasing():
    generator = np.random.default_rng(0)
    jpeg = photos.jpeg(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    np.testing.assert_allclose(decode.for_evaluation(40, 31)(jpeg), full(jpeg, 31), atol=0.505)
    half = tf.io.decode_jpeg(jpeg, channels=3, ratio=2)
    expected = tf.image.resize(half, [17, 17], antialias=True)
    np.testing.assert_allclose(decode.for_evaluation(40, 17)(jpeg), expected, atol=0.505)


def test_a_photo_of_another_size_is_an_error_and_not_resized():
    jpeg = photos.jpeg(photos.photo(np.random.default_rng(0), 48))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        tf.function(decode.for_training(40, 40, 1.0))(tf.constant(jpeg))


@pytest.mark.parametrize("size", [128, 64, 32, 48])
def test_smooth_photos_lose_nothing_to_speak_of(size):
    """Decoding at a smaller scale gives what shrinking the whole photo gives."""
    generator = np.random.default_rng(3)
    for _ in range(5):
        jpeg = photos.jpeg(photos.photo(generator, 256))
        assert psnr(decode.for_evaluation(256, size)(jpeg), full(jpeg, size)) > 45


@pytest.fixture(scope="module")
def real_losses():
    """Of each real photo, by size: its PSNR to its shrunk whole, and to the means of blocks."""
    if not REAL.is_dir():
        pytest.skip(f"{REAL}: no real photos here")

    def losses(serialized):
        jpeg = records.parse(serialized)["image"]
        whole = tf.cast(tf.io.decode_jpeg(jpeg, channels=3), tf.float32)
        found = []
        for size in LOSSES:
            image = tf.cast(decode.for_evaluation(512, size)(jpeg), tf.float32)
            antialiased = tf.image.resize(whole, [size, size], antialias=True)
            blocks = tf.nn.avg_pool2d(whole[tf.newaxis], 512 // size, 512 // size, "SAME")[0]
            blocks = blocks if 512 % size == 0 else image
            found.append([tf.image.psnr(image, other, 255.0) for other in (antialiased, blocks)])
        return tf.convert_to_tensor(found)

    paths = [str(path) for path in sorted(REAL.glob("*.tfrec"))[:2]]
    each = tf.data.TFRecordDataset(paths).map(losses, num_parallel_calls=tf.data.AUTOTUNE)
    return dict(zip(LOSSES, np.moveaxis(list(each.as_numpy_iterator()), 0, -1), strict=True))


# By size: the least and the median PSNR to `tf.image.resize(antialias=True)` of the whole photo,
# and the least one to the means of the blocks of pixels that are made one.
LOSSES = {
    256: (31, 41, 42),
    224: (37, 45, None),
    192: (40, 48, None),
    128: (32, 38, 42),
    64: (31, 36, 44),
}


@pytest.mark.parametrize("size", LOSSES)
def test_what_real_photos_lose(real_losses, size):
    """The statement of the README."""
    to_antialiased, to_blocks = real_losses[size]
    least, median, least_to_blocks = LOSSES[size]
    print(f"512 -> {size}: {to_antialiased.min():.1f} dB, median {np.median(to_antialiased):.1f}")
    assert len(to_antialiased) > 100
    assert to_antialiased.min() > least
    assert np.median(to_antialiased) > median
    if least_to_blocks:
        print(f"to the means of blocks: {to_blocks.min():.1f} dB, {np.median(to_blocks):.1f}")
        assert to_blocks.min() > least_to_blocks
