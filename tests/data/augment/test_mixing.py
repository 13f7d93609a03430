import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import kstest

from flowers_tpu.data.augment import mixing
from flowers_tpu.data.augment.draws import NAMES, draws_from
from flowers_tpu.data.augment.options import Augmentation

SIZE = 16


def batch(count=8, weight=None, **drawn):
    """Photos whose pixels are random, and draws of which some are given: a number a pair."""
    generator = np.random.default_rng(0)
    draws = next(iter(draws_from(1, 0).batch(count))).numpy()
    for name, values in drawn.items():
        draws[:, NAMES.index(name)] = np.repeat(np.broadcast_to(values, count // 2), 2)
    weight = np.ones(count, np.float32) if weight is None else np.float32(weight)
    images = generator.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    labels = np.arange(count, dtype=np.int32)
    return {"image": images, "label": labels, "weight": weight, "draws": draws}


def mixed(data, **wanted):
    tensors = {name: tf.constant(value) for name, value in data.items()}
    return {n: v.numpy() for n, v in mixing.mixed(tensors, Augmentation(**wanted)).items()}


@pytest.mark.core
def test_mixup_worked_out_by_hand():
    """Beta(1, 1) is uniform, so that the share is the draw itself."""
    data = batch(4, mix=0.0, mix_share=[0.75, 0.25])
    result = mixed(data, mixup=1.0)
    image = data["image"].astype(float)
    for place, partner, own in ((0, 1, 0.75), (1, 0, 0.75), (2, 3, 0.25), (3, 2, 0.25)):
        expected = own * image[place] + (1 - own) * image[partner]
        np.testing.assert_allclose(result["image"][place], expected, atol=0.51)
    assert result["label"].tolist() == [0, 1, 3, 2]
    assert result["other"].tolist() == [1, 0, 2, 3]
    np.testing.assert_allclose(result["share"], 0.75, atol=1e-6)


@pytest.mark.core
def test_cutmix_worked_out_by_hand():
    """The first pair's rectangle has a quarter of the area, 8 by 8 in the middle; the second's
    has three quarters, 13.86 by 13.86 about a corner, where a quarter of it is left."""
    data = batch(4, mix=0.0, mix_share=[0.75, 0.25], mix_top=[0.5, 0.0], mix_left=[0.5, 0.0])
    result = mixed(data, cutmix=1.0)
    expected = data["image"].copy()
    for place in range(4):
        cut = slice(4, 12) if place < 2 else slice(0, 7)
        expected[place, cut, cut] = data["image"][place ^ 1, cut, cut]
    np.testing.assert_array_equal(result["image"], expected)
    assert result["label"].tolist() == [0, 1, 2, 3]
    assert result["other"].tolist() == [1, 0, 3, 2]
    np.testing.assert_allclose(result["share"], [0.75] * 2 + [1 - 49 / 256] * 2, atol=1e-6)


def test_with_both_each_pair_gets_one():
    data = batch(4, mix=0.0, mix_kind=[0.4, 0.6], mix_share=0.75, mix_top=0.5, mix_left=0.5)
    both, cut = mixed(data, mixup=1.0, cutmix=1.0), mixed(data, cutmix=1.0)
    blended = mixed(data, mixup=1.0)
    np.testing.assert_array_equal(both["image"][:2], cut["image"][:2])
    np.testing.assert_array_equal(both["image"][2:], blended["image"][2:])


@pytest.mark.core
@pytest.mark.parametrize("wanted", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_a_pair_that_is_not_drawn_or_fills_up_stays_as_it_is(wanted):
    data = batch(6, mix=[0.29, 0.31, 0.0], weight=[1, 1, 1, 1, 1, 0], mix_share=0.4, mix_top=0.5)
    result = mixed(data, mix_probability=0.3, **wanted)
    same = [np.array_equal(a, b) for a, b in zip(result["image"], data["image"], strict=True)]
    assert same == [False, False, True, True, True, True]
    assert result["label"][2:].tolist() == [2, 3, 4, 5]
    assert result["share"][2:].tolist() == [1] * 4


@pytest.mark.core
def test_parts_of_a_batch_are_mixed_as_the_whole():
    data = batch(8)
    whole = mixed(data, mixup=0.3, cutmix=1.0, mix_probability=0.7)
    parts = [
        mixed({n: v[first : first + 2] for n, v in data.items()},
              mixup=0.3, cutmix=1.0, mix_probability=0.7)
        for first in range(0, 8, 2)
    ]  # fmt: skip
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_distribution_of_their_papers(alpha):
    drawn = np.random.default_rng(0).random(5000, np.float32)
    shares = mixing._beta(tf.constant(drawn), alpha).numpy()
    assert kstest(shares, "beta", args=(alpha, alpha)).pvalue > 0.01


def test_the_compiled_operation_gives_the_same():
    data = {name: tf.constant(value) for name, value in batch(8).items()}
    wanted = Augmentation(mixup=0.3, cutmix=1.0)
    compiled = tf.function(lambda b: mixing.mixed(b, wanted), jit_compile=True)(data)
    for name, value in mixing.mixed(data, wanted).items():
        np.testing.assert_allclose(
            tf.cast(compiled[name], tf.float32), tf.cast(value, tf.float32),
            atol=1 if name == "image" else 1e-6,
        )  # fmt: skip
