"""The classifier as a Keras model of Keras' own layers, from pixels to probabilities.

Of this, whatever leaves is made: it needs nothing of this package.
"""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from flowers_tpu.models import views
from flowers_tpu.models.backbones import Preprocessing
from flowers_tpu.models.classifier import Classifier, VariableNormalization
from flowers_tpu.models.cloning import at_size, clone_with_rules
from flowers_tpu.models.dropout import StatelessDropout
from flowers_tpu.models.weights import IMAGENET_MEAN, IMAGENET_STANDARD_DEVIATION

# Of BGR values 0 to 255; as in `tf.keras.applications.imagenet_utils`.
_CAFFE_MEAN = (103.939, 116.779, 123.68)


def plain_model(
    classifier: Classifier,
    preprocessing: Preprocessing,
    *,
    temperature: float = 1.0,
    pixels: tf.DType = tf.uint8,
) -> tf.keras.Model:
    """Copies a classifier, its own layers exchanged back for Keras'.

    Args:
        classifier: built in float32.
        preprocessing: of its backbone.
        temperature: what the logits are divided by before the softmax; 1: nothing, as trained.
        pixels: type of the images: uint8, or float32 for what quantizes them itself.

    Returns:
        A model of its own variables: `images` `[batch, size, size, 3]`, 0 to 255 -> float32
        `probabilities` `[batch, classes]`.
    """
    (network,) = (part for part in classifier.features.layers if isinstance(part, tf.keras.Model))
    size = classifier.evaluation_size or classifier.model.input_shape[1]
    images = tf.keras.Input((size, size, 3), dtype=pixels, name="images")
    network = at_size(clone_with_rules(network, _keras_layer), size)
    maps = network(_preprocessing(preprocessing)(images))
    pooled = tf.keras.layers.GlobalAveragePooling2D(name="pooling")(maps)
    logits = clone_with_rules(classifier.head, _keras_layer)(pooled)
    if temperature != 1:
        logits = tf.keras.layers.Rescaling(1 / temperature, name="temperature")(logits)
    probabilities = tf.keras.layers.Softmax(name="probabilities")(logits)
    return tf.keras.Model(images, probabilities, name="flowers")


class SeenSeveralTimes:
    """A plain model that looks at each photo several times, called as the model is.

    Args:
        model: see `plain_model`, with a temperature of 1.
        kinds: see `views.Viewed`.
        temperature: what the logarithm of the mean probabilities is divided by; 1: nothing.
    """

    def __init__(self, model: tf.keras.Model, kinds: Sequence[str], temperature: float = 1.0):
        self.variables, self.input_shape = model.variables, model.input_shape
        self._looks = views.looks(model, functools.partial(at_size, model), kinds)
        self._temperature = temperature

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns probabilities, `[batch, classes]` float32."""
        every = [model(view(images), training=training) for model, view in self._looks]
        return tf.nn.softmax(views.log_mean(every) / self._temperature)


def _keras_layer(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer | None:
    """The layer of Keras in the place of one of this package, or of a network of many replicas."""
    if isinstance(layer, StatelessDropout):
        return tf.keras.layers.Dropout(layer.rate, layer.noise_shape, name=layer.name)
    if isinstance(layer, tf.keras.layers.Normalization):
        # Keras' own holds its values in tensors that conversions to ONNX take for inputs.
        mean, variance = (layer.mean, layer.variance)
        if isinstance(layer, VariableNormalization):
            mean, variance, _ = layer.get_weights()
        scale = 1 / np.sqrt(np.ravel(variance).astype(np.float64))
        offset = -np.ravel(mean) * scale
        return tf.keras.layers.Rescaling(scale.tolist(), offset.tolist(), name=layer.name)
    if isinstance(layer, tf.keras.layers.BatchNormalization):
        return type(layer).from_config({**layer.get_config(), "synchronized": False})
    return None


def _preprocessing(mode: Preprocessing) -> tf.keras.layers.Layer:
    """`backbones.preprocess` as a layer: a saved model of Keras 2 cannot hold bare operations."""
    if mode == "caffe":
        # RGB -> BGR and minus the mean, by a product with zeros and ones, which is exact.
        exchange = np.eye(3, dtype=np.float32)[np.newaxis, np.newaxis, ::-1]
        layer = tf.keras.layers.Conv2D(3, 1, trainable=False, name="preprocessing")
        layer.build((None, None, None, 3))
        layer.set_weights([exchange, -np.array(_CAFFE_MEAN, np.float32)])
        # A convolution wants floats.
        return tf.keras.Sequential(
            [tf.keras.layers.Rescaling(1.0, name="as_float"), layer], name="preprocessing"
        )
    scale, offset = {
        "tf": (1 / 127.5, -1.0),
        "torch": (
            (1 / 255 / IMAGENET_STANDARD_DEVIATION).tolist(),
            (-IMAGENET_MEAN / IMAGENET_STANDARD_DEVIATION).tolist(),
        ),
        "inside": (1.0, 0.0),
    }[mode]
    return tf.keras.layers.Rescaling(scale, offset, name="preprocessing")
