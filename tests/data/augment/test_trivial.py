import dataclasses

import numpy as np
import pytest

from flowers_tpu.data.augment import trivial
from flowers_tpu.data.augment.draws import NAMES
from flowers_tpu.data.augment.options import TRIVIAL_RANGES, Augmentation
from flowers_tpu.system.errors import RequestError
from tests import photos
from tests.data.augment.augmenting import drawn, on_device
from tests.photos import UNCHANGED

SIZE = 24
# What each choice alone is among the flags.
ALONE = {
    **{name: {name: TRIVIAL_RANGES[name]} for name in ("rotation", "zoom", "brightness")},
    **{name: {name: TRIVIAL_RANGES[name]} for name in ("contrast", "hue")},
    "shift_down": {"translation": TRIVIAL_RANGES["translation"]},
    "shift_right": {"translation": TRIVIAL_RANGES["translation"]},
    "saturation": {n: v for n, v in TRIVIAL_RANGES.items() if n.startswith("saturation")},
    "none": {},
}


@pytest.mark.parametrize("number", range(len(trivial.CHOICES)))
def test_a_photo_gets_the_one_operation_that_is_drawn(number):
    name = trivial.CHOICES[number]
    draws = drawn(3, 0, 4).copy()
    draws[:, NAMES.index("trivial")] = (number + 0.5) / len(trivial.CHOICES)
    images = np.stack([photos.photo(np.random.default_rng(n), SIZE) for n in range(4)])
    wanted = dataclasses.replace(UNCHANGED, trivial_augment=True)
    found = on_device(images, draws, SIZE, wanted).astype(int)

    draws[:, NAMES.index("shift_right" if name == "shift_down" else "shift_down")] = 0.5
    alone = dataclasses.replace(UNCHANGED, **ALONE[name])
    expected = on_device(images, draws, SIZE, alone).astype(int)
    assert np.abs(found - expected).max() <= 1
    assert (name == "none") == (np.abs(expected - images).max() == 0)


def test_each_operation_is_as_likely():
    draws = drawn(0, 0, 9000)
    changed, _ = trivial.chosen(draws, Augmentation(trivial_augment=True))
    for name in trivial.CHOICES[1:]:
        kept = changed.numpy()[:, NAMES.index(name)] == draws[:, NAMES.index(name)]
        assert kept.mean() == pytest.approx(1 / 9, abs=0.015)
    crops = NAMES.index("crop_side")
    np.testing.assert_array_equal(changed.numpy()[:, crops], draws[:, crops])


def test_strengths_of_ones_own_are_refused():
    with pytest.raises(RequestError, match=r"--trivial_augment draws its own .* --rotation"):
        Augmentation.of({"trivial_augment": True, "rotation": 5.0})
