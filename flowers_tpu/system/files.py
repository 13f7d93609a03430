"""Files that are written whole or not at all, locally or on `gs://`."""

import os
import uuid

import tensorflow as tf

from flowers_tpu.system.errors import RunError


def write_atomically(path: str, content: str | bytes) -> None:
    """Writes `content` beside `path`, then renames it into place.

    A reader, or a run that is killed, sees the old file or the new one, never a part.

    Raises:
        RunError: it could not be written; a file that was there is as it was.
    """
    part = f"{path}.{uuid.uuid4().hex[:8]}.part"
    mode = "wb" if isinstance(content, bytes) else "w"
    try:
        with tf.io.gfile.GFile(part, mode) as file:
            file.write(content)
        tf.io.gfile.rename(part, path, overwrite=True)
    except BaseException as error:
        if tf.io.gfile.exists(part):
            tf.io.gfile.remove(part)
        if isinstance(error, (tf.errors.OpError, OSError)):
            raise RunError(f"{path}: cannot be written ({error})") from error
        raise


def read_text(path: str) -> str:
    """Returns the text of `path`."""
    with tf.io.gfile.GFile(path, "r") as file:
        return file.read()


def join(directory: str, *names: str) -> str:
    """`os.path.join`, which serves for `gs://` just as well."""
    return os.path.join(directory, *names)
