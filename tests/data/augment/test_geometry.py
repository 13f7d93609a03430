import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data.augment import geometry
from flowers_tpu.system import addons
from flowers_tpu.system.errors import RequestError

SIZE = 24


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


# Crop, flips and resize


def matrix(start, length, flip=False, *, source, size):
    return geometry.resize_matrix(
        tf.constant([start], tf.float32),
        tf.constant([length], tf.float32),
        tf.constant([flip]),
        source=source,
        size=size,
    ).numpy()[0]


def resized(photo, top, left, side, size, *, upside_down=False, mirrored=False):
    rows = matrix(top, side, upside_down, source=SIZE, size=size)
    columns = matrix(left, side, mirrored, source=SIZE, size=size)
    return geometry.crop_and_resize(photo[np.newaxis], rows[np.newaxis], columns[np.newaxis])[0]


def test_enlarging_matrix_by_hand():
    """Pixels 1 and 2 of 4 become 4: their centres lie at 0.75, 1.25, 1.75 and 2.25."""
    expected = [[0, 1, 0, 0], [0, 0.75, 0.25, 0], [0, 0.25, 0.75, 0], [0, 0, 1, 0]]
    np.testing.assert_allclose(matrix(1, 2, source=4, size=4), expected, atol=1e-6)
    flipped = matrix(1, 2, True, source=4, size=4)
    np.testing.assert_allclose(flipped, expected[::-1], atol=1e-6)


def test_shrinking_matrix_by_hand():
    """8 pixels become 4: triangles of 4 pixels around 0.5, 2.5, …; at the ends they are cut."""
    inner, end = np.array([1, 3, 3, 1]) / 8, np.array([3, 3, 1]) / 7
    expected = np.zeros((4, 8))
    expected[0, :3], expected[1, 1:5], expected[2, 3:7], expected[3, 5:] = (
        *(end, inner),
        *(inner, end[::-1]),
    )
    np.testing.assert_allclose(matrix(0, 8, source=8, size=4), expected, atol=1e-6)


@pytest.mark.parametrize("size", [SIZE, 7, 40])
@pytest.mark.parametrize(("top", "left", "side"), [(0, 0, SIZE), (3, 5, 17), (23, 0, 1)])
@pytest.mark.parametrize(("upside_down", "mirrored"), [(False, False), (True, False), (True, True)])
def test_crop_and_resize_is_tensorflows(photo, top, left, side, size, upside_down, mirrored):
    result = resized(photo, top, left, side, size, upside_down=upside_down, mirrored=mirrored)
    box = photo[top : top + side, left : left + side]
    expected = tf.image.resize(box, [size, size], antialias=size < side).numpy()
    expected = expected[::-1] if upside_down else expected
    expected = expected[:, ::-1] if mirrored else expected
    np.testing.assert_allclose(result, expected, atol=1e-3)


# Warps


def maps(*, centre=(SIZE / 2, SIZE / 2), side=SIZE, flip=(False, False), degrees=0.0, zoom=1.0,
         shift=(0.0, 0.0)):  # fmt: skip
    return geometry.affine(
        centre=tf.constant([centre], tf.float32),
        side=tf.constant([side], tf.float32),
        flip=tf.constant([flip]),
        radians=tf.constant([np.deg2rad(degrees)], tf.float32),
        zoom=tf.constant([zoom], tf.float32),
        shift=tf.constant([shift], tf.float32),
    )


def warped(photo, size=SIZE, **parameters):
    return geometry.warp(photo[np.newaxis], maps(**parameters), size).numpy()[0]


def transformed(photo, size, matrix):
    """By TensorFlow Addons, or where they are not to be had by the kernel they call."""
    (ay, ax, a), (by, bx, b) = matrix  # from (y, x) in [-0.5, 0.5]; theirs are from pixels (x, y)
    middle = 0.5 / size - 0.5
    transform = [
        *(bx / size, by / size, b + (bx + by) * middle - 0.5),
        *(ax / size, ay / size, a + (ax + ay) * middle - 0.5),
        *(0.0, 0.0),
    ]
    options = {"interpolation": "bilinear", "fill_mode": "reflect", "output_shape": [size, size]}
    image = tf.constant(photo, tf.float32)
    try:
        transform_image = addons.tensorflow_addons("this test").image.transform
    except RequestError:
        options["interpolation"], options["fill_mode"] = "BILINEAR", "REFLECT"
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=image[tf.newaxis],
            transforms=tf.constant([transform], tf.float32),
            fill_value=0.0,
            **options,
        ).numpy()[0]
    return transform_image(image, transform, **options).numpy()


@pytest.mark.parametrize("size", [SIZE, 15])
@pytest.mark.parametrize(
    "parameters",
    [
        {"degrees": 15.0},
        {"degrees": -130.0, "flip": (True, False)},
        {"zoom": 1.6, "centre": (10.0, 13.0), "side": 17.0},
        {"zoom": 0.7},
        {"shift": (0.2, -0.45)},
        {
            **{"degrees": 33.0, "zoom": 0.8, "shift": (-0.3, 0.1), "flip": (True, True)},
            **{"centre": (9.5, 13.5), "side": 19.0},
        },
    ],
)
def test_a_warp_is_that_of_tensorflow_addons(photo, size, parameters):
    matrix = maps(**parameters).numpy()[0].astype(np.float64)
    result = warped(photo, size, **parameters)
    np.testing.assert_allclose(result, transformed(photo, size, matrix), atol=0.05)


def test_the_identity_warp_is_the_photo(photo):
    np.testing.assert_allclose(warped(photo), photo, atol=1e-2)
    for flip in ((True, False), (False, True), (True, True)):
        turned = photo[:: 1 - 2 * flip[0], :: 1 - 2 * flip[1]]
        np.testing.assert_allclose(warped(photo, flip=flip), turned, atol=1e-2)


@pytest.mark.parametrize("size", [SIZE, 36])
def test_without_a_turn_a_warp_is_a_crop_that_is_resized(photo, size):
    top, left, side = 4, 7, 16
    result = warped(photo, size, centre=(top + side / 2, left + side / 2), side=side)
    expected = resized(photo, top, left, side, size).numpy()
    # Where it is enlarged, only one of both sees the pixels around what is cut out.
    inner = slice(2, -2)
    np.testing.assert_allclose(result[inner, inner], expected[inner, inner], atol=1e-2)


@pytest.mark.parametrize("turns", [1, 2, -1])
def test_a_positive_rotation_is_anticlockwise(photo, turns):
    np.testing.assert_allclose(
        warped(photo, degrees=90.0 * turns), np.rot90(photo, turns), atol=2e-2
    )


def test_a_turn_comes_after_the_flip(photo):
    result = warped(photo, degrees=90.0, flip=(False, True))
    np.testing.assert_allclose(result, np.rot90(photo[:, ::-1]), atol=2e-2)


def test_a_zoom_above_1_enlarges():
    """The two by two pixels in the middle become four by four."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[3:5, 3:5] = 100
    along = np.array([0, 25, 75, 100, 100, 75, 25, 0]) / 100  # half a pixel apart
    expected = 100 * along[:, np.newaxis] * along
    result = warped(image, 8, centre=(4, 4), side=8, zoom=2.0)
    np.testing.assert_allclose(result[..., 0], expected, atol=1e-4)
    smaller = warped(image, 8, centre=(4, 4), side=8, zoom=0.5)
    np.testing.assert_allclose(smaller[3:5, 3:5, 0], 25, atol=1e-4)  # halfway to 0 both ways
    assert not smaller[1:3].any() and not smaller[5:7].any()


def test_translation_moves_down_and_right_and_mirrors_what_is_beyond():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(3, axis=2)
    places = [1, 0, 0, 1, 2, 3, 4, 5]  # c b a | a b c
    whole = {"centre": (4, 4), "side": 8}
    down = warped(image, 8, shift=(0.25, 0.0), **whole)
    np.testing.assert_allclose(down, image[places], atol=1e-4)
    right = warped(image, 8, shift=(0.0, 0.25), **whole)
    np.testing.assert_allclose(right, image[:, places], atol=1e-4)
    up = warped(image, 8, shift=(-0.25, 0.0), **whole)
    np.testing.assert_allclose(up, image[[2, 3, 4, 5, 6, 7, 7, 6]], atol=1e-4)


def test_mirrored_more_than_once():
    image = np.arange(4, dtype=np.uint8).reshape(4, 1, 1).repeat(4, axis=1).repeat(3, axis=2)
    far = warped(image, 4, centre=(2, 2), side=4, shift=(-2.25, 0.0))  # 9 pixels further down
    np.testing.assert_allclose(far[:, 0, 0], [1, 2, 3, 3], atol=1e-4)  # places 9, 10, 11, 12


def test_each_photo_of_a_batch_is_warped_by_its_own_map(photo):
    other = 255 - photo
    both = geometry.warp(
        np.stack([photo, other]), tf.concat([maps(degrees=90.0), maps(zoom=1.3)], axis=0), SIZE
    )
    np.testing.assert_allclose(both[0], warped(photo, degrees=90.0), atol=1e-3)
    np.testing.assert_allclose(both[1], warped(other, zoom=1.3), atol=1e-3)
