import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data.augment import colour

NAMED = [[0, 0, 0], [1, 1, 1], [0.4, 0.4, 0.4], [1, 0, 0], [0, 1, 1], [0.5, 0.5, 0]]
PIXEL = (200.0, 100.0, 50.0)


@pytest.fixture(scope="module")
def images():
    """Two images of all kinds of colours, `[2, 10, 50, 3]` in [0, 1]."""
    others = np.random.default_rng(0).uniform(0, 1, (994, 3))
    return np.float32(np.concatenate([NAMED, others])).reshape(2, 10, 50, 3)


def of_pixel(operation, *values):
    """What becomes of one pixel."""
    image = tf.constant(PIXEL, shape=[1, 1, 1, 3])
    return operation(image, *(tf.constant([v], tf.float32) for v in values)).numpy().ravel()


def assert_as_tensorflows(operation, reference, images, parameters, atol):
    """Each image by a parameter of its own, and both of them swapped."""
    for pair in (parameters, parameters[::-1]):
        result = operation(tf.constant(images * 255), tf.constant(pair, tf.float32))
        expected = [reference(image, value) for image, value in zip(images, pair, strict=True)]
        np.testing.assert_allclose(result / 255, np.clip(expected, 0, 1), atol=atol)


@pytest.mark.parametrize("deltas", [(0.0, 0.3), (-0.3, 1.0)])
def test_brightness_is_tensorflows_and_clipped(images, deltas):
    reference = tf.image.adjust_brightness
    assert_as_tensorflows(colour.brighten, reference, images, deltas, 1e-6)


@pytest.mark.parametrize("factors", [(0.0, 1.0), (0.4, 1.9)])
def test_contrast_is_tensorflows_and_clipped(images, factors):
    assert_as_tensorflows(colour.contrast, tf.image.adjust_contrast, images, factors, 2e-6)


@pytest.mark.parametrize("factors", [(0.0, 0.3), (1.0, 1.7), (2.0, 50.0)])
def test_saturation_is_tensorflows(images, factors):
    assert_as_tensorflows(colour.saturate, tf.image.adjust_saturation, images, factors, 2e-6)


@pytest.mark.parametrize("turns", [(0.0, 0.1), (-0.25, 1 / 3), (0.5, -0.5)])
def test_hue_is_tensorflows(images, turns):
    assert_as_tensorflows(colour.turn_hue, tf.image.adjust_hue, images, turns, 5e-6)


@pytest.mark.parametrize(
    ("delta", "expected"),
    [(0.0, [200, 100, 50]), (0.2, [251, 151, 101]), (0.4, [255, 202, 152]), (-0.4, [98, 0, 0])],
)
def test_brightness_by_hand(delta, expected):
    np.testing.assert_allclose(of_pixel(colour.brighten, delta), expected, rtol=1e-6)


def test_contrast_by_hand():
    """Means of the channels are 100, 100 and 200."""
    image = tf.constant([[[[50, 40, 250], [150, 160, 150]]]], tf.float32)
    result = colour.contrast(image, tf.constant([1.5]))
    np.testing.assert_allclose(result, [[[[25, 10, 255], [175, 190, 125]]]], rtol=1e-6)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (0.0, [200, 200, 200]),  # grey as bright as the brightest channel
        (0.5, [200, 150, 125]),
        (1.0, [200, 100, 50]),
        (2.0, [200, 200 - 100 * 4 / 3, 0]),  # saturation 150 / 200 is 1 at a factor of 4 / 3
    ],
)
def test_saturation_by_hand(factor, expected):
    np.testing.assert_allclose(of_pixel(colour.saturate, factor), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (0.0, [200, 100, 50]),  # a hue of 20 degrees
        (1 / 3, [50, 200, 100]),  # a third of the circle: the channels move on
        (-1 / 3, [100, 50, 200]),
        (40 / 360, [200, 200, 50]),  # yellow
        (-20 / 360, [200, 50, 50]),  # red
        (0.5, [50, 150, 200]),  # opposite: 200 degrees
    ],
)
def test_hue_by_hand(turn, expected):
    np.testing.assert_allclose(of_pixel(colour.turn_hue, turn), expected, rtol=1e-5)


def test_erasing_by_hand():
    """A pixel is erased where its centre lies in the rectangle, its lower right edge excluded."""
    images = np.random.default_rng(0).uniform(0, 255, (4, 6, 7, 3)).astype(np.float32)
    result = colour.erase(
        tf.constant(images),
        top=tf.constant([1.0, 0.6, 4.5, 2.0]),
        left=tf.constant([2.0, 0.5, 0.0, 2.0]),
        height=tf.constant([2.0, 1.0, 1.5, 0.0]),
        width=tf.constant([3.0, 1.0, 7.0, 3.0]),
    )
    expected = images.copy()
    expected[0, 1:3, 2:5] = colour.MEAN_COLOUR
    expected[1, 1, 0] = colour.MEAN_COLOUR  # rows from 0.6 to 1.6, columns from 0.5 to 1.5
    expected[2, 4:] = colour.MEAN_COLOUR
    np.testing.assert_array_equal(result, expected)


def test_erased_rectangles_have_imagenets_mean_colour():
    """Its means of the channels, as everybody normalizes by them: 0.485, 0.456, 0.406."""
    np.testing.assert_allclose(
        np.array(colour.MEAN_COLOUR) / 255, [0.485, 0.456, 0.406], atol=0.5 / 255
    )


def test_rounding():
    values = tf.constant([-3.0, 0.0, 0.49, 0.5, 1.5, 2.49, 254.5, 255.0, 260.0])
    assert colour.to_uint8(values).numpy().tolist() == [0, 0, 0, 1, 2, 2, 255, 255, 255]
    assert colour.to_uint8(values).dtype == tf.uint8
