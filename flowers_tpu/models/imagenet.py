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
    "resnet50_v2": (
        f"{_KERAS}resnet/resnet50v2_{_KERNELS}_notop.h5",
        "fac2f116257151a9d068a22e544a4917",
    ),
    "resnet101_v2": (
        f"{_KERAS}resnet/resnet101v2_{_KERNELS}_notop.h5",
        "c0ed64b8031c3730f411d2eb4eea35b5",
    ),
    "resnet152_v2": (
        f"{_KERAS}resnet/resnet152v2_{_KERNELS}_notop.h5",
        "ed17cf2e0169df9d443503ef94b23b33",
    ),
    "inception_resnet_v2": (
        f"{_KERAS}inception_resnet_v2/inception_resnet_v2_{_KERNELS}_notop.h5",
        "d19885ff4a710c122648d3b5c3b684e4",
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

# RegNet -> SHA-256.
_REGNETS = {
    "x002": "5445b66cd50445eb7ecab094c1e78d4d3d29375439d1a7798861c4af15ffff21",
    "x004": "de139bf07a66c9256f2277bf5c1b6dd2d5a3a891a5f8a925a10c8a0a113fd6f3",
    "x006": "a43ec97ad62f86b2a96a783bfdc63a5a54de02eef54f26379ea05e1bf90a9505",
    "x008": "3c7e4b0917359304dc18e644475c5c1f5e88d795542b676439c4a3acd63b7207",
    "x016": "1b8e3d545d190271204a7b2165936a227d26b79bb7922bac5ee4d303091bf17a",
    "x032": "9cd4522806c0fcca01b37874188b2bd394d7c419956d77472a4e072b01d99041",
    "x040": "b4ed0ca0b9a98e789e05000e830403a7ade4d8afa01c73491c44610195198afe",
    "x064": "3e706fa416a18dfda14c713423eba8041ae2509db3e0a611d5f599b5268a46c4",
    "x080": "7b1ce8e29ceefec10a6569640ee329dba7fbc98b5d0f6346aabade058b66cf29",
    "x120": "36174ddd0299db04a42631d028abcb1cc7afec2b705e42bd28fcd325e5d596bf",
    "x160": "9d1485050bdf19531ffa1ed7827c75850e0f2972118a996b91aa9264b088fd43",
    "x320": "9db7eacc37b85c98184070e1a172e6104c00846f44bcd4e727da9e50d9692398",
    "y002": "f63221f63d625b8e201221499682587bfe29d33f50a4c4f4d53be00f66c0f12c",
    "y004": "45e6ba8309a17a77e67afc05228454b2e0ee6be0dae65edc0f31f1da10cc066b",
    "y006": "b70261cba4e60013c99d130cc098d2fce629ff978a445663b6fa4f8fc099a2be",
    "y008": "b11f5432a216ee640fe9be6e32939defa8d08b8d136349bf3690715a98752ca1",
    "y016": "d7404f50205e82d793e219afb9eb2bfeb781b6b2d316a6128c6d7d7dacab7f57",
    "y032": "eb3ac1c45ec60f4f031c3f5180573422b1cf7bebc26c004637517372f68f8937",
    "y040": "b5be2a5e5f072ecdd9c0b8a437cd896df0efa1f6a1f77e41caa8719b7dfcb05d",
    "y064": "885c4b7ed7ea339daca7dafa1a62cb7d41b1068897ef90a5a3d71b4a2e2db31a",
    "y080": "3d119577e1e3bf8d153b895e8ea9e4ec150ff2d92abdca711b6e949c3fd7115d",
    "y120": "4a6fa387108380b730b71feea2ad80b5224b5ea9dc21dc156c93fe3c6186485c",
    "y160": "ead1e6b568be8f34447ec8941299a9df4368736ba9a8205de5427fa20a1fb316",
    "y320": "cad78f74a586e24c61d38be17f3ae53bb9674380174d2585da1a526b8c20e1fd",
}

# MobileNetV3 -> by alpha, MD5.
_MOBILENET_V3 = {
    "mobilenet_v3_small": {
        0.75: "ebdb5cc8e0b497cd13a7c275d475c819",
        1.0: "d3e8ec802a04aa4fc771ee12a9a9b836",
    },
    "mobilenet_v3_large": {
        0.75: "40af19a13ebea4e2ee0c676887f69a2e",
        1.0: "07fb09a5933dd0c8eaafa16978110389",
    },
}

# The MobileNets were trained at several widths and image sizes; other sizes take those of 224.
_MOBILENET_ALPHAS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}
_MOBILENET_SIZES = (128, 160, 192, 224)
_MOBILENET_V2_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
_MOBILENET_V2_SIZES = (96, 128, 160, 192, 224)


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file to download: its address, and its MD5 or SHA-256 where Keras knows one."""

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
    if offered := _MOBILENET_V3.get(backbone):
        _check_alpha(backbone, alpha, tuple(offered))
        kind = backbone.rpartition("_")[2]
        file = f"weights_mobilenet_v3_{kind}_224_{float(alpha)}_float_no_top_v2.h5"
        return RemoteFile(f"{_SERVER}{_KERAS}mobilenet_v3/{file}", offered[alpha])
    if backbone.startswith("regnet_"):
        name = backbone.removeprefix("regnet_").replace("_", "")
        return RemoteFile(f"{_SERVER}{_KERAS}regnet/regnet{name}_notop.h5", _REGNETS[name])
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
