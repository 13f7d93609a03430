"""`model.keras`: for whoever goes on with it in plain `tf.keras`, in Keras 2."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from flowers_tpu.system.errors import RequestError, first_line

FILE = "model.keras"


def write(model: tf.keras.Model, folder: str, backbone: str) -> None:
    """Saves a plain model to `folder/model.keras`.

    Args:
        model: see `plain.plain_model`.
        folder: where to.
        backbone: its name, for messages.

    Raises:
        RequestError: it has a layer that plain `tf.keras` could not read.
    """
    if foreign := [layer for layer in _layers(model) if not _is_of_keras(layer)]:
        raise _refusal(backbone, f"its layer {foreign[0].name} ({type(foreign[0]).__name__})")
    try:
        model.save(os.path.join(folder, FILE))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _refusal(backbone, first_line(error)) from error


def opened(folder: str) -> Callable[[np.ndarray], np.ndarray]:
    """Gives `images -> probabilities` of the file, as anybody would open it."""
    model = tf.keras.models.load_model(os.path.join(folder, FILE), compile=False)
    return lambda images: model(images, training=False).numpy()


def _layers(model: tf.keras.Model) -> Iterator[tf.keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _is_of_keras(layer: tf.keras.layers.Layer) -> bool:
    """Whether a `.keras` file keeps it: no layer of others, and no bare operation of TensorFlow."""
    kind = type(layer)
    of_keras = kind.__module__.partition(".")[0] in ("keras", "tf_keras")
    return of_keras and not kind.__name__.endswith("OpLambda")


def _refusal(backbone: str, reason: str) -> RequestError:
    return RequestError(
        f"--format=keras: --backbone={backbone} cannot be saved so that plain tf.keras opens it: "
        f"{reason}; take --format=savedmodel"
    )
