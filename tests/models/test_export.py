"""What leaves is the classifier; formats that need absent packages are skipped."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.models import backbones
from flowers_tpu.models.classifier import Classifier, VariableNormalization, build_classifier
from flowers_tpu.models.cloning import at_size
from flowers_tpu.models.dropout import StatelessDropout
from flowers_tpu.models.export import keras_file, onnx_file, plain, saved_model, tflite
from flowers_tpu.models.options import ModelOptions
from flowers_tpu.system.errors import RequestError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)

needs_onnx = pytest.mark.skipif(
    not (importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime")),
    reason="needs the extra `export` (tf2onnx, onnx, onnxruntime)",
)


@pytest.fixture(scope="module")
def classifier():
    """With everything that only training needs, and weights as if it had been."""
    options = ModelOptions(
        backbone="small_cnn", weights="none", dropout=0.5, batch_norm="synchronized"
    )
    classifier = build_classifier(options, num_classes=4, image_size=32)
    generator = np.random.default_rng(0)
    for layer in classifier.features.get_layer("small_cnn").layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return classifier


@pytest.fixture(scope="module")
def own(classifier):
    return tf.nn.softmax(classifier.model(IMAGES, training=False)).numpy()


def layers_of(model):
    for layer in model.layers:
        yield from layers_of(layer) if isinstance(layer, tf.keras.Model) else [layer]


def test_the_plain_model_is_the_classifier_of_keras_own_layers(classifier, own):
    model = plain.plain_model(classifier, "tf")
    np.testing.assert_allclose(model(IMAGES), own, atol=1e-6)
    assert own.max() > 0.5 > own.min()  # it tells something
    modules = {type(layer).__module__.partition(".")[0] for layer in layers_of(model)}
    assert modules <= {"keras", "tf_keras"}
    (dropout,) = (x for x in layers_of(model) if isinstance(x, tf.keras.layers.Dropout))
    assert dropout.rate == 0.5
    normalizations = [
        x for x in layers_of(model) if isinstance(x, tf.keras.layers.BatchNormalization)
    ]
    assert normalizations and not any(layer.synchronized for layer in normalizations)
    as_floats = plain.plain_model(classifier, "tf", pixels=tf.float32)
    np.testing.assert_array_equal(as_floats(np.float32(IMAGES)), model(IMAGES))


def test_a_temperature_divides_the_logits(classifier):
    logits = classifier.model(IMAGES, training=False)
    model = plain.plain_model(classifier, "tf", temperature=2.5)
    np.testing.assert_allclose(model(IMAGES), tf.nn.softmax(logits / 2.5), atol=1e-6)


@pytest.mark.parametrize("mode", ["caffe", "tf"])
def test_a_plain_model_at_another_size_is_that_which_is_built_for_it(classifier, mode):
    photos = np.random.default_rng(2).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    built = plain.plain_model(dataclasses.replace(classifier, evaluation_size=40), mode)
    model = plain.plain_model(classifier, mode)
    np.testing.assert_allclose(at_size(model, 40)(photos), built(photos), atol=1e-6)
    seen = plain.SeenSeveralTimes(model, ("flip",), temperature=2.0)(IMAGES)
    both = [model(images).numpy() for images in (IMAGES, IMAGES[:, :, ::-1])]
    mean = np.sqrt(np.mean(both, axis=0))
    np.testing.assert_allclose(seen, mean / mean.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf", "inside"])
def test_preprocessing_as_layers(mode):
    found = plain._preprocessing(mode)(tf.constant(IMAGES))
    wanted = backbones.preprocess(tf.constant(IMAGES), mode)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def normalizing_classifier(kind):
    """As one of EfficientNet: the first has values that came after it was built."""
    pixels = tf.keras.Input((32, 32, 3))
    values = {"mean": [1, 2, 3.0], "variance": [4, 5, 6.0]}
    layer = VariableNormalization(name="normalization")
    if kind == "constants":
        layer = tf.keras.layers.Normalization(name="normalization", **values)
    x = StatelessDropout(0.5, noise_shape=(None, 1, 1, 1), name="drop")(layer(pixels))
    network = tf.keras.Model(pixels, x, name="network")
    if kind == "variables":
        layer.set_weights([*map(np.array, values.values()), 0])
    images = tf.keras.Input((32, 32, 3), dtype=tf.uint8)
    pooled = tf.keras.layers.GlobalAveragePooling2D()(network(tf.cast(images, tf.float32)))
    features = tf.keras.Model(images, pooled)
    inputs = tf.keras.Input((3,))
    head = tf.keras.Model(inputs, tf.keras.layers.Dense(4)(inputs))
    return Classifier(tf.keras.Model(images, head(features(images))), features, head)


@pytest.mark.parametrize("kind", ["variables", "constants"])
def test_normalization_and_stochastic_depth_are_exchanged(tmp_path, kind):
    classifier = normalizing_classifier(kind)
    own = tf.nn.softmax(classifier.model(IMAGES)).numpy()
    model = plain.plain_model(classifier, "inside")
    np.testing.assert_allclose(model(IMAGES), own, atol=1e-6)
    (dropout,) = (x for x in layers_of(model) if isinstance(x, tf.keras.layers.Dropout))
    assert dropout.noise_shape == (None, 1, 1, 1)
    keras_file.write(model, str(tmp_path), "network")
    np.testing.assert_allclose(keras_file.opened(str(tmp_path))(IMAGES), own, atol=1e-6)
    if importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime"):
        onnx_file.write(model, str(tmp_path))
        np.testing.assert_allclose(onnx_file.opened(str(tmp_path))(IMAGES), own, atol=1e-6)


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf", "inside"])
def test_the_keras_file(classifier, tmp_path, mode):
    model = plain.plain_model(classifier, mode)
    keras_file.write(model, str(tmp_path), "small_cnn")
    assert (tmp_path / keras_file.FILE).is_file()
    np.testing.assert_allclose(keras_file.opened(str(tmp_path))(IMAGES), model(IMAGES), atol=1e-6)


def test_a_network_that_plain_keras_could_not_open_is_refused_by_name(classifier, tmp_path):
    with pytest.raises(RequestError, match=r"--format=keras: --backbone=mine .*Op.*savedmodel"):
        keras_file.write(classifier.model, str(tmp_path), "mine")
    assert not list(tmp_path.iterdir())


def test_the_saved_model(classifier, own, tmp_path):
    names = ("rose", "daisy", "königin der nacht", "iris")
    decode = lambda jpeg: tf.ensure_shape(tf.io.decode_png(jpeg), [32, 32, 3])  # noqa: E731
    saved_model.write(plain.plain_model(classifier, "tf"), str(tmp_path), names, decode)
    loaded = tf.saved_model.load(str(tmp_path))
    pngs = [tf.io.encode_png(image).numpy() for image in IMAGES]
    for photos in (pngs, pngs[:1]):
        answer = loaded.signatures["serving_default"](jpeg_bytes=tf.constant(photos))
        assert answer["probabilities"].shape == (len(photos), 4)
        np.testing.assert_allclose(answer["probabilities"], own[: len(photos)], atol=1e-5)
    answer = loaded.signatures["pixels"](images=tf.constant(IMAGES))
    np.testing.assert_allclose(answer["probabilities"], own, atol=1e-5)
    order = np.argsort(-own, axis=1)
    np.testing.assert_allclose(
        answer["confidences"], np.take_along_axis(own, order, axis=1), atol=1e-5
    )
    assert [[n.decode() for n in row] for row in answer["names"].numpy()] == [
        [names[label] for label in row] for row in order
    ]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_the_tflite_files(classifier, own, tmp_path):
    model = lambda pixels: plain.plain_model(classifier, "tf", pixels=pixels)  # noqa: E731
    tflite.write(model, str(tmp_path), list(IMAGES))
    sizes = {}
    for kind, most in (("float", 1e-5), ("float16", 1e-3), ("int8", 0.1)):
        path = tmp_path / tflite.FILES[kind]
        sizes[kind] = path.stat().st_size
        found = tflite.opened(str(path))(IMAGES)
        np.testing.assert_allclose(found, own, atol=most, err_msg=kind)
        details = tf.lite.Interpreter(str(path)).get_input_details()[0]
        assert (details["dtype"], list(details["shape"])) == (np.uint8, [1, 32, 32, 3])
        if kind == "int8":  # pixels are taken as they are
            assert details["quantization"] == (pytest.approx(1.0), 0)
    assert sizes["float16"] < 0.6 * sizes["float"] and sizes["int8"] < 0.4 * sizes["float"]


@needs_onnx
def test_the_onnx_file(classifier, own, tmp_path):
    onnx_file.check_installed()
    onnx_file.write(plain.plain_model(classifier, "tf"), str(tmp_path))
    classify = onnx_file.opened(str(tmp_path))
    for count in (5, 1):
        np.testing.assert_allclose(classify(IMAGES[:count]), own[:count], atol=1e-4)


def test_without_the_packages_of_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tf2onnx", None)
    with pytest.raises(RequestError, match=r"--format=onnx .*extra `export`.*pip install"):
        onnx_file.check_installed()
