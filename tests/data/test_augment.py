import itertools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import augment
from flowers_tpu.data.augment import (
    CROP_LEFT,
    CROP_SIDE,
    CROP_TOP,
    FLIP_LEFT_RIGHT,
    FLIP_UP_DOWN,
    SATURATION,
    Augmentation,
)

UNCHANGED = Augmentation(
    flip_left_right=False, flip_up_down=False, saturation=(1.0, 1.0), crop_min=1.0
)
FLIPS_ONLY = Augmentation(saturation=(1.0, 1.0), crop_min=1.0)
LARGEST = float(np.float32(1 - 2**-23))  # the largest draw there is


def draws_of(**named):
    """Draws of 0.75 (no flip), but for the named ones."""
    values = np.full(augment.NUM_DRAWS, 0.75, np.float32)
    for name, value in named.items():
        values[getattr(augment, name.upper())] = value
    return tf.constant(values)


def for_examples(function, seed, count):
    """function(draws) of the first examples of a run, in an array."""

    @tf.function
    def results():
        example = function(tf.zeros([augment.NUM_DRAWS]))
        return tf.map_fn(
            lambda number: function(augment.draw(seed, number)),
            tf.range(count, dtype=tf.int64),
            fn_output_signature=example.dtype,
        )

    return results().numpy()


def drawn(seed, count):
    return for_examples(lambda draws: draws, seed, count)


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)


# Draws


def test_draws_stay_the_same_in_every_version():
    np.testing.assert_array_equal(
        augment.draw(3, tf.constant(5, tf.int64)),
        np.float32(
            [
                *(0.30866754055023193, 0.0959700345993042, 0.37037038803100586),
                *(0.39366352558135986, 0.8883836269378662, 0.9248507022857666),
            ]
        ),
    )


def test_each_example_and_each_seed_has_draws_of_its_own():
    several = np.concatenate([drawn(0, 300), drawn(1, 300), drawn(2**31 - 1, 300)])
    assert several.shape == (900, 6)
    assert len(np.unique(several, axis=0)) == 900
    np.testing.assert_array_equal(drawn(1, 300), several[300:600])


def test_draws_are_uniform_and_independent():
    values = drawn(0, 2000)
    assert values.min() >= 0
    assert values.max() < 1
    # Standard errors: 0.289 / sqrt(2000) = 0.0065 of a mean, 1 / sqrt(2000) = 0.022 of a
    # correlation.
    np.testing.assert_allclose(values.mean(axis=0), 0.5, atol=0.025)
    np.testing.assert_allclose(values.std(axis=0), 1 / np.sqrt(12), atol=0.02)
    np.testing.assert_allclose(np.corrcoef(values.T), np.eye(6), atol=0.09)


# Saturation


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7, 2.0, 50.0])
def test_saturate_equals_tensorflows(factor):
    named = [[0, 0, 0], [1, 1, 1], [0.4, 0.4, 0.4], [1, 0, 0], [0, 1, 1], [0.5, 0.5, 0]]
    image = np.concatenate([named, np.random.default_rng(0).uniform(0, 1, (994, 3))])
    image = np.float32(image).reshape(10, 100, 3)
    np.testing.assert_allclose(
        augment.saturate(tf.constant(image * 255), factor) / 255,
        tf.image.adjust_saturation(image, factor),
        atol=2e-6,
    )


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (0.0, [200, 200, 200]),  # grey as bright as the brightest channel
        (0.5, [200, 150, 125]),
        (1.0, [200, 100, 50]),
        (2.0, [200, 200 - 100 * 4 / 3, 0]),  # saturation 150 / 200 is 1 at a factor of 4 / 3
    ],
)
def test_saturate_worked_out_by_hand(factor, expected):
    pixel = tf.constant([200.0, 100.0, 50.0])
    np.testing.assert_allclose(augment.saturate(pixel, factor), expected, rtol=1e-6)


# Crop


@pytest.mark.parametrize("image_size", [1, 5, 32, 33, 192, 331])
@pytest.mark.parametrize("crop_min", [0.001, 0.5, 0.7, 1.0])
def test_crops_lie_within_the_photo(image_size, crop_min):
    augmentation = Augmentation(crop_min=crop_min)
    for side, top, left in itertools.product((0.0, 0.3, LARGEST), repeat=3):
        draws = draws_of(crop_side=side, crop_top=top, crop_left=left)
        y, x, height, width = augment.crop_window(draws, image_size, augmentation).numpy()
        assert height == width >= max(1, crop_min * image_size - 0.5)
        assert 0 <= y <= image_size - height
        assert 0 <= x <= image_size - width


@pytest.mark.parametrize(
    ("side", "top", "left", "expected"),
    [
        (0.0, 0.0, 0.0, [0, 0, 14, 14]),  # 70 % of 20; its corner has 7 places on each side
        (0.0, LARGEST, 0.0, [6, 0, 14, 14]),
        (0.0, 0.0, LARGEST, [0, 6, 14, 14]),
        (0.5, 0.5, 0.2, [2, 0, 17, 17]),  # 85 %; 4 places
        (LARGEST, LARGEST, LARGEST, [0, 0, 20, 20]),
    ],
)
def test_crops_worked_out_by_hand(side, top, left, expected):
    draws = draws_of(crop_side=side, crop_top=top, crop_left=left)
    window = augment.crop_window(draws, 20, Augmentation(crop_min=0.7))
    assert window.dtype == tf.int32
    assert window.numpy().tolist() == expected


def test_crops_reach_all_sizes_and_all_corners():
    augmentation = Augmentation(crop_min=0.7)
    windows = for_examples(lambda draws: augment.crop_window(draws, 10, augmentation), 0, 500)
    assert set(windows[:, 2]) == {7, 8, 9, 10}
    smallest = windows[windows[:, 2] == 7]
    assert {(top, left) for top, left, _, _ in smallest} == set(
        itertools.product(range(4), repeat=2)
    )


# Whole augmentations


def test_the_identity_returns_the_photo(photo):
    for value in (0.0, LARGEST):
        draws = tf.fill([augment.NUM_DRAWS], value)
        window = augment.crop_window(draws, 20, UNCHANGED)
        assert window.numpy().tolist() == [0, 0, 20, 20]
        np.testing.assert_array_equal(augment.augment(photo, draws, 20, UNCHANGED), photo)


@pytest.mark.parametrize(
    ("left_right", "up_down", "turned"),
    [
        (0.5, 0.5, lambda image: image),
        (0.49, 0.5, lambda image: image[:, ::-1]),
        (0.5, 0.49, lambda image: image[::-1]),
        (0.0, 0.0, lambda image: image[::-1, ::-1]),
    ],
)
def test_flips(photo, left_right, up_down, turned):
    draws = draws_of(flip_left_right=left_right, flip_up_down=up_down)
    result = augment.augment(photo, draws, 20, FLIPS_ONLY)
    np.testing.assert_array_equal(result, turned(photo))
    np.testing.assert_array_equal(augment.augment(photo, draws, 20, UNCHANGED), photo)


def test_each_orientation_comes_to_a_quarter_of_the_photos():
    corners = tf.constant([[[0] * 3, [1] * 3], [[2] * 3, [3] * 3]], tf.uint8)
    turned = for_examples(lambda draws: augment.augment(corners, draws, 2, FLIPS_ONLY), 4, 1000)
    # Which corner comes to the upper left. The standard deviation of a count is 13.7.
    counts = np.bincount(turned[:, 0, 0, 0])
    np.testing.assert_allclose(counts, 250, atol=50)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("saturation", [0.0, 0.25, 0.8])  # factors 0, 0.5 and 1.6
def test_crop_resize_flip_and_colour_are_tensorflows(photo, mirrored, saturation):
    draws = draws_of(
        crop_side=0.5,
        crop_top=0.5,
        crop_left=0.2,
        flip_left_right=0.1 if mirrored else 0.9,
        saturation=saturation,
    )
    crop = photo[2:19, 0:17]  # worked out above
    result = augment.augment(crop, draws, 20, Augmentation()).numpy()

    expected = tf.image.resize(crop, [20, 20]) / 255
    if mirrored:
        expected = tf.image.flip_left_right(expected)
    expected = tf.image.adjust_saturation(expected, saturation * 2) * 255
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result, expected, atol=0.501)


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)])
def test_the_draw_spans_the_range_of_saturation(draw, factor):
    augmentation = Augmentation(False, False, saturation=(0.5, 1.5), crop_min=1.0)
    pixel = np.uint8([[[200, 100, 50]]])
    result = augment.augment(pixel, draws_of(saturation=draw), 1, augmentation)
    expected = {0.5: [200, 150, 125], 1.0: [200, 100, 50], 1.5: [200, 67, 0]}[factor]
    assert result.numpy().tolist() == [[expected]]


def test_every_kind_of_draw_has_a_place_of_its_own():
    places = [FLIP_LEFT_RIGHT, FLIP_UP_DOWN, SATURATION, CROP_SIDE, CROP_TOP, CROP_LEFT]
    assert sorted(places) == list(range(augment.NUM_DRAWS))
