"""A network that computes next to nothing, to see what everything around it costs."""

import tensorflow as tf


def Tiny(  # noqa: N802 (named like the builders of tf.keras.applications)
    input_shape: tuple[int, int, int],
) -> tf.keras.Model:
    """A single convolution of 8 filters, which halves the resolution."""
    inputs = tf.keras.Input(input_shape)
    outputs = tf.keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="conv")(
        inputs
    )
    return tf.keras.Model(inputs, outputs, name="tiny")
