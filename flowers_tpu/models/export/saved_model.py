"""A SavedModel that goes from the bytes of JPEG files to names: for TensorFlow and its server."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

BYTES, PIXELS = "serving_default", "pixels"  # signatures
_MOST_NAMES = 5


class Servable(tf.Module):
    """Names photos: `[n]` strings, or pixels.

    Args:
        model: see `plain.plain_model`.
        class_names: by label.
        decode: from the bytes of a photo to `[size, size, 3]` uint8, in TensorFlow's operations.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        class_names: tuple[str, ...],
        decode: Callable[[tf.Tensor], tf.Tensor],
    ):
        super().__init__(name="flowers")
        # The variables alone: with the model, Keras would save a function of every layer.
        self.weights = model.variables
        all_names = tf.constant(class_names)
        size = model.input_shape[1]
        count = min(_MOST_NAMES, len(class_names))

        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, "images")])
        def pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = model(images, training=False)
            best = tf.math.top_k(probabilities, count)
            return {
                "names": tf.gather(all_names, best.indices),
                "confidences": best.values,
                "probabilities": probabilities,
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "jpeg_bytes")])
        def jpeg_bytes(jpeg_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            spec = tf.TensorSpec([size, size, 3], tf.uint8)
            # Decoders and networks belong to the CPU and to whatever there is.
            with tf.device("CPU:0"):
                images = tf.map_fn(decode, jpeg_bytes, fn_output_signature=spec)
            return pixels(images)

        self.pixels, self.jpeg_bytes = pixels, jpeg_bytes


def write(
    model: tf.keras.Model,
    folder: str,
    class_names: tuple[str, ...],
    decode: Callable[[tf.Tensor], tf.Tensor],
) -> None:
    """Saves a plain model with its names and its decoder.

    `serving_default` takes `jpeg_bytes`: string `[n]`, each a JPEG file of any size; it is turned
    upright by its EXIF orientation. `pixels` takes `images`: uint8 `[n, size, size, 3]`. Both give
    `probabilities`: float32 `[n, classes]` by label, and the best classes, at most five, as `names`
    (string) and `confidences`, the best first.

    Args:
        model: see `plain.plain_model`.
        folder: where to.
        class_names: by label.
        decode: see `Servable`.
    """
    servable = Servable(model, class_names, decode)
    signatures = {BYTES: servable.jpeg_bytes, PIXELS: servable.pixels}
    tf.saved_model.save(servable, folder, signatures=signatures)


def opened(folder: str) -> Callable[[np.ndarray], np.ndarray]:
    """Gives `JPEGs -> probabilities` of the signature for bytes."""
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures[BYTES]
    return lambda jpegs: signature(jpeg_bytes=tf.constant(jpegs))["probabilities"].numpy()
