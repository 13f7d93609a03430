"""A Keras model copied with some of its layers exchanged for others of the same weights."""

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
