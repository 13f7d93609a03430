"""The ImageNet weights that Keras offers for download, without the classification layers.

The table says what `tf.keras.applications` itself fetches (a test compares them). It is held here
because Keras only tells name and address by starting the download, and a machine without internet
access must be told which file to bring.
"""

import dataclasses
import socket

import tensorflow as tf

from flowers_tpu.system.errors import RequestError

_SERVER = "https://storage.googleapis.com/"
_KERAS = "tensorflow/keras-applications/"
_KERNELS = "weights_tf_dim_ordering_tf_kernels"

# Backbone -> (path on the server, MD5).
_FILES = {
    "vgg16": (f"{_KERAS}vgg16/vgg16_{_KERNELS}_notop.h5", "6d6bbae143d832006294945121d1f1fc"),
    "vgg19": (f"{_KERAS}vgg19/vgg19_{_KERNELS}_notop.h5", "253f8cb515780f3b799900260a226db6"),
    "resnet50": (
        f"{_KERAS}resnet/resnet50_{_KERNELS}_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
    "resnet101": (
        f"{_KERAS}resnet/resnet101_{_KERNELS}_notop.h5",
        "88cf7a10940856eca736dc7b7e228a21",
    ),
    "densenet121": (
        f"{_KERAS}densenet/densenet121_{_KERNELS}_notop.h5",
        "30ee3e1110167f948a6b9946edeeb738",
    ),
    "densenet201": (
        f"{_KERAS}densenet/densenet201_{_KERNELS}_notop.h5",
        "c13680b51ded0fb44dff2d8f86ac8bb1",
    ),
    "xception": (
        f"{_KERAS}xception/xception_{_KERNELS}_notop.h5",
        "b0042744bf5b25fce3cb969f33bebb97",
    ),
    "inception_v3": (
        f"{_KERAS}inception_v3/inception_v3_{_KERNELS}_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
    ),
    "efficientnet_b0": (
        "keras-applications/efficientnetb0_notop.h5",
        "50bc09e76180e00e4465e1a485ddc09d",
    ),
    "efficientnet_b1": (
        "keras-applications/efficientnetb1_notop.h5",
        "74c4e6b3e1f6a1eea24c589628592432",
    ),
    "efficientnet_b2": (
        "keras-applications/efficientnetb2_notop.h5",
        "111f8e2ac8aa800a7a99e3239f7bfb39",
    ),
    "efficientnet_b3": (
        "keras-applications/efficientnetb3_notop.h5",
        "af6d107764bb5b1abb91932881670226",
    ),
    "efficientnet_b4": (
        "keras-applications/efficientnetb4_notop.h5",
        "ebc24e6d6c33eaebbd558eafbeedf1ba",
    ),
    "efficientnet_b5": (
        "keras-applications/efficientnetb5_notop.h5",
        "38879255a25d3c92d5e44e04ae6cec6f",
    ),
    "efficientnet_b6": (
        "keras-applications/efficientnetb6_notop.h5",
        "9ecce42647a20130c1f39a5d4cb75743",
    ),
    "efficientnet_b7": (
        "keras-applications/efficientnetb7_notop.h5",
        "cbcfe4450ddf6f3ad90b1b398090fe4a",
    ),
    "efficientnet_v2_b0": (
        f"{_KERAS}efficientnet_v2/efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
    ),
    "efficientnet_v2_b1": (
        f"{_KERAS}efficientnet_v2/efficientnetv2-b1_notop.h5",
        "0e80663031ca32d657f9caa404b6ec37",
    ),
    "efficientnet_v2_b2": (
        f"{_KERAS}efficientnet_v2/efficientnetv2-b2_notop.h5",
        "1dfe2e7a5d45b6632553a8961ea609eb",
    ),
    "efficientnet_v2_b3": (
        f"{_KERAS}efficientnet_v2/efficientnetv2-b3_notop.h5",
        "f6abf7b5849ac99a89b50dd3fd532856",
    ),
    "efficientnet_v2_s": (
        f"{_KERAS}efficientnet_v2/efficientnetv2-s_notop.h5",
        "af0682fb74e8c54910f2d4393339c070",
    ),
    "efficientnet_v2_m": (
        f"{_KERAS}efficientnet_v2/efficientnetv2-m_notop.h5",
        "1b8dc055df72dde80d614482840fe342",
    ),
    "efficientnet_v2_l": (
        f"{_KERAS}efficientnet_v2/efficientnetv2-l_notop.h5",
        "b0b66b5c863aef5b46e8608fe1711615",
    ),
}

# The MobileNets were trained at several widths and image sizes; other sizes take those of 224.
_MOBILENET_ALPHAS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}
_MOBILENET_SIZES = (128, 160, 192, 224)
_MOBILENET_V2_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
_MOBILENET_V2_SIZES = (96, 128, 160, 192, 224)


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file to download: its address, and its MD5 where Keras knows one."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's name, in the cache of Keras too."""
        return self.url.rsplit("/", 1)[1]


def imagenet_file(backbone: str, *, image_size: int, alpha: float = 1.0) -> RemoteFile:
    """The ImageNet weights that Keras would download for this backbone.

    Args:
        backbone: name in the registry.
        image_size: side of the square images, pixels.
        alpha: width factor of a MobileNet.

    Raises:
        RequestError: there are none.
    """
    if backbone == "mobilenet":
        _check_alpha(backbone, alpha, tuple(_MOBILENET_ALPHAS))
        size = image_size if image_size in _MOBILENET_SIZES else 224
        file = f"{_KERAS}mobilenet/mobilenet_{_MOBILENET_ALPHAS[alpha]}_{size}_tf_no_top.h5"
        return RemoteFile(_SERVER + file)
    if backbone == "mobilenet_v2":
        _check_alpha(backbone, alpha, _MOBILENET_V2_ALPHAS)
        size = image_size if image_size in _MOBILENET_V2_SIZES else 224
        file = f"mobilenet_v2_{_KERNELS}_{float(alpha)}_{size}_no_top.h5"
        return RemoteFile(f"{_SERVER}{_KERAS}mobilenet_v2/{file}")
    if backbone not in _FILES:
        raise RequestError(
            f"--weights=imagenet: there are none for --backbone={backbone}. "
            "Use --weights=none, or the path of a weights file."
        )
    path, md5 = _FILES[backbone]
    return RemoteFile(_SERVER + path, md5)


def _check_alpha(backbone: str, alpha: float, offered: tuple[float, ...]) -> None:
    if alpha not in offered:
        raise RequestError(
            f"--weights=imagenet: there are none for --backbone={backbone} with --alpha={alpha:g}, "
            f"only with {', '.join(f'{value:g}' for value in offered)}."
        )


def fetch(file: RemoteFile, *, timeout: float = 30.0) -> str:
    """Downloads a file into the cache of Keras (`~/.keras/models`), unless it is there already.

    Args:
        file: what to download.
        timeout: seconds of silence after which the network counts as absent.

    Returns:
        The path of the local file.

    Raises:
        RequestError: the download failed; the message says how to do without it.
    """
    previous = socket.getdefaulttimeout()
    # `get_file` sets no time limit: behind a firewall that drops packets it would wait for ever.
    socket.setdefaulttimeout(timeout)
    try:
        return tf.keras.utils.get_file(
            file.name, file.url, cache_subdir="models", file_hash=file.md5
        )
    # `get_file` raises a bare `Exception` for a failed connection, `ValueError` for a wrong hash,
    # and lets `OSError` and `http.client` errors through.
    except Exception as error:
        raise RequestError(
            f"--weights=imagenet: the download of {file.url} failed ({error}). Without internet "
            f"access here, fetch this file elsewhere and give --weights=/path/to/{file.name}; "
            "or train from random weights with --weights=none."
        ) from error
    finally:
        socket.setdefaulttimeout(previous)
