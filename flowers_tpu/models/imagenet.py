"""The ImageNet weights that Keras offers for download, read from the network it makes of them."""

import re
import socket

import numpy as np
import tensorflow as tf

from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.system.errors import RequestError

# `get_file` sets no time limit: behind a firewall that drops packets it would wait for ever.
_SECONDS_OF_SILENCE = 30.0


def read_imagenet(
    backbone: str, *, image_size: int, alpha: float = 1.0
) -> dict[str, list[np.ndarray]]:
    """Returns the layers' weights as Keras has them; it keeps the file in `~/.keras/models`.

    Args:
        backbone: name in the registry.
        image_size: side of the square images, pixels; the MobileNets have files for several.
        alpha: width factor of a MobileNet.

    Raises:
        RequestError: there are none, or the download failed; the message says how to do without.
    """
    entry = check_backbone(backbone, image_size=image_size, alpha=alpha)
    if not entry.from_keras:
        raise RequestError(
            f"--weights=imagenet: there are none for --backbone={backbone}. "
            "Use --weights=none, or the path of a weights file."
        )
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_OF_SILENCE)
    options = {"alpha": alpha} if entry.takes_alpha else {}
    try:
        network: tf.keras.Model = entry.application(
            include_top=False,
            weights="imagenet",
            input_shape=(image_size, image_size, 3),
            **options,
        )
    # `get_file` raises a bare `Exception` for a failed connection, which names the address, and
    # `ValueError` for a wrong hash, as Keras does for an alpha of which there are no weights.
    except Exception as error:
        raise RequestError(f"--weights=imagenet: {_what_to_do(error, backbone)}") from error
    finally:
        socket.setdefaulttimeout(previous)
    return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}


def _what_to_do(error: Exception, backbone: str) -> str:
    address = re.search(r"https?://\S*/([\w.-]+\.h5)", str(error))
    if address or isinstance(error, OSError):
        # Of one that breaks off Keras has printed the address before.
        what, name = (address[0], address[1]) if address else ("what is named above", "FILE.h5")
        return (
            f"the download of {what} failed ({error}). Without internet access here, fetch this "
            f"file elsewhere and give --weights=/path/to/{name}; or train from random weights with "
            "--weights=none."
        )
    return (
        f"Keras has none for --backbone={backbone} ({str(error).strip()}). Use --weights=none, or "
        "the path of a weights file."
    )
