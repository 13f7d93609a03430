from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.models import backbones

_WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"


@pytest.fixture
def on_replicas():
    """Runs function(rows) on replicas, each with its rows of the batch; gives all rows back."""

    def run(strategy, function, batch):
        rows = len(batch) // strategy.num_replicas_in_sync

        def share(context):
            start = context.replica_id_in_sync_group * rows
            return tf.constant(batch[start : start + rows])

        values = strategy.experimental_distribute_values_from_function(share)
        outputs = tf.function(lambda values: strategy.run(function, args=(values,)))(values)
        return np.concatenate(strategy.experimental_local_results(outputs))

    return run


@pytest.fixture
def real_weights():
    """Path of a weights file as Keras has it on its server; skips the test if it is not there."""

    def path(name):
        if not (_WEIGHTS / name).exists():
            pytest.skip(f"{_WEIGHTS / name} is absent")
        return str(_WEIGHTS / name)

    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def tiny(monkeypatch):
    """Name of a backbone that builds at once and has what the large ones have."""
    monkeypatch.setitem(
        backbones.BACKBONES, "tiny", backbones.Backbone(_build_tiny, "tf", from_keras=False)
    )
    return "tiny"


@pytest.fixture
def tiny_normalizing(monkeypatch):
    """The same with EfficientNet's first layers: normalization by variables."""
    monkeypatch.setitem(
        backbones.BACKBONES,
        "tiny_normalizing",
        backbones.Backbone(_build_tiny_normalizing, "inside", from_keras=False),
    )
    return "tiny_normalizing"


def _build_tiny_normalizing(input_shape):
    layers = tf.keras.layers
    images = tf.keras.Input(input_shape)
    x = layers.Normalization(axis=3)(layers.Rescaling(1 / 255)(images))
    x = layers.ZeroPadding2D(name="padding")(x)
    return tf.keras.Model(images, layers.Conv2D(6, 3, name="conv")(x), name="tiny_normalizing")


def _build_tiny(input_shape):
    layers = tf.keras.layers
    images = tf.keras.Input(input_shape)
    x = layers.Conv2D(6, 3, strides=4, name="conv")(images)
    x = layers.BatchNormalization(momentum=0.5, name="bn")(x)
    x = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), name="drop")(x)
    return tf.keras.Model(images, x, name="tiny")


@pytest.fixture
def randomize():
    """Gives the batch normalizations of a model other values than those of a fresh one.

    A gain of 1.3 keeps the features of a random EfficientNet-B0 alive: at 1 they hardly depend on
    the pixels any more, from 1.4 on they depend on the last digit of each.
    """

    def change(model):
        generator = np.random.default_rng(0)
        for layer in model.layers:
            if isinstance(layer, tf.keras.layers.BatchNormalization):
                channels = layer.gamma.shape
                gamma = generator.uniform(0.8 * 1.3, 1.2 * 1.3, channels)
                beta = generator.uniform(-0.1, 0.1, channels)
                mean = generator.uniform(-0.1, 0.1, channels)
                variance = generator.uniform(0.8, 1.2, channels)
                layer.set_weights([gamma, beta, mean, variance])

    return change
