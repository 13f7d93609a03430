"""Keras HDF5 files, local or on `gs://`, opened with an error that says what was expected."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import tensorflow as tf

from flowers_tpu.system import files
from flowers_tpu.system.errors import RequestError, first_line

# What is expected of a flag's file, and how Keras writes it.
_WANTED = {
    "weights": ("imagenet, none, or the path of a Keras HDF5 file", "model.save_weights"),
    "backbone": ("a name of a network, or the path of a Keras HDF5 file", "model.save"),
}


@contextlib.contextmanager
def opened(path: str, flag: str) -> Iterator[h5py.File]:
    """Opens a Keras HDF5 file for reading.

    Args:
        path: as for `read_layers`.
        flag: that names it: `weights` or `backbone`.

    Raises:
        RequestError: there is no such file, or it is not of this format.
    """
    wanted, method = _WANTED[flag]
    if files.is_dir(path):
        raise RequestError(
            f"--{flag}={path}: is a folder, and cannot be read as a Keras HDF5 file. Expected: "
            f"{wanted}; the weights of another run go by --from_run=RUN."
        )
    try:
        with h5py.File(_local_or_in_memory(path), "r") as file:
            yield file
    except (FileNotFoundError, tf.errors.NotFoundError) as error:
        raise RequestError(
            f"--{flag}={path}: there is no such file. Expected: {wanted}."
        ) from error
    except (OSError, KeyError, TypeError, tf.errors.OpError) as error:
        raise RequestError(
            f"--{flag}={path}: cannot be read as a Keras HDF5 file ({first_line(error)}). Such a "
            f'file comes from `{method}("name.h5")`; names that end in .weights.h5 or .keras get '
            "another format."
        ) from error


def _local_or_in_memory(path: str) -> Path | io.BytesIO:
    """HDF5 needs to jump about in a file, so a remote one is fetched whole."""
    if "://" not in path:
        return Path(path).expanduser()
    return io.BytesIO(files.read_bytes(path))
