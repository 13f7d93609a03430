import os
import socket
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.models import imagenet
from flowers_tpu.models.backbones import build_backbone
from flowers_tpu.models.imagenet import read_imagenet
from flowers_tpu.system.errors import RequestError
from tests.photos import small_classifier


@pytest.fixture
def downloads(monkeypatch):
    """Sets what Keras' `get_file` does: a function of a file's name and address."""
    module = sys.modules[tf.keras.utils.get_file.__module__]

    def becomes(work):
        monkeypatch.setattr(module, "get_file", lambda name, url, **_: work(name, url))

    return becomes


def of_keras(name, **options):
    """A network as Keras builds it with ImageNet's weights."""
    return getattr(tf.keras.applications, name)(
        include_top=False, weights="imagenet", input_shape=(32, 32, 3), **options
    )


@pytest.mark.parametrize(
    ("backbone", "name", "alpha"),
    [("mobilenet", "MobileNet", 0.25), ("efficientnet_b0", "EfficientNetB0", 1.0)],
)
def test_features_are_those_of_plain_keras(backbone, name, alpha, downloads, tmp_path, pixels):
    """With layers of EfficientNet's own that only its ImageNet weights bring."""
    options = {"alpha": alpha} if alpha != 1 else {}
    written = build_backbone(backbone, image_size=32, alpha=alpha)
    for layer in written.layers:
        if isinstance(layer, tf.keras.layers.Normalization):
            mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
            layer.set_weights([mean, deviation, np.int64(0)])
    written.save_weights(tmp_path / "notop.h5")
    downloads(lambda name, url: str(tmp_path / "notop.h5"))
    inputs = np.float32(pixels) if backbone != "mobilenet" else pixels / np.float32(127.5) - 1
    expected = of_keras(name, **options)(inputs).numpy().mean(axis=(1, 2))
    classifier = small_classifier(2, backbone=backbone, weights="imagenet", alpha=alpha)
    found = classifier.features(pixels).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_what_keras_builds_for_it_changes_no_random_number(downloads, tmp_path):
    """The head is that of the same weights from a file."""
    path = tmp_path / "notop.h5"
    build_backbone("mobilenet", image_size=32, alpha=0.25).save_weights(path)
    downloads(lambda name, url: str(path))
    heads = [
        small_classifier(3, backbone="mobilenet", alpha=0.25, weights=weights, seed=7).head
        for weights in ("imagenet", str(path))
    ]
    for ours, theirs in zip(*(head.get_weights() for head in heads), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_imagenet_weights_that_do_not_exist_are_refused():
    with pytest.raises(RequestError, match="none for --backbone=small_cnn"):
        read_imagenet("small_cnn", image_size=64)
    for backbone in ("mobilenet", "mobilenet_v2"):
        with pytest.raises(RequestError, match=rf"--backbone={backbone} \(.*alpha.*1\.0"):
            read_imagenet(backbone, image_size=64, alpha=0.3)


@pytest.fixture
def silent_server():
    """Address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_network_is_given_up(silent_server, tmp_path, monkeypatch, downloads, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras").mkdir()  # else Keras would take a folder that all processes share
    for proxy in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(proxy)
    monkeypatch.setattr(imagenet, "_SECONDS_OF_SILENCE", 0.3)
    get_file, url = tf.keras.utils.get_file, f"{silent_server}/somewhere/some_notop.h5"
    downloads(lambda name, _: get_file("some_notop.h5", url))
    start = time.monotonic()
    with pytest.raises(RequestError) as error:
        read_imagenet("mobilenet", image_size=32, alpha=0.25)
    assert time.monotonic() - start < 10
    assert socket.getdefaulttimeout() is None
    for part in ("--weights=imagenet: the download of what is named above", "--weights=/path/to/"):
        assert part in str(error.value)
    assert url in capsys.readouterr().out


def test_without_a_network_the_file_to_bring_is_named(downloads):
    def nothing(name, url):  # Keras' own words, and its bare Exception
        raise Exception(f"URL fetch failure on {url}: None -- [Errno -2] Name or service not known")

    downloads(nothing)
    with pytest.raises(
        RequestError,
        match=r"https://storage\.googleapis\.com/.*/mobilenet_2_5_224_tf_no_top\.h5 failed"
        r".*Name or service not known.*--weights=/path/to/mobilenet_2_5_224_tf_no_top\.h5",
    ):
        small_classifier(3, backbone="mobilenet", weights="imagenet", alpha=0.25)
