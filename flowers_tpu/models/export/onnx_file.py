"""`model.onnx`, for ONNX runtimes: servers of other makers, and browsers."""

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from flowers_tpu.system.errors import RequestError

FILE = "model.onnx"
OPSET = 17  # of 2022: what runtimes of the last years know


def check_installed() -> None:
    """Raises RequestError if a package is missing that makes the file, or that checks it."""
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"--format=onnx needs the packages of the extra `export` ({error}): "
            "pip install -e '.[export]'"
        ) from error


def write(model: tf.keras.Model, folder: str) -> None:
    """Converts a plain model to `folder/model.onnx`.

    It takes `images`, uint8 `[n, size, size, 3]`, and gives `probabilities`, float32
    `[n, classes]`.

    Args:
        model: see `plain.plain_model`.
        folder: where to.
    """
    import tf2onnx

    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, "images")

    @tf.function(input_signature=[spec])
    def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(images, training=False)}

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # it tells of each of its optimizations
    try:
        tf2onnx.convert.from_function(
            probabilities,
            input_signature=[spec],
            opset=OPSET,
            output_path=os.path.join(folder, FILE),
        )
    finally:
        logging.set_verbosity(level)


def opened(folder: str) -> Callable[[np.ndarray], np.ndarray]:
    """Gives `images -> probabilities` of the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        os.path.join(folder, FILE), providers=["CPUExecutionProvider"]
    )
    return lambda images: np.asarray(session.run(["probabilities"], {"images": images})[0])
