import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from flowers_tpu.models.views import Viewed
from flowers_tpu.runs.options import PredictOptions
from flowers_tpu.system.errors import RequestError
from tests.photos import small_classifier


@pytest.fixture(scope="module")
def classifier():
    return small_classifier(3, image_size=32)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def resized(images, side):
    return np.uint8(np.round(tf.image.resize(np.float32(images), [side, side])))


def test_probabilities_are_averaged_over_photo_and_mirror_image(classifier, images):
    both = [softmax(classifier.model(x).numpy(), axis=1) for x in (images, images[:, :, ::-1])]
    seen = Viewed(classifier, ("flip",))(images, training=False).numpy()
    np.testing.assert_allclose(np.exp(seen), np.mean(both, axis=0), rtol=1e-5)


def test_scales_are_the_model_at_other_sizes(classifier, images):
    sides = {28: classifier.at_size(28), 32: classifier.model, 36: classifier.at_size(36)}
    every = [softmax(m(resized(images, side)).numpy(), axis=1) for side, m in sides.items()]
    seen = Viewed(classifier, ("scales",))(images).numpy()
    np.testing.assert_allclose(np.exp(seen), np.mean(every, axis=0), rtol=1e-5)


def test_crops_are_the_corners_and_the_middle(classifier, images):
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    crops = (images[:, top : top + 28, left : left + 28] for top, left in places)
    parts = [images, *(resized(crop, 32) for crop in crops)]
    every = [softmax(classifier.model(part).numpy(), axis=1) for part in parts]
    seen = Viewed(classifier, ("crops",))(images).numpy()
    np.testing.assert_allclose(np.exp(seen), np.mean(every, axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("kinds", "count"), [((), 1), (("flip", "scales"), 6), (("crops", "flip", "scales"), 16)]
)
def test_how_many_views_there_are(classifier, kinds, count):
    assert len(Viewed(classifier, kinds).views) == count


def test_at_the_size_of_evaluation(images):
    built = small_classifier(3, image_size=40, evaluation_size=32)
    seen = Viewed(built, ("flip",))(images).numpy()
    both = [softmax(built.evaluated(x).numpy(), axis=1) for x in (images, images[:, :, ::-1])]
    np.testing.assert_allclose(np.exp(seen), np.mean(both, axis=0), rtol=1e-5)


def test_what_a_person_may_ask_for():
    assert PredictOptions(views=" scales, flip,flip").kinds_of_views == ("flip", "scales")
    with pytest.raises(RequestError, match=r"--views=flips: there is no 'flips', only flip, "):
        PredictOptions.of({"views": "flips"})
