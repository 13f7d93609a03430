"""The classifier: preprocessing, backbone, pooling and head as one Keras model on uint8 pixels."""

import contextlib
import dataclasses
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from flowers_tpu.errors import RequestError
from flowers_tpu.models.backbones import build_backbone, check_backbone, preprocess
from flowers_tpu.models.cloning import Rule, clone_with_rules
from flowers_tpu.models.dropout import StatelessDropout, dropout_rule
from flowers_tpu.models.weights import load_weights

BATCH_NORMS = ("per_replica", "frozen", "synchronized")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model and its two halves, which share its variables: `model(x) == head(features(x))`.

    Attributes:
        model: uint8 `[batch, size, size, 3]` -> float32 logits `[batch, classes]`.
        features: uint8 `[batch, size, size, 3]` -> float32 pooled features `[batch, channels]`.
        head: float32 features -> float32 logits.
    """

    model: tf.keras.Model
    features: tf.keras.Model
    head: tf.keras.Model


def build_classifier(
    *,
    backbone: str,
    num_classes: int,
    image_size: int,
    weights: str = "imagenet",
    alpha: float = 1.0,
    dropout: float = 0.0,
    batch_norm: str = "per_replica",
    precision: str = "float32",
    seed: int = 0,
) -> Classifier:
    """Builds the classifier; call it within `strategy.scope()`.

    The backbone's dropout layers, and the head's, are `StatelessDropout`: calls with
    `training=True` belong within `dropout_seed`. Which part is trained is for the training step to
    say; nothing is frozen here but batch normalization where asked for.

    Args:
        backbone: name in the registry `BACKBONES`.
        num_classes: number of logits.
        image_size: side of the square images, pixels.
        weights: `imagenet`, `none`, or the path of a Keras HDF5 file for the backbone.
        alpha: width factor of a MobileNet.
        dropout: share of pooled features to drop before the last layer, in [0, 1).
        batch_norm: `per_replica`: normalized in training by the statistics of the replica's batch;
            `synchronized`: by those of the global batch; `frozen`: by the moving statistics, with
            scale and offset not trained.
        precision: `float32`, or `bfloat16` for the backbone's arithmetic (variables, preprocessing,
            pooling and head stay float32).
        seed: all random initial weights are a function of it (and of what is built).

    Raises:
        RequestError: a name is unknown, the weights cannot be loaded, or the backbone cannot be
            built so.
    """
    entry = check_backbone(backbone, image_size=image_size, alpha=alpha)
    _check_choice("batch_norm", batch_norm, BATCH_NORMS)
    _check_choice("precision", precision, tuple(PRECISIONS))
    if not 0 <= dropout < 1:
        raise RequestError(f"--dropout={dropout:g} must be at least 0 and below 1.")

    with precision_policy(precision), _seeded(seed), _statistics_of_first_replica():
        network = build_backbone(backbone, image_size=image_size, alpha=alpha)
        network = clone_with_rules(
            network,
            dropout_rule(network),
            _float32_input_rule,
            _batch_norm_rule(batch_norm),
        )
        # After cloning: in bfloat16, Keras' own Normalization would round the mean it is given.
        load_weights(network, weights, backbone=backbone, image_size=image_size, alpha=alpha)
        images = tf.keras.Input((image_size, image_size, 3), dtype=tf.uint8, name="images")
        maps = network(preprocess(images, entry.preprocessing))
        pooled = tf.keras.layers.GlobalAveragePooling2D(dtype="float32", name="pooling")(maps)
        features = tf.keras.Model(images, pooled, name="features")
        head = _build_head(pooled.shape[-1], num_classes, dropout)
        model = tf.keras.Model(images, head(features(images)), name="classifier")
    return Classifier(model, features, head)


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


def batch_norm_statistics(model: tf.keras.Model) -> list[tf.Variable]:
    """The moving means and variances that a training step updates; those of frozen layers are not.

    Each replica updates its own copy, and `build_classifier` makes reads outside `strategy.run` and
    checkpoints take the first replica's. A training step must therefore average the copies.
    """
    return [
        variable
        for layer in _flatten(model)
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable
        for variable in (layer.moving_mean, layer.moving_variance)
    ]


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


def _check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RequestError(f"--{flag}={value} is unknown; there are: {', '.join(choices)}.")


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
