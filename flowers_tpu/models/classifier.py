"""The classifier: preprocessing, backbone, pooling and head as one Keras model on uint8 pixels."""

import contextlib
import dataclasses
import functools
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from flowers_tpu.models.backbones import (
    build_backbone,
    check_backbone,
    preprocess,
    preprocessing_of,
)
from flowers_tpu.models.cloning import Rule, at_size, clone_with_rules
from flowers_tpu.models.dropout import StatelessDropout, dropout_rule
from flowers_tpu.models.options import ModelOptions
from flowers_tpu.models.weights import read_weights, set_weights
from flowers_tpu.system.errors import RequestError

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model and its two halves, which share its variables: `model(x) == head(features(x))`.

    Attributes:
        model: uint8 `[batch, size, size, 3]` -> float32 logits `[batch, classes]`.
        features: uint8 `[batch, size, size, 3]` -> float32 pooled features `[batch, channels]`.
        head: float32 features -> float32 logits.
        evaluation_size: side of the images of evaluation and prediction; 0: as of training.
    """

    model: tf.keras.Model
    features: tf.keras.Model
    head: tf.keras.Model
    evaluation_size: int = 0

    @functools.cached_property
    def evaluated(self) -> tf.keras.Model:
        """The model, of the same variables, for the images of evaluation and prediction."""
        return self.at_size(self.evaluation_size)

    def at_size(self, size: int) -> tf.keras.Model:
        """Returns the model, of the same variables, for images of another size; 0: its own."""
        return at_size(self.model, size or self.model.input_shape[1])


def build_classifier(
    options: ModelOptions,
    *,
    num_classes: int,
    image_size: int,
    evaluation_size: int = 0,
    arithmetic: str = "float32",
    seed: int = 0,
) -> Classifier:
    """Builds the classifier; call it within `strategy.scope()`.

    The backbone's dropout layers, and the head's, are `StatelessDropout`: calls with
    `training=True` belong within `dropout_seed`. Which part is trained is for the training step to
    say; nothing is frozen here but batch normalization if asked for.

    Args:
        options: `batch_norm`: `per_replica`: normalized in training by the statistics of the
            replica's batch; `synchronized`: by those of the global batch; `frozen`: by the moving
            statistics, with scale and offset not trained. `dropout`: share of pooled features to
            drop before the last layer.
        num_classes: number of logits.
        image_size: side of the square images, pixels.
        evaluation_size: of those of evaluation and prediction; 0: the same.
        arithmetic: `float32`; or `bfloat16` or `float16` for the backbone's arithmetic (variables,
            preprocessing, pooling and head stay float32).
        seed: all random initial weights are a function of it (and of what is built).

    Raises:
        RequestError: a name is unknown, the weights cannot be loaded, or the backbone cannot be
            built so.
    """
    backbone, alpha = options.backbone, options.alpha
    evaluation_size = evaluation_size or image_size
    check_backbone(backbone, image_size=image_size, evaluation_size=evaluation_size, alpha=alpha)

    # Before all that follows is seeded: Keras may build a network of its own for them.
    stored = read_weights(options.weights, backbone=backbone, image_size=image_size, alpha=alpha)
    with precision_policy(arithmetic), _seeded(seed), _statistics_of_first_replica():
        network = build_backbone(backbone, image_size=image_size, alpha=alpha)
        network = clone_with_rules(
            network,
            dropout_rule(network),
            _float32_input_rule,
            _batch_norm_rule(options.batch_norm),
        )
        if options.train_from:
            freeze_before(network, options.train_from)
        # After cloning: in bfloat16, Keras' own Normalization would round the mean it is given.
        set_weights(network, stored, weights=options.weights, backbone=backbone, alpha=alpha)
        images = tf.keras.Input((image_size, image_size, 3), dtype=tf.uint8, name="images")
        maps = network(preprocess(images, preprocessing_of(options)))
        pooled = tf.keras.layers.GlobalAveragePooling2D(dtype="float32", name="pooling")(maps)
        features = tf.keras.Model(images, pooled, name="features")
        head = _build_head(pooled.shape[-1], num_classes, options.dropout)
        model = tf.keras.Model(images, head(features(images)), name="classifier")
    return Classifier(model, features, head, evaluation_size)


def freeze_before(network: tf.keras.Model, name: str) -> None:
    """Takes the layers before one out of training; their batch normalization runs as in inference.

    Args:
        network: a backbone.
        name: of the first layer that is trained, or how that name begins.

    Raises:
        RequestError: there is no such layer.
    """
    names = [layer.name for layer in network.layers]
    matching = [number for number, layer in enumerate(names) if layer.startswith(name)]
    if not matching:
        some = ", ".join(layer.name for layer in network.layers if layer.weights)
        raise RequestError(f"--train_from={name}: no layer is called so; there are: {some}")
    for layer in network.layers[: matching[0]]:
        layer.trainable = False


@contextlib.contextmanager
def precision_policy(precision: str) -> Iterator[None]:
    """The global mixed-precision policy, for a while: builders of backbones take no other.

    Args:
        precision: one of `PRECISIONS`.
    """
    previous = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(PRECISIONS[precision])
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(previous)


class Statistics(NamedTuple):
    """The moving means and variances that a training step updates; frozen layers have none.

    Attributes:
        all: of every layer.
        per_replica: those that each replica moves by its own batch. A training step must average
            them: reads outside `strategy.run`, and checkpoints, take the first replica's copy.
            Those of synchronized layers are equal anyway.
    """

    all: list[tf.Variable]
    per_replica: list[tf.Variable]


def batch_norm_statistics(model: tf.keras.Model) -> Statistics:
    """Returns the moving statistics of a model that `build_classifier` made."""
    layers = [
        layer
        for layer in _flatten(model)
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable
    ]
    own = [layer for layer in layers if not layer.synchronized]

    def of(some: list[tf.keras.layers.Layer]) -> list[tf.Variable]:
        return [v for layer in some for v in (layer.moving_mean, layer.moving_variance)]

    return Statistics(of(layers), of(own))


class ParameterCounts(NamedTuple):
    """Numbers of scalar weights."""

    features_trainable: int
    features_total: int
    head_trainable: int
    head_total: int


def parameter_counts(classifier: Classifier) -> ParameterCounts:
    """Counts the weights of the two halves of a classifier."""

    def count(variables: list[tf.Variable]) -> int:
        return sum(variable.shape.num_elements() for variable in variables)

    features, head = classifier.features, classifier.head
    return ParameterCounts(
        features_trainable=count(features.trainable_variables),
        features_total=count(features.variables),
        head_trainable=count(head.trainable_variables),
        head_total=count(head.variables),
    )


@tf.keras.utils.register_keras_serializable(package="flowers_tpu")
class VariableNormalization(tf.keras.layers.Normalization):
    """Keras' layer of this name, reading mean and variance from its variables at every call.

    Keras copies them into constants when the layer is built or loaded, so values that come later,
    from a checkpoint, would not be seen.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes the last axis of `inputs`."""
        return (inputs - self.adapt_mean) / tf.sqrt(self.adapt_variance)


def _build_head(channels: int, num_classes: int, dropout: float) -> tf.keras.Model:
    # float32 by name: under a mixed policy the logits would be bfloat16, of 8 significant bits.
    features = tf.keras.Input((channels,), dtype=tf.float32, name="pooled_features")
    x = features
    if dropout > 0:
        # Salt 0 is the head's; the layers of a backbone count from 1.
        x = StatelessDropout(dropout, salt=0, dtype="float32", name="dropout")(x)
    logits = tf.keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return tf.keras.Model(features, logits, name="head")


def _float32_input_rule(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer | None:
    """EfficientNet's own preprocessing in float32: 8 significant bits are too few for a pixel."""
    if not isinstance(layer, tf.keras.layers.Rescaling | tf.keras.layers.Normalization):
        return None
    kind = type(layer)
    if kind is tf.keras.layers.Normalization and layer.weights:
        kind = VariableNormalization
    return kind.from_config({**layer.get_config(), "dtype": "float32"})


def _batch_norm_rule(batch_norm: str) -> Rule:
    changes = {
        "per_replica": {},
        # In Keras 2 a batch normalization that is not trainable also runs in inference mode.
        "frozen": {"trainable": False},
        "synchronized": {"synchronized": True},
    }[batch_norm]

    def rule(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer | None:
        if not isinstance(layer, tf.keras.layers.BatchNormalization):
            return None
        return type(layer).from_config({**layer.get_config(), **changes})

    return rule


def _flatten(model: tf.keras.Model) -> Iterator[tf.keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from _flatten(layer)
        else:
            yield layer


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Every generator Keras may draw from is seeded, and afterwards as it was before.

    TensorFlow's own global seed cannot be read; it ends up unset. Names are numbered from the start
    too, so that those of layers and variables do not depend on what was built before.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    tf.keras.backend.reset_uids()
    tf.keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        tf.random.set_seed(None)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def _statistics_of_first_replica() -> Iterator[None]:
    """Variables of which each replica has its own copy are read, and saved, as the first's.

    Keras asks for the mean over replicas. A mean of equal numbers is not always that number in
    floating point, so a resumed run would differ in the last digit.
    """

    def creator(next_creator, **options):
        if options.get("synchronization") == tf.VariableSynchronization.ON_READ:
            options["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return next_creator(**options)

    with tf.variable_creator_scope(creator):
        yield
