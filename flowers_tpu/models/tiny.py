"""A network that computes next to nothing, to see what everything around it costs."""

import tensorflow as tf


def Tiny(  # noqa: N802 (named like the builders of tf.keras.applications)
    input_shape: tuple[int, int, int],
) -> tf.keras.Model:
    """A single convolution of 8 filters, one place in eight: little also with large photos."""
    inputs = tf.keras.Input(input_shape)
    outputs = tf.keras.layers.Conv2D(8, 3, 8, padding="same", activation="relu", name="conv")(
        inputs
    )
    return tf.keras.Model(inputs, outputs, name="tiny")
