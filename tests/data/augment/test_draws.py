import numpy as np
import pytest

from flowers_tpu.data.augment.draws import NAMES, draw, draws_from
from tests.data.augment.augmenting import drawn

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
    np.testing.assert_array_equal(draw(seed, number), np.float32(PINNED[seed, number]), strict=True)


@pytest.mark.core
def test_the_order_of_the_draws_stays_the_same():
    """What is pinned above is worth nothing where another draw stands in a place."""
    names = (
        *("flip_left_right", "flip_up_down", "saturation", "crop_side", "crop_top", "crop_left"),
        *("brightness", "contrast", "hue", "rotation", "zoom", "shift_down", "shift_right"),
        *("erase", "erase_area", "erase_ratio", "erase_top", "erase_left"),
    )
    assert names == NAMES


@pytest.mark.core
@pytest.mark.parametrize("first", [0, 1, 1023, 1024, 1025, 3071, 10**9])
def test_an_example_has_the_same_draws_wherever_drawing_begins(first):
    """Also across the borders of what is drawn at once, 1,024 examples."""
    several = drawn(7, first, 1030)
    for place in (0, 1, 1023 - first % 1024, 1024 - first % 1024, 1029):
        if 0 <= place < 1030:
            np.testing.assert_array_equal(several[place], draw(7, first + place))


def test_the_first_example_may_be_a_number():
    whole = list(draws_from(7, 1000).take(50).as_numpy_iterator())
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
