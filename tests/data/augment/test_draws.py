import numpy as np
import pytest

from flowers_tpu.data.augment import draws
from flowers_tpu.data.augment.draws import NAMES, NUM_DRAWS, draw, draws_from
from tests.data.augment.augmenting import drawn

# Seed and number of an example, and its draws by name.
PINNED = {
    (3, 5): {
        **{"flip_left_right": 0.33013165, "flip_up_down": 0.8405554, "crop_side": 0.31372237},
        **{"crop_top": 0.9192717, "crop_left": 0.44073963, "rotation": 0.13907135},
        **{"zoom": 0.46117568, "shift_down": 0.53922117, "shift_right": 0.1688962},
        **{"brightness": 0.15534079, "contrast": 0.17858005, "saturation": 0.103078604},
        **{"hue": 0.5493791, "erase": 0.22709668, "erase_area": 0.16529667},
        **{"erase_ratio": 0.90631294, "erase_top": 0.3767438, "erase_left": 0.10099912},
    },
    (0, 1024): {
        **{"flip_left_right": 0.07636762, "flip_up_down": 0.55549717, "crop_side": 0.46351862},
        **{"crop_top": 0.19735897, "crop_left": 0.9968624, "rotation": 0.12833059},
        **{"zoom": 0.2505747, "shift_down": 0.72644997, "shift_right": 0.7784349},
        **{"brightness": 0.10844123, "contrast": 0.6490246, "saturation": 0.04225731},
        **{"hue": 0.5855261, "erase": 0.5349754, "erase_area": 0.23657095},
        **{"erase_ratio": 0.21126008, "erase_top": 0.98337555, "erase_left": 0.22878897},
    },
    (2**31 - 1, 255_060): {
        **{"flip_left_right": 0.5903655, "flip_up_down": 0.469867, "crop_side": 0.40689397},
        **{"crop_top": 0.5016854, "crop_left": 0.90779495, "rotation": 0.9071413},
        **{"zoom": 0.5491326, "shift_down": 0.81050825, "shift_right": 0.10146129},
        **{"brightness": 0.42574227, "contrast": 0.735332, "saturation": 0.33242953},
        **{"hue": 0.78926516, "erase": 0.6157007, "erase_area": 0.4497838},
        **{"erase_ratio": 0.6925731, "erase_top": 0.013478041, "erase_left": 0.0239048},
    },
}


@pytest.mark.core
@pytest.mark.parametrize(("seed", "number"), PINNED)
def test_draws_stay_the_same_in_every_version(seed, number):
    """Whatever others there are, and in whatever order."""
    drawn_now = dict(zip(NAMES, draw(seed, number).numpy(), strict=True))
    for name, value in PINNED[seed, number].items():
        assert drawn_now[name] == np.float32(value), name


def test_a_draw_does_not_depend_on_which_others_there_are(monkeypatch):
    before = dict(zip(NAMES, draw(3, 2000).numpy(), strict=True))
    names = ("another", *reversed(NAMES))
    monkeypatch.setattr(draws, "NAMES", names)
    after = dict(zip(names, draw(3, 2000).numpy(), strict=True))
    assert after.pop("another") not in before.values()
    assert after == before


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
    assert several.shape == (9000, NUM_DRAWS)
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
    np.testing.assert_allclose(np.corrcoef(values.T), np.eye(NUM_DRAWS), atol=0.06)
    neighbours = [np.corrcoef(v[:-1], v[1:])[0, 1] for v in values.T]
    blocks = [np.corrcoef(v[:-1024], v[1024:])[0, 1] for v in values.T]
    seeds = [np.corrcoef(v, w)[0, 1] for v, w in zip(values.T, drawn(1, 0, 5000).T, strict=True)]
    np.testing.assert_allclose([neighbours, blocks, seeds], 0, atol=0.06)
    deciles = np.stack([np.bincount(np.int32(10 * v), minlength=10) for v in values.T])
    np.testing.assert_allclose(deciles, 500, atol=110)  # standard deviation: 21
