import dataclasses
import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data.augment import apply, colour
from flowers_tpu.data.augment.apply import Augmentation
from tests import photos

UNCHANGED = Augmentation(False, False, saturation=(1.0, 1.0), crop_min=1.0)
FLIPS_ONLY = Augmentation(saturation=(1.0, 1.0), crop_min=1.0)
LARGEST = float(np.float32(1 - 2**-23))  # the largest draw there is

ROUTES = {
    "notebook": Augmentation(),
    "colours": Augmentation(brightness=0.2, contrast=0.5, hue=0.1, random_erasing=0.7),
    "warps": Augmentation(rotation=40.0, zoom=0.3, translation=0.2),
    "all": Augmentation(
        **{"brightness": 0.1, "contrast": 0.3, "hue": 0.5, "rotation": 180.0},
        **{"zoom": 0.2, "translation": 0.1, "random_erasing": 0.5},
    ),
    "crop": Augmentation(saturation=(1.0, 1.0)),
    "resize": Augmentation(saturation=(0.5, 1.5), crop_min=1.0),
}
SIZE, BATCH = 40, 12
SMALLER = 23
SIZES = (SIZE, SMALLER)
# Compiling takes a second each.
COMPILED = [
    *((name, size) for name in ("notebook", "crop") for size in SIZES),
    *(("colours", SIZE), ("warps", SMALLER), ("all", SIZE), ("resize", SMALLER)),
]


def draws_of(**named):
    """Draws of 0.75 (no flip), but for the named ones."""
    values = np.full(apply.NUM_DRAWS, 0.75, np.float32)
    for name, value in named.items():
        values[apply._DRAWS.index(name)] = value
    return tf.constant(values)


@functools.cache
def drawn(seed, first, count):
    """The draws of so many examples, `[count, NUM_DRAWS]`."""
    dataset = apply.draws_from(seed, tf.constant(first, tf.int64)).batch(count)
    return next(dataset.as_numpy_iterator())


def on_host(photo, draws, image_size, augmentation):
    photo, draws = tf.constant(photo), tf.constant(draws)
    result = apply.on_host(photo, draws, image_size=image_size, augmentation=augmentation)
    assert (result.shape, result.dtype) == ((image_size, image_size, 3), tf.uint8)
    return result.numpy()


def on_device(images, draws, image_size, augmentation):
    """Without XLA: see `routes` for the same with it."""
    images, draws = tf.constant(images), tf.constant(draws)
    return apply.on_device(
        images, draws, image_size=image_size, augmentation=augmentation
    ).numpy()


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def batch():
    """Photos, soft ones and noise, and their draws."""
    generator = np.random.default_rng(1)
    soft = [photos.photo(generator, SIZE) for _ in range(BATCH - 2)]
    noise = generator.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    return np.concatenate([soft, noise]), drawn(3, 1020, BATCH)


@pytest.fixture(scope="module")
def routes(batch):
    """Gives what both routes make of the batch, the device's compiled by XLA, which is asserted."""

    @functools.cache
    def images(name, image_size):
        augmentation = ROUTES[name]

        @functools.partial(tf.function, jit_compile=True)
        def compiled(images, draws):
            return apply.on_device(
                images, draws, image_size=image_size, augmentation=augmentation
            )

        arguments = [tf.constant(values) for values in batch]
        shape = compiled.get_concrete_function(*arguments).structured_outputs.shape
        assert shape.as_list() == [BATCH, image_size, image_size, 3]
        hlo = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")
        assert "ENTRY" in hlo and "[<=" not in hlo, "XLA compiles it, with static shapes alone"
        assert "custom-call" not in hlo, "nothing that only a CPU has"
        host = [on_host(*example, image_size, augmentation) for example in zip(*batch, strict=True)]
        return np.stack(host), compiled(*arguments).numpy()

    return images


# Draws


PINNED = {
    (3, 5): [
        *(0.8783512, 0.9931016, 0.5612565, 0.5327896, 0.3350985, 0.11036456, 0.688254),
        *(0.37956882, 0.9625701, 0.71478343, 0.48037016, 0.736132, 0.5789858, 0.6253946),
        *(0.9083358, 0.041377068, 0.74626577, 0.12853992),
    ],
    (0, 1024): [
        *(0.082166076, 0.40928006, 0.39318466, 0.3162533, 0.34717774, 0.73199546, 0.56369007),
        *(0.9769211, 0.55243933, 0.13101244, 0.2941643, 0.5130266, 0.38977218, 0.80855536),
        *(0.6040567, 0.10502195, 0.51828027, 0.12730157),
    ],
    (2**31 - 1, 255_060): [
        *(0.41798317, 0.22716212, 0.75191236, 0.39541364, 0.42269313, 0.25452495, 0.7307131),
        *(0.20492029, 0.43239546, 0.26365077, 0.93081343, 0.15814698, 0.7111938, 0.6923058),
        *(0.21044815, 0.4701991, 0.5185442, 0.45709884),
    ],
}


@pytest.mark.core
@pytest.mark.parametrize(("seed", "number"), PINNED)
def test_draws_stay_the_same_in_every_version(seed, number):
    np.testing.assert_array_equal(
        apply.draw(seed, number), np.float32(PINNED[seed, number]), strict=True
    )


@pytest.mark.core
def test_the_order_of_the_draws_stays_the_same():
    """What is pinned above is worth nothing where another draw stands in a place."""
    names = (
        *("flip_left_right", "flip_up_down", "saturation", "crop_side", "crop_top", "crop_left"),
        *("brightness", "contrast", "hue", "rotation", "zoom", "shift_down", "shift_right"),
        *("erase", "erase_area", "erase_ratio", "erase_top", "erase_left"),
    )
    assert names == apply._DRAWS


@pytest.mark.core
@pytest.mark.parametrize("first", [0, 1, 1023, 1024, 1025, 3071, 10**9])
def test_an_example_has_the_same_draws_wherever_drawing_begins(first):
    """Also across the borders of what is drawn at once, 1,024 examples."""
    several = drawn(7, first, 1030)
    for place in (0, 1, 1023 - first % 1024, 1024 - first % 1024, 1029):
        if 0 <= place < 1030:
            np.testing.assert_array_equal(several[place], apply.draw(7, first + place))


def test_the_first_example_may_be_a_number():
    whole = list(apply.draws_from(7, 1000).take(50).as_numpy_iterator())
    np.testing.assert_array_equal(whole, drawn(7, 1000, 50))


@pytest.mark.core
def test_each_example_and_each_seed_has_draws_of_its_own():
    several = np.concatenate([drawn(seed, 0, 3000) for seed in (0, 1, 2**31 - 1)])
    assert several.shape == (9000, 18)
    # Of 24 bits each: equal ones are expected, 27 per million pairs of one place, but not all.
    assert len(np.unique(several, axis=0)) == 9000
    assert len(np.unique(several)) > 0.98 * several.size


def test_draws_are_uniform_and_independent():
    values = drawn(0, 0, 5000)
    assert values.min() >= 0
    assert values.max() < 1
    # Standard errors: 0.289 / sqrt(5000) = 0.0041 of a mean, 1 / sqrt(5000) = 0.014 of a
    # correlation.
    np.testing.assert_allclose(values.mean(axis=0), 0.5, atol=0.016)
    np.testing.assert_allclose(values.std(axis=0), 1 / np.sqrt(12), atol=0.012)
    np.testing.assert_allclose(np.corrcoef(values.T), np.eye(18), atol=0.06)
    neighbours = [np.corrcoef(v[:-1], v[1:])[0, 1] for v in values.T]
    blocks = [np.corrcoef(v[:-1024], v[1024:])[0, 1] for v in values.T]
    seeds = [np.corrcoef(v, w)[0, 1] for v, w in zip(values.T, drawn(1, 0, 5000).T, strict=True)]
    np.testing.assert_allclose([neighbours, blocks, seeds], 0, atol=0.06)
    deciles = np.stack([np.bincount(np.int32(10 * v), minlength=10) for v in values.T])
    np.testing.assert_allclose(deciles, 500, atol=110)  # standard deviation: 21


# What is cut out


def window_of(size, augmentation, **named):
    window = apply.crop_window(draws_of(**named)[tf.newaxis], size, augmentation)
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
    draws = drawn(0, 0, 500)
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
    windows = np.int32(apply.crop_window(batch[1], SIZE, ROUTES["crop"])).T
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
    saturation = 2 * batch[1][:, 2]
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


def test_colours_are_tensorflows_in_their_order(photo):
    """Brightness, contrast, saturation, hue."""
    augmentation = Augmentation(
        False, False, saturation=(0.5, 1.5), crop_min=1.0, brightness=0.1, contrast=0.2, hue=0.3
    )
    draws = draws_of(brightness=0.9, contrast=0.1, saturation=0.7, hue=0.2)
    expected = np.clip(tf.image.adjust_brightness(photo / np.float32(255), 0.08), 0, 1)
    expected = np.clip(tf.image.adjust_contrast(expected, 0.84), 0, 1)
    expected = tf.image.adjust_saturation(expected, 1.2)
    expected = tf.image.adjust_hue(expected, -0.18) * 255
    device = on_device(photo[np.newaxis], draws[tf.newaxis], 20, augmentation)[0]
    np.testing.assert_allclose(device, expected, atol=0.505)
    np.testing.assert_allclose(on_host(photo, draws, 20, augmentation), expected, atol=0.505)


# Whole augmentations


def test_the_identity_returns_the_photo(photo):
    for value in (0.0, LARGEST):
        draws = tf.fill([apply.NUM_DRAWS], value)
        assert np.ravel(apply.crop_window(draws[tf.newaxis], 20, UNCHANGED)).tolist() == [
            0,
            0,
            20,
        ]
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


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)])
def test_the_draw_spans_the_range_of_saturation(draw, factor):
    augmentation = Augmentation(False, False, saturation=(0.5, 1.5), crop_min=1.0)
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
