"""Keras models made of others: with some layers exchanged, or for images of another size."""

from collections.abc import Callable

import tensorflow as tf

# Gives the layer to put in the place of another, or None to leave it to the next rule.
Rule = Callable[[tf.keras.layers.Layer], tf.keras.layers.Layer | None]


def clone_with_rules(model: tf.keras.Model, *rules: Rule) -> tf.keras.Model:
    """Copies a functional model, its layers exchanged as the first rule that answers says.

    Args:
        model: a functional Keras model without models nested in it.
        *rules: a replacement must keep the name of its layer, and the shapes of its weights or
            have none.

    Returns:
        A model of its own variables, created in the current strategy scope under the current
        variable creators, with the values of those of `model`; its layers in the same order.
    """

    def replacement(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        for rule in rules:
            if (exchanged := rule(layer)) is not None:
                return exchanged
        return type(layer).from_config(layer.get_config())

    clone = tf.keras.models.clone_model(model, clone_function=replacement)
    for layer in model.layers:
        if (exchanged := clone.get_layer(layer.name)).weights:
            exchanged.set_weights(layer.get_weights())
    return clone


def at_size(model: tf.keras.Model, size: int) -> tf.keras.Model:
    """Returns a functional model of images, of the same layers, for images of another size.

    A functional model takes images of the size that it was built for alone. What was worked out for
    that size, as the padding of strided convolutions, stays as it is.

    Args:
        model: from images `[batch, height, width, 3]`; models nested in it are of images or not.
        size: side of the images, pixels; if it is the model's, that is returned.
    """
    if model.input_shape[1] == size:
        return model

    def same(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        takes_images = isinstance(layer, tf.keras.Model) and len(layer.input_shape) == 4
        return at_size(layer, size) if takes_images else layer

    images = tf.keras.Input((size, size, 3), dtype=model.input.dtype, name=f"images_{size}")
    return tf.keras.models.clone_model(model, input_tensors=images, clone_function=same)
