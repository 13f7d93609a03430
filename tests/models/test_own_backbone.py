import json
import shutil

import h5py
import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.models import own_backbone
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.models.classifier import build_classifier
from flowers_tpu.models.dropout import StatelessDropout
from flowers_tpu.models.options import ModelOptions
from flowers_tpu.system.errors import RequestError

layers = tf.keras.layers


def network(side=16, *more, top=False):
    """Convolution, normalization and dropout, with weights that are like no others."""
    images = tf.keras.Input((side, side, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(layers.Rescaling(1 / 255)(images))
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x) + 1.0)
    x = layers.Dropout(0.5, name="drop")(x)
    for layer in more:
        x = layer(x)
    x = layers.Conv2D(6, 1, name="last")(x)
    if top:
        x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = tf.keras.Model(images, x)
    generator = np.random.default_rng(0)
    model.set_weights([generator.random(w.shape, np.float32) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("own") / "own.h5")
    network().save(path)
    return path


def classifier(path, **options):
    sizes = {"image_size": 16} | {n: options.pop(n) for n in list(options) if "size" in n}
    arithmetic = options.pop("arithmetic", "float32")
    return build_classifier(
        ModelOptions(backbone=path, **options), num_classes=3, arithmetic=arithmetic, **sizes
    )


def pixels(size=16):
    return np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8)


def inner(built):
    return next(x for x in built.features.layers if isinstance(x, tf.keras.Model))


@pytest.mark.parametrize("size", [16, 24])
def test_features_are_those_of_the_file_at_any_size(path, size):
    expected = network(size)(pixels(size).astype(np.float32)).numpy().mean(axis=(1, 2))
    features = classifier(path, image_size=size).features(pixels(size))
    np.testing.assert_allclose(features, expected, rtol=1e-5)


def test_preprocessing_that_is_not_inside(path):
    expected = network()(pixels() / np.float32(127.5) - 1).numpy().mean(axis=(1, 2))
    features = classifier(path, preprocessing="tf").features(pixels())
    np.testing.assert_allclose(features, expected, rtol=1e-5)


def test_the_arithmetic_is_the_runs_not_the_files(path):
    """And pixels are rescaled in float32, as 8 significant bits are too few for them."""
    built = inner(classifier(path, arithmetic="bfloat16"))
    types_ = {layer.name: layer.compute_dtype for layer in built.layers if layer.weights}
    assert set(types_.values()) == {"bfloat16"}
    assert built.output.dtype == tf.bfloat16
    assert [x.compute_dtype for x in built.layers if isinstance(x, layers.Rescaling)] == ["float32"]


def test_dropout_and_batch_normalization_are_this_packages(path):
    built = inner(classifier(path, batch_norm="frozen"))
    assert isinstance(built.get_layer("drop"), StatelessDropout)
    assert not built.get_layer("norm").trainable


def test_random_weights_can_be_asked_for(path):
    values = inner(classifier(path, weights="none")).get_layer("first").get_weights()
    assert not np.allclose(values[0], network().get_layer("first").get_weights()[0])


def test_the_model_at_another_size_is_the_same_model(path):
    built = classifier(path, evaluation_size=24)
    assert built.evaluated.input_shape == (None, 24, 24, 3)
    assert [id(v) for v in built.evaluated.variables] == [id(v) for v in built.model.variables]
    head = built.head(classifier(path, image_size=24).features(pixels(24)))
    np.testing.assert_allclose(built.evaluated(pixels(24)), head, rtol=1e-5)
    assert classifier(path).evaluated.input_shape == (None, 16, 16, 3)


class Foreign(layers.Layer):
    pass


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (layers.Lambda(lambda x: x, name="bad"), "layer 'bad' is a Lambda, which would run code"),
        (Foreign(name="bad"), "layer 'bad' is a .*Foreign, which is no layer of Keras 2"),
        (layers.SpatialDropout2D(0.1, name="bad"), "layer 'bad' is a SpatialDropout2D: of random"),
        (layers.GaussianNoise(0.1, name="bad"), "layer 'bad' is a GaussianNoise: of random layers"),
        (layers.RandomFlip(name="bad"), "layer 'bad' is a RandomFlip: of random layers"),
        (
            tf.keras.Sequential([layers.ReLU()], name="bad"),
            "layer 'bad' is a model within the model; save it flat",
        ),
        (lambda x: tf.nn.dropout(x, 0.5), "calls tf.nn.dropout, which is not known"),
        (lambda x: tf.image.random_brightness(x, 0.1), "calls tf.image.adjust_brightness, which"),
    ],
)
def test_what_would_go_wrong_without_a_word_is_refused(tmp_path, more, problem):
    bad = str(tmp_path / "bad.h5")
    network(16, more).save(bad)
    with pytest.raises(RequestError, match=f"--backbone={bad}: .*{problem}"):
        classifier(bad)


def test_a_network_with_classification_layers_is_refused(tmp_path):
    bad = str(tmp_path / "bad.h5")
    network(top=True).save(bad)
    with pytest.raises(RequestError, match=r"gives \(None, 3\); expected feature maps"):
        classifier(bad)


def changed(path, target, **attributes):
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
    return str(target)


def test_files_of_other_kinds_are_refused(path, tmp_path):
    sequential = json.dumps({"class_name": "Sequential", "config": {"layers": []}})
    cases = {
        changed(path, tmp_path / "3.h5", keras_version="3.4.1"): "was written by Keras 3.4.1",
        changed(path, tmp_path / "s.h5", model_config=sequential): "holds a Sequential model",
        changed(path, tmp_path / "j.h5", model_config="{"): "its network cannot be read",
        f"{tmp_path}/none.h5": "there is no such file. Expected: a name of a network",
        str(tmp_path / "weights.h5"): "has weights but no network",
        str(tmp_path / "text.h5"): "cannot be read as a Keras HDF5 file",
        f"{tmp_path}/": "is a folder",
    }
    network().save_weights(tmp_path / "weights.h5")
    (tmp_path / "text.h5").write_text("text")
    for bad, problem in cases.items():
        with pytest.raises(RequestError, match=f"--backbone={bad}: .*{problem}"):
            check_backbone(bad, image_size=16)


def test_what_is_a_file_and_what_a_name():
    assert own_backbone.is_file("x.h5") and own_backbone.is_file("gs://b/x")
    assert not own_backbone.is_file("mobilenet_v2")
