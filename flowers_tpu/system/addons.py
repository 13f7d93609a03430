"""The only file that imports TensorFlow Addons, whose last release knows nothing of newer Keras.

TFA 0.23 imports `keras.src.engine`, which is Keras 2. From TensorFlow 2.16 on, Keras 2 is the
package `tf_keras`, so there TFA is imported while `sys.modules` holds the modules of `tf_keras`
under the names of `keras`; everything is put back afterwards.
"""

import contextlib
import importlib
import importlib.metadata
import sys
import types
import warnings
from collections.abc import Iterator

import tensorflow as tf

from flowers_tpu.system.errors import RequestError


def tensorflow_addons(needed_by: str) -> types.ModuleType:
    """Imports TensorFlow Addons and returns it.

    Args:
        needed_by: the flag that asks for it, for the message.

    Raises:
        RequestError: TFA is not installed, as on Python 3.12 and later, where it has no wheel.
    """
    _ = tf.keras.layers  # `tf.keras` must be bound before `keras` means something else
    with warnings.catch_warnings():
        # Its end of life is known (BUILD_NOTES.md); nothing else of it is silenced.
        warnings.filterwarnings("ignore", message=r"\s*TensorFlow Addons \(TFA\) has ended")
        warnings.filterwarnings("ignore", message="Tensorflow Addons supports using Python ops")
        try:
            with _tf_keras_as_keras() if _keras_is_3() else contextlib.nullcontext():
                return importlib.import_module("tensorflow_addons")
        except ModuleNotFoundError as error:
            raise RequestError(
                f"{needed_by} needs the package tensorflow-addons ({error}); it has wheels for "
                "Python 3.9 to 3.11 only: use one of these, or another value of the flag"
            ) from error


def _keras_is_3() -> bool:
    try:
        return int(importlib.metadata.version("keras").partition(".")[0]) >= 3
    except importlib.metadata.PackageNotFoundError:
        return True  # then `tf_keras` is the only Keras there is


@contextlib.contextmanager
def _tf_keras_as_keras() -> Iterator[None]:
    import tf_keras.src.engine.base_layer  # noqa: F401

    saved = {n: m for n, m in sys.modules.items() if n == "keras" or n.startswith("keras.")}
    _forget("keras")
    for name, module in list(sys.modules.items()):
        if name == "tf_keras" or name.startswith("tf_keras."):
            sys.modules[name[len("tf_") :]] = module
    try:
        yield
    finally:
        _forget("keras")
        sys.modules.update(saved)


def _forget(package: str) -> None:
    for name in list(sys.modules):
        if name == package or name.startswith(package + "."):
            del sys.modules[name]
