import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data.augment import apply, colour, operations
from flowers_tpu.data.augment.draws import Draws
from flowers_tpu.data.augment.options import Augmentation
from tests.data.augment.augmenting import LARGEST, drawn, draws_of, on_device, on_host
from tests.photos import UNCHANGED


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)


# One field and one function

ALL = dataclasses.replace(
    *(UNCHANGED,),
    **{"saturation_lower": 0.5, "saturation_upper": 0.6, "brightness": 0.2, "contrast": 0.5},
    **{"hue": 0.3, "random_erasing": 1.0},
)
FLOATS = {field.name for field in dataclasses.fields(Augmentation) if field.type is float}
OF_GEOMETRY = {"crop_min", "rotation", "zoom", "translation"}
OF_MIXING = {"mixup", "cutmix", "mix_probability"}


class Noting:
    """Passes an augmentation's values on, and notes whose they are."""

    def __init__(self, augmentation):
        self.augmentation, self.read = augmentation, set()

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(self.augmentation, name)


def applied(operation, photo, wanted):
    images = tf.cast(photo[np.newaxis], tf.float32)
    draws = Draws(draws_of(erase=0.0)[tf.newaxis])
    return images, operation.apply(images, wanted, draws)


def test_every_number_that_is_not_geometrys_or_mixings_has_an_operation(photo):
    """A field that no operation reads would be a flag without an effect."""
    read = []
    for operation in operations.OPERATIONS:
        noting = Noting(ALL)
        applied(operation, photo, noting)
        read += noting.read
    assert sorted(read) == sorted(FLOATS - OF_GEOMETRY - OF_MIXING)


@pytest.mark.parametrize("operation", operations.OPERATIONS, ids=lambda o: o.apply.__name__)
def test_an_operation_does_something_only_if_it_is_asked_for(photo, operation):
    images, result = applied(operation, photo, ALL)
    assert np.abs(result - images).max() > 1
    images, result = applied(operation, photo, UNCHANGED)
    assert result is images


def darken_by_contrast(images, wanted, draws):
    """An operation that somebody has added."""
    return images - draws.between("contrast", 0, 100)[:, tf.newaxis, tf.newaxis, tf.newaxis]


def test_a_function_that_is_added_takes_effect_on_both_routes(photo, monkeypatch):
    added = operations.Operation(darken_by_contrast, ("contrast",))
    monkeypatch.setattr(operations, "OPERATIONS", [*operations.OPERATIONS, added])
    # What is compiled for the host is kept, and was compiled without it.
    monkeypatch.setattr(apply, "_compiled", functools.cache(apply._compiled.__wrapped__))
    augmentation = dataclasses.replace(UNCHANGED, brightness=0.5)
    draws = draws_of(brightness=0.9, contrast=0.3)  # + 0.4 * 255, cut at 255, then - 30
    expected = np.minimum(photo + 102.0, 255) - 30
    host = on_host(photo, draws, 20, augmentation)
    device = on_device(photo[np.newaxis], draws[tf.newaxis], 20, augmentation)[0]
    np.testing.assert_allclose(host, expected, atol=0.505)
    np.testing.assert_allclose(device, expected, atol=0.505)


# What they do


def test_colours_are_tensorflows_in_their_order(photo):
    """Brightness, contrast, saturation, hue."""
    augmentation = dataclasses.replace(
        *(UNCHANGED,),
        **{"saturation_lower": 0.5, "saturation_upper": 1.5},
        **{"brightness": 0.1, "contrast": 0.2, "hue": 0.3},
    )
    draws = draws_of(brightness=0.9, contrast=0.1, saturation=0.7, hue=0.2)
    expected = np.clip(tf.image.adjust_brightness(photo / np.float32(255), 0.08), 0, 1)
    expected = np.clip(tf.image.adjust_contrast(expected, 0.84), 0, 1)
    expected = tf.image.adjust_saturation(expected, 1.2)
    expected = tf.image.adjust_hue(expected, -0.18) * 255
    device = on_device(photo[np.newaxis], draws[tf.newaxis], 20, augmentation)[0]
    np.testing.assert_allclose(device, expected, atol=0.505)
    np.testing.assert_allclose(on_host(photo, draws, 20, augmentation), expected, atol=0.505)


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)])
def test_the_draw_spans_the_range_of_saturation(draw, factor):
    augmentation = dataclasses.replace(UNCHANGED, saturation_lower=0.5, saturation_upper=1.5)
    pixel = np.uint8([[[200, 100, 50]]])
    result = on_host(pixel, draws_of(saturation=draw), 1, augmentation)
    expected = {0.5: [200, 150, 125], 1.0: [200, 100, 50], 1.5: [200, 67, 0]}[factor]
    assert result.tolist() == [[expected]]


# Erasing


def erased(draws, probability, size=60):
    """Which pixels are erased, `[batch, size, size]`."""
    black = np.zeros((len(draws), size, size, 3), np.uint8)
    augmentation = dataclasses.replace(UNCHANGED, random_erasing=probability)
    result = on_device(black, draws, size, augmentation)
    painted = (result == np.uint8(colour.MEAN_COLOUR)).all(axis=-1)
    np.testing.assert_array_equal(result[~painted], 0)
    return painted


@pytest.mark.parametrize(
    ("named", "height", "width"),
    [
        # A tenth of the area: (draw - 0.02) / (1/3 - 0.02). Sides as 1 : 1, 2 : 1 and 1 : 2;
        # (ln ratio - ln 0.3) / (ln 1/0.3 - ln 0.3) is 0.5 for a ratio of 1.
        ({"erase_area": 0.08 / (1 / 3 - 0.02), "erase_ratio": 0.5}, 0.316, 0.316),
        ({"erase_area": 0.08 / (1 / 3 - 0.02), "erase_ratio": 0.7879}, 0.447, 0.224),
        ({"erase_area": 0.08 / (1 / 3 - 0.02), "erase_ratio": 0.2121}, 0.224, 0.447),
        ({"erase_area": 1.0, "erase_ratio": 0.0}, 0.316, 1.0),  # wider than the image: cut
    ],
)
@pytest.mark.parametrize(("top", "left"), [(0.0, 0.0), (0.5, 0.25), (LARGEST, LARGEST)])
def test_rectangles_by_hand(named, height, width, top, left):
    draws = draws_of(erase=0.2, erase_top=top, erase_left=left, **named)
    rows, columns = np.nonzero(erased(draws[tf.newaxis], 0.25)[0])
    for places, fraction, draw in ((rows, height, top), (columns, width, left)):
        begin = draw * (1 - fraction) * 60
        assert places.min() == pytest.approx(begin, abs=0.55)
        assert places.max() + 1 == pytest.approx(begin + fraction * 60, abs=0.55)
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "a whole rectangle"


def test_so_many_are_erased_as_the_probability_says():
    painted = erased(drawn(2, 0, 1000), 0.3, size=40)
    parts = painted.mean(axis=(1, 2))
    assert (parts > 0).mean() == pytest.approx(0.3, abs=0.06)  # standard error: 0.014
    assert 0.3 < parts.max() < 0.36 and 0.01 < parts[parts > 0].min() < 0.03
    assert parts[parts > 0].mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    assert painted.any(axis=(0, 1)).all() and painted.any(axis=(0, 2)).all(), "up to all edges"


def test_nothing_is_erased_by_a_probability_of_nothing():
    draws = draws_of(erase=0.0, erase_area=1.0)[tf.newaxis]
    assert not erased(draws, 0.0).any()
    assert erased(draws, 1e-6).any()
