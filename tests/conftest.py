import flowers_tpu  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

# isort: split
import functools

import pytest
import tensorflow as tf

MOST_REPLICAS = 8

_cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    _cpu, [tf.config.LogicalDeviceConfiguration()] * MOST_REPLICAS
)
tf.config.list_logical_devices()  # from here on nobody can split it another way


@pytest.fixture
def make_strategy():
    """Gives the MirroredStrategy of so many CPU replicas, always the same one within a test."""

    @functools.cache
    def make(replicas: int) -> tf.distribute.Strategy:
        return tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(replicas)],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )

    return make
