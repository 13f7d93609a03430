"""TFLite files, for phones and small computers: float32, float16 weights, and 8-bit integers.

All take `images`, uint8 `[1, size, size, 3]`, and give `probabilities`, float32 `[1, classes]`.
"""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

FILES = {"float": "model.tflite", "float16": "model_float16.tflite", "int8": "model_int8.tflite"}


def write(
    make: Callable[[tf.DType], tf.keras.Model], folder: str, typical: Sequence[np.ndarray]
) -> None:
    """Converts a plain model to the three files of `FILES`.

    Args:
        make: gives the plain model for a type of pixels; see `plain.plain_model`.
        folder: where to.
        typical: training photos, uint8 `[size, size, 3]`, from which the ranges of all that is
            computed are taken for 8 bits.
    """
    with tempfile.TemporaryDirectory() as saved:
        _save(make(tf.uint8), saved)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        _write(converter, os.path.join(folder, FILES["float"]))
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
        _write(converter, os.path.join(folder, FILES["float16"]))
    with tempfile.TemporaryDirectory() as saved:
        # From floats: the converter then makes uint8 of 0 to 255 themselves, without a cast.
        _save(make(tf.float32), saved)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _calibration(typical)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        _write(converter, os.path.join(folder, FILES["int8"]))


def opened(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """Gives `images -> probabilities` of a file."""
    with _still_in_tensorflow():
        interpreter = tf.lite.Interpreter(path, num_threads=os.cpu_count())
    run = interpreter.get_signature_runner()
    return lambda images: np.concatenate(
        [run(images=image[np.newaxis])["probabilities"] for image in images]
    )


def _save(model: tf.keras.Model, folder: str) -> None:
    @tf.function(input_signature=[tf.TensorSpec([1, *model.input_shape[1:]], model.input.dtype)])
    def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(images, training=False)}

    module = tf.Module()
    module.weights = model.variables
    tf.saved_model.save(module, folder, signatures={"serving_default": probabilities})


def _write(converter: tf.lite.TFLiteConverter, path: str) -> None:
    with _still_in_tensorflow():
        content = converter.convert()
    with open(path, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def _still_in_tensorflow() -> Iterator[None]:
    """Newer TensorFlow warns that its interpreter will leave for the package `ai_edge_litert`."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"\s*Warning: tf\.lite\.Interpreter is deprecated"
        )
        yield


def _calibration(typical: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Yields the photos, then one half black and half white: pixels are 0 to 255, each exact."""
    for image in typical:
        yield {"images": image[np.newaxis].astype(np.float32)}
    extreme = np.zeros([1, *typical[0].shape], np.float32)
    extreme[:, : len(typical[0]) // 2] = 255
    yield {"images": extreme}
