import os
import socket
import sys
import time

import pytest
import tensorflow as tf

from flowers_tpu.models.backbones import BACKBONES, build_backbone
from flowers_tpu.models.imagenet import RemoteFile, fetch, imagenet_file
from flowers_tpu.models.weights import load_weights
from flowers_tpu.system.errors import RequestError


class DownloadAskedForError(Exception):
    pass


@pytest.mark.parametrize(
    ("name", "image_size", "alpha"),
    [
        ("mobilenet", 160, 0.75),
        ("mobilenet", 100, 1.0),
        ("mobilenet", 96, 0.25),
        ("mobilenet_v2", 96, 0.35),
        ("mobilenet_v2", 100, 1.4),
        ("mobilenet_v3_small", 96, 0.75),
        ("mobilenet_v3_large", 100, 1.0),
        ("vgg16", 75, 1.0),
        *(
            pytest.param(name, 75, 1.0, marks=pytest.mark.slow)
            for name, backbone in BACKBONES.items()
            if backbone.from_keras and not backbone.takes_alpha and name != "vgg16"
        ),
    ],
)
def test_imagenet_files_are_those_keras_downloads(name, image_size, alpha, monkeypatch):
    def get_file(fname, origin, cache_subdir, file_hash=None):
        raise DownloadAskedForError(fname, origin, cache_subdir, file_hash)

    monkeypatch.setattr(sys.modules[tf.keras.utils.get_file.__module__], "get_file", get_file)
    options = {"alpha": alpha} if BACKBONES[name].takes_alpha else {}
    with pytest.raises(DownloadAskedForError) as asked:
        BACKBONES[name].application(
            weights="imagenet",
            include_top=False,
            input_shape=(image_size, image_size, 3),
            **options,
        )
    file = imagenet_file(name, image_size=image_size, alpha=alpha)
    assert asked.value.args == (file.name, file.url, "models", file.md5)


def test_imagenet_weights_that_do_not_exist_are_refused():
    with pytest.raises(RequestError, match="none for --backbone=small_cnn"):
        imagenet_file("small_cnn", image_size=64)
    with pytest.raises(RequestError, match=r"--alpha=0\.3, only with 0\.25, 0\.5, 0\.75, 1"):
        imagenet_file("mobilenet", image_size=64, alpha=0.3)
    with pytest.raises(RequestError, match=r"only with 0\.35, .*1\.4"):
        imagenet_file("mobilenet_v2", image_size=64, alpha=0.25)


@pytest.fixture
def silent_server():
    """Address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_network_is_given_up(silent_server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras").mkdir()  # else Keras would take a folder that all processes share
    for proxy in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(proxy)
    file = RemoteFile(f"{silent_server}/somewhere/some_notop.h5")
    start = time.monotonic()
    with pytest.raises(RequestError) as error:
        fetch(file, timeout=0.3)
    assert time.monotonic() - start < 5
    assert socket.getdefaulttimeout() is None
    for part in ("--weights=imagenet", file.url, "--weights=/path/to/some_notop.h5"):
        assert part in str(error.value)


def test_without_a_network_the_file_to_bring_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    # Keras' own words, and its bare Exception.
    def get_file(name, url, **_):
        raise Exception(f"URL fetch failure on {url}: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(tf.keras.utils, "get_file", get_file)
    network = build_backbone("mobilenet", image_size=32, alpha=0.25)
    with pytest.raises(
        RequestError,
        match=r"https://storage\.googleapis\.com/.*/mobilenet_2_5_224_tf_no_top\.h5 failed"
        r".*Name or service not known.*--weights=/path/to/mobilenet_2_5_224_tf_no_top\.h5",
    ):
        load_weights(network, "imagenet", backbone="mobilenet", image_size=32, alpha=0.25)
