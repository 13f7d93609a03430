import dataclasses
import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data.augment import apply
from flowers_tpu.data.augment.draws import NUM_DRAWS, Draws
from flowers_tpu.data.augment.options import Augmentation
from tests import photos
from tests.data.augment.augmenting import LARGEST, drawn, draws_of, on_device, on_host
from tests.photos import UNCHANGED

FLIPS_ONLY = dataclasses.replace(UNCHANGED, flip_left_right=True, flip_up_down=True)

ROUTES = {
    "notebook": Augmentation(),
    "colours": Augmentation(brightness=0.2, contrast=0.5, hue=0.1, random_erasing=0.7),
    "warps": Augmentation(rotation=40.0, zoom=0.3, translation=0.2),
    "all": Augmentation(
        **{"brightness": 0.1, "contrast": 0.3, "hue": 0.5, "rotation": 180.0},
        **{"zoom": 0.2, "translation": 0.1, "random_erasing": 0.5},
    ),
    "crop": Augmentation(saturation_lower=1.0, saturation_upper=1.0),
    "trivial": Augmentation(trivial_augment=True),
    "resize": Augmentation(saturation_lower=0.5, saturation_upper=1.5, crop_min=1.0),
}
SIZE, BATCH = 40, 12
SMALLER = 23
SIZES = (SIZE, SMALLER)
# Compiling takes a second each.
COMPILED = [
    *((name, size) for name in ("notebook", "crop") for size in SIZES),
    *(
        ("colours", SIZE),
        ("warps", SMALLER),
        ("trivial", SMALLER),
        ("all", SIZE),
        ("resize", SMALLER),
    ),
]


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def batch():
    """Photos, soft ones and noise, and their draws."""
    generator = np.random.default_rng(1)
    soft = [photos.photo(generator, SIZE) for _ in range(BATCH - 2)]
    noise = generator.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    return np.concatenate([soft, noise]), drawn(2, 1020, BATCH)


@pytest.fixture(scope="module")
def routes(batch):
    """Gives what both routes make of the batch, the device's compiled by XLA, which is asserted."""

    @functools.cache
    def images(name, image_size):
        augmentation = ROUTES[name]

        @functools.partial(tf.function, jit_compile=True)
        def compiled(images, draws):
            return apply.on_device(images, draws, image_size=image_size, augmentation=augmentation)

        arguments = [tf.constant(values) for values in batch]
        shape = compiled.get_concrete_function(*arguments).structured_outputs.shape
        assert shape.as_list() == [BATCH, image_size, image_size, 3]
        hlo = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")
        assert "ENTRY" in hlo and "[<=" not in hlo, "XLA compiles it, with static shapes alone"
        assert "custom-call" not in hlo, "nothing that only a CPU has"
        host = [on_host(*example, image_size, augmentation) for example in zip(*batch, strict=True)]
        return np.stack(host), compiled(*arguments).numpy()

    return images


# What is cut out


def window_of(size, augmentation, **named):
    window = apply.crop_window(Draws(draws_of(**named)[tf.newaxis]), size, augmentation)
    assert {(tuple(value.shape), value.dtype) for value in window} == {((1,), tf.float32)}
    return [float(value[0]) for value in window]


@pytest.mark.parametrize("size", [1, 5, 32, 33, 192, 331])
@pytest.mark.parametrize("crop_min", [0.001, 0.5, 0.7, 1.0])
def test_crops_lie_within_the_photo(size, crop_min):
    for draws in itertools.product((0.0, 0.3, LARGEST), repeat=3):
        named = dict(zip(("crop_side", "crop_top", "crop_left"), draws, strict=True))
        top, left, side = window_of(size, Augmentation(crop_min=crop_min), **named)
        assert (top % 1, left % 1, side % 1) == (0, 0, 0)
        assert side >= max(1, crop_min * size - 0.5)
        assert 0 <= top <= size - side
        assert 0 <= left <= size - side


@pytest.mark.parametrize(
    ("side", "top", "left", "expected"),
    [
        (0.0, 0.0, 0.0, [0, 0, 14]),  # 70 % of 20; its corner has 7 places on each side
        (0.0, LARGEST, 0.0, [6, 0, 14]),
        (0.0, 0.0, LARGEST, [0, 6, 14]),
        (0.5, 0.5, 0.2, [2, 0, 17]),  # 85 %; 4 places
        (LARGEST, LARGEST, LARGEST, [0, 0, 20]),
    ],
)
def test_crops_by_hand(side, top, left, expected):
    named = {"crop_side": side, "crop_top": top, "crop_left": left}
    assert window_of(20, Augmentation(crop_min=0.7), **named) == expected


def test_crops_reach_all_sizes_and_all_corners():
    draws = Draws(drawn(0, 0, 500))
    windows = np.stack(apply.crop_window(draws, 10, Augmentation(crop_min=0.7)), axis=1)
    assert set(windows[:, 2]) == {7, 8, 9, 10}
    smallest = windows[windows[:, 2] == 7]
    assert {(top, left) for top, left, _ in smallest} == set(itertools.product(range(4), repeat=2))


@pytest.mark.parametrize(
    ("changes", "least"), [({}, 0.7), ({"crop_min": 1.0}, 1.0), ({"zoom": 0.4}, 0.5)]
)
def test_the_least_side_that_is_seen(changes, least):
    """Enlarging by up to 1.4 shows as little as 70 % / 1.4 of a side."""
    assert Augmentation(**changes).least_side == pytest.approx(least)


# The two routes


@pytest.mark.parametrize(
    ("name", "image_size"),
    [pytest.param(*c, marks=[pytest.mark.core] if c[0] == "notebook" else []) for c in COMPILED],
)
def test_both_routes_give_the_same_images(routes, name, image_size):
    """Within rounding: nothing differs by more than a level, and hardly anything does."""
    host, device = (images.astype(int) for images in routes(name, image_size))
    assert host.shape == device.shape == (BATCH, image_size, image_size, 3)
    assert np.abs(host - device).max() <= 1
    # Most of these are halves, which are common where a crop is resized by a round factor.
    assert (host != device).mean() < 5e-3
    assert host.std() > 20, "images, not surfaces"


def test_what_xla_compiles_is_what_it_is_without(batch, routes):
    plain = on_device(*batch, SIZE, ROUTES["all"]).astype(int)
    assert np.abs(plain - routes("all", SIZE)[1]).max() <= 1


@pytest.mark.parametrize("image_size", SIZES)
def test_crop_resize_and_flips_are_tensorflows(batch, routes, image_size):
    """`tf.image.resize` of the same box; antialiased where it shrinks."""
    windows = np.int32(apply.crop_window(Draws(batch[1]), SIZE, ROUTES["crop"])).T
    turned = batch[1][:, :2] < 0.5  # from left to right, upside down
    assert len(np.unique(turned, axis=0)) == 4
    for number, (top, left, side) in enumerate(windows):
        box = batch[0][number, top : top + side, left : left + side]
        expected = tf.image.resize(box, [image_size] * 2, antialias=bool(image_size < side)).numpy()
        mirrored, upside_down = turned[number]
        expected = expected[:, ::-1] if mirrored else expected
        expected = expected[::-1] if upside_down else expected
        for route in routes("crop", image_size):
            np.testing.assert_allclose(route[number], expected, atol=0.505)


@pytest.mark.parametrize("image_size", SIZES)
def test_the_notebooks_four_are_tensorflows(batch, routes, image_size):
    """Saturation, on top of that, is `tf.image.adjust_saturation`."""
    geometry = functools.partial(on_device, *batch, image_size)
    resized = geometry(ROUTES["crop"]).astype(np.float32) / 255
    saturation = 2 * Draws(batch[1]).of("saturation")
    expected = np.stack(list(map(tf.image.adjust_saturation, resized, saturation))) * 255
    # Here the resized photo was rounded before; what is more than twice as colourful is rounder.
    for route in routes("notebook", image_size):
        np.testing.assert_allclose(route, expected, atol=2.6)


@pytest.mark.parametrize("route", ["host", "device"])
def test_a_rotation_turns_anticlockwise_by_up_to_so_many_degrees(photo, route):
    augmentation = dataclasses.replace(UNCHANGED, rotation=90.0)
    turned = {0.0: -1, 0.5: 0, 1.0: 1}
    for draw, quarters in turned.items():
        draws = draws_of(rotation=draw)
        image = (
            on_host(photo, draws, 20, augmentation)
            if route == "host"
            else on_device(photo[np.newaxis], draws[tf.newaxis], 20, augmentation)[0]
        )
        np.testing.assert_allclose(image, np.float32(np.rot90(photo, quarters)), atol=1)


@pytest.mark.parametrize(("draw", "zoom"), [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)])
def test_the_draw_spans_the_range_of_the_zoom(draw, zoom):
    """A disc of a quarter of the width gets that much larger."""
    along = np.arange(40) - 19.5
    disc = (np.hypot(along[:, np.newaxis], along) < 10) * 200
    image = np.uint8(disc)[:, :, np.newaxis].repeat(3, axis=2)
    augmentation = dataclasses.replace(UNCHANGED, zoom=0.5)
    result = on_device(image[np.newaxis], draws_of(zoom=draw)[tf.newaxis], 40, augmentation)[0]
    middle = result[8:32, 8:32, 0] if zoom < 1 else result[..., 0]  # elsewhere it is mirrored
    assert (middle > 100).sum() == pytest.approx(np.pi * (10 * zoom) ** 2, rel=0.05)


def test_the_draws_span_the_range_of_the_translation(photo):
    augmentation = dataclasses.replace(UNCHANGED, translation=0.25)
    draws = draws_of(shift_down=1.0, shift_right=0.0)  # 5 pixels down, 5 to the left
    result = on_device(photo[np.newaxis], draws[tf.newaxis], 20, augmentation)[0]
    np.testing.assert_allclose(result[5:, :-5], np.float32(photo[:-5, 5:]), atol=1)


# Whole augmentations


def test_the_identity_returns_the_photo(photo):
    for value in (0.0, LARGEST):
        draws = tf.fill([NUM_DRAWS], value)
        window = apply.crop_window(Draws(draws[tf.newaxis]), 20, UNCHANGED)
        assert np.ravel(window).tolist() == [0, 0, 20]
        np.testing.assert_array_equal(on_host(photo, draws, 20, UNCHANGED), photo)
        device = on_device(photo[np.newaxis], draws[tf.newaxis], 20, UNCHANGED)
        np.testing.assert_array_equal(device[0], photo)


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
    np.testing.assert_array_equal(on_host(photo, draws, 20, FLIPS_ONLY), turned(photo))
    device = on_device(photo[np.newaxis], draws[tf.newaxis], 20, FLIPS_ONLY)
    np.testing.assert_array_equal(device[0], turned(photo))
    np.testing.assert_array_equal(on_host(photo, draws, 20, UNCHANGED), photo)


def test_each_orientation_comes_to_a_quarter_of_the_photos():
    corners = np.uint8([[[0] * 3, [1] * 3], [[2] * 3, [3] * 3]])
    turned = on_device(np.stack([corners] * 1000), drawn(4, 0, 1000), 2, FLIPS_ONLY)
    # Which corner comes to the upper left. The standard deviation of a count is 13.7.
    np.testing.assert_allclose(np.bincount(turned[:, 0, 0, 0]), 250, atol=50)
