import shutil

import h5py
import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.models.backbones import build_backbone
from flowers_tpu.models.weights import match_layers, read_layers, read_weights, set_weights
from flowers_tpu.system.errors import RequestError
from tests.photos import small_classifier

SIZE = 32
MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])


def load_weights(network, weights, *, backbone, image_size, alpha=1.0):
    """As `build_classifier` does."""
    stored = read_weights(weights, backbone=backbone, image_size=image_size, alpha=alpha)
    set_weights(network, stored, weights=weights, backbone=backbone, alpha=alpha)


def features_of(backbone, weights, images, **options):
    """Pooled features of our model."""
    classifier = small_classifier(2, backbone=backbone, weights=str(weights), **options)
    return classifier.features(images).numpy()


def pooled(network, inputs):
    """Pooled features of a plain Keras network."""
    return network(np.asarray(inputs, np.float32)).numpy().mean(axis=(1, 2))


def assert_same_features(actual, expected):
    # Features that do not depend on the pixels would prove nothing of the preprocessing.
    assert np.std(expected, axis=0).max() > 0.003 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def mobilenet_file(tmp_path):
    """A file of MobileNet, narrow to be small: its path."""
    path = tmp_path / "mobilenet.h5"
    build_backbone("mobilenet", image_size=SIZE, alpha=0.25).save_weights(path)
    return path


def keras_efficientnet(**options):
    return tf.keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), **options
    )


# --- files of the real world ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "alpha", "file"),
    [
        ("mobilenet", 0.75, "mobilenet_v1_0.75_224_no_top.h5"),
        ("mobilenet_v2", 0.35, "mobilenet_v2_0.35_224_no_top.h5"),
        pytest.param("mobilenet_v2", 1.0, "mobilenet_v2_1.0_224_no_top.h5", marks=pytest.mark.slow),
    ],
)
def test_real_files_give_the_features_of_plain_keras(backbone, alpha, file, real_weights, pixels):
    path = real_weights(file)
    application = {
        "mobilenet": tf.keras.applications.MobileNet,
        "mobilenet_v2": tf.keras.applications.MobileNetV2,
    }[backbone]
    network = application(include_top=False, weights=path, alpha=alpha, input_shape=(SIZE, SIZE, 3))
    expected = pooled(network, pixels / 127.5 - 1)
    assert_same_features(features_of(backbone, path, pixels, alpha=alpha), expected)


def test_imagenet_takes_the_file_from_the_cache(real_weights, tmp_path, monkeypatch):
    path = real_weights("mobilenet_v2_0.35_224_no_top.h5")
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = tmp_path / ".keras" / "models"
    cache.mkdir(parents=True)
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    shutil.copyfile(path, cache / name)
    options = {"backbone": "mobilenet_v2", "image_size": SIZE, "alpha": 0.35}
    network = build_backbone("mobilenet_v2", image_size=SIZE, alpha=0.35)
    load_weights(network, "imagenet", **options)
    found = [weight.copy() for weight in network.get_weights()]
    load_weights(network, path, **options)
    for ours, theirs in zip(found, network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_remote_files_are_read_whole(mobilenet_file):
    remote = "ram://weights/mobilenet.h5"
    with tf.io.gfile.GFile(remote, "wb") as file:
        file.write(mobilenet_file.read_bytes())
    local = read_layers(str(mobilenet_file))
    for name, values in read_layers(remote).items():
        for ours, theirs in zip(values, local.pop(name), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not local
    with pytest.raises(RequestError, match=r"ram://weights/absent\.h5: there is no such file"):
        read_layers("ram://weights/absent.h5")


@pytest.mark.parametrize("save", [tf.keras.Model.save_weights, tf.keras.Model.save])
def test_classification_layers_are_passed_over(save, tiny, tmp_path, pixels):
    network = build_backbone(tiny, image_size=SIZE)
    x = tf.keras.layers.GlobalAveragePooling2D()(network.output)
    whole = tf.keras.Model(network.input, tf.keras.layers.Dense(7)(x))
    save(whole, tmp_path / "whole.h5")
    actual = features_of(tiny, tmp_path / "whole.h5", pixels)
    assert_same_features(actual, pooled(network, pixels / 127.5 - 1))


@pytest.mark.slow
def test_automatic_names_of_another_process_do_not_matter(tmp_path):
    # The four unnamed convolutions of Xception are numbered on from what was built before.
    tf.keras.backend.reset_uids()
    tf.keras.layers.Conv2D(1, 1)
    images = np.random.default_rng(0).integers(0, 256, (2, 71, 71, 3), dtype=np.uint8)
    network = build_backbone("xception", image_size=71)
    assert "conv2d" not in [layer.name for layer in network.layers]
    network.save_weights(tmp_path / "xception.h5")
    classifier = small_classifier(
        2, backbone="xception", image_size=71, weights=str(tmp_path / "xception.h5")
    )
    assert_same_features(classifier.features(images), pooled(network, images / 127.5 - 1))


# --- EfficientNet's input normalization ----------------------------------------------------------


def test_efficientnet_package_files_give_the_features_of_the_package(tmp_path, pixels, randomize):
    package = pytest.importorskip("efficientnet.tfkeras")
    network = package.EfficientNetB0(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    # What `efficientnet.preprocess_input` does.
    inputs = (pixels / 255 - MEAN) / DEVIATION
    randomize(network)
    network.save_weights(tmp_path / "efficientnet-b0_noisy-student_notop.h5")
    expected = pooled(network, inputs)
    actual = features_of(
        "efficientnet_b0", tmp_path / "efficientnet-b0_noisy-student_notop.h5", pixels
    )
    assert_same_features(actual, expected)


def test_keras_efficientnet_files_get_the_division_keras_adds(tmp_path, pixels, randomize):
    network = keras_efficientnet()
    randomize(network)
    normalization = network.get_layer(index=2)
    # As in the file on Keras' server: where a variance belongs stands the deviation.
    normalization.set_weights([MEAN, DEVIATION, np.int64(0)])
    normalization.finalize_state()
    network.save_weights(tmp_path / "efficientnetb0_notop.h5")
    # `EfficientNetB0(weights="imagenet")` puts a division by sqrt(deviation) after that layer.
    divided = normalization(pixels / 255) / np.sqrt(DEVIATION).astype(np.float32)
    np.testing.assert_allclose(divided, (pixels / 255 - MEAN) / DEVIATION, rtol=1e-4, atol=1e-5)
    rest = tf.keras.Model(network.get_layer(index=3).input, network.output)
    actual = features_of("efficientnet_b0", tmp_path / "efficientnetb0_notop.h5", pixels)
    assert_same_features(actual, pooled(rest, divided))


def test_other_input_normalizations_are_taken_as_they_are(tiny_normalizing, tmp_path, pixels):
    network = build_backbone(tiny_normalizing, image_size=SIZE)
    normalization = network.get_layer(index=2)
    normalization.set_weights(
        [np.array([0.5, 0.4, 0.3]), np.array([0.04, 0.05, 0.06]), np.int64(0)]
    )
    normalization.finalize_state()
    network.save_weights(tmp_path / "own.h5")
    actual = features_of(tiny_normalizing, tmp_path / "own.h5", pixels)
    assert_same_features(actual, pooled(network, pixels))


def test_without_weights_the_input_is_normalized_as_imagenet(tiny_normalizing):
    network = build_backbone(tiny_normalizing, image_size=SIZE)
    load_weights(network, "none", backbone=tiny_normalizing, image_size=SIZE)
    mean, variance, _ = network.get_layer(index=2).get_weights()
    np.testing.assert_allclose(mean, MEAN, rtol=1e-6)
    np.testing.assert_allclose(variance, [0.052441, 0.050176, 0.050625], rtol=1e-6)


# --- files that do not fit -----------------------------------------------------------------------


def test_another_width_is_refused_by_name(mobilenet_file):
    network = build_backbone("mobilenet", image_size=SIZE, alpha=0.5)
    before = network.get_weights()
    with pytest.raises(RequestError) as error:
        load_weights(network, str(mobilenet_file), backbone="mobilenet", image_size=SIZE, alpha=0.5)
    for part in (
        f"--weights={mobilenet_file}",
        "--backbone=mobilenet with --alpha=0.5",
        "other shapes: conv1 3×3×3×8 instead of 3×3×3×16",
        "more",
    ):
        assert part in str(error.value)
    for was, is_now in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(was, is_now)


def test_another_backbone_is_refused(mobilenet_file):
    network = build_backbone("mobilenet_v2", image_size=SIZE, alpha=0.35)
    with pytest.raises(RequestError, match=r"--backbone=mobilenet_v2 .*missing layers: Conv1, bn_"):
        load_weights(
            network, str(mobilenet_file), backbone="mobilenet_v2", image_size=SIZE, alpha=0.35
        )


def layers(**shapes):
    return {name: [np.full(shape, index)] for index, (name, shape) in enumerate(shapes.items())}


def test_layers_are_matched_by_name_in_any_order():
    stored = layers(second=(2, 3), first=(1, 2), head=(3, 9))
    found = match_layers({"first": [(1, 2)], "second": [(2, 3)]}, stored)
    assert {name: int(values[0].flat[0]) for name, values in found.items()} == {
        "first": 1,
        "second": 0,
    }


def test_numbered_layers_are_matched_by_order():
    # The file counts from 1, as Keras did once; by name, conv2d_1 would get the wrong values.
    stored = layers(conv2d_1=(2, 2), conv2d_2=(2, 2), conv2d_3=(2, 2), head=(2, 9))
    expected = {name: [(2, 2)] for name in ("conv2d", "conv2d_1", "conv2d_2")}
    found = match_layers(expected, stored)
    assert [int(values[0].flat[0]) for values in found.values()] == [0, 1, 2]


def test_a_deeper_network_of_the_same_family_is_refused():
    # All layers of the shallow network are there by name and shape.
    stored = layers(block1=(2, 2), block2=(2, 2), block3=(2, 2), end=(2, 4), head=(4, 9))
    with pytest.raises(ValueError, match="foreign layers: block3"):
        match_layers({"block1": [(2, 2)], "block2": [(2, 2)], "end": [(2, 4)]}, stored)


@pytest.mark.parametrize(
    "stored",
    [
        layers(conv2d_1=(2, 2)),
        layers(conv2d_1=(2, 2), conv2d_2=(2, 3)),
        layers(conv2d=(2, 2), conv2d_1=(2, 3)),
    ],
)
def test_neither_names_nor_order_fit(stored):
    with pytest.raises(ValueError, match="conv2d"):
        match_layers({"conv2d": [(2, 2)], "conv2d_1": [(2, 2)]}, stored)


def test_long_lists_of_names_are_read_in_parts(tmp_path):
    names = [f"layer_{number:04d}".encode() for number in range(12)]
    with h5py.File(tmp_path / "long.h5", "w") as file:
        for part in range(4):
            file.attrs[f"layer_names{part}"] = names[3 * part : 3 * part + 3]
        for name in names:
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"kernel:0"]
            group["kernel:0"] = np.zeros((2, 3))
    assert list(read_layers(str(tmp_path / "long.h5"))) == [name.decode() for name in names]


def test_unreadable_files_are_refused(tmp_path, mobilenet_file):
    with pytest.raises(RequestError, match=r"--weights=.*absent\.h5: there is no such file"):
        read_layers(str(tmp_path / "absent.h5"))
    (tmp_path / "text.h5").write_text("no weights")
    (tmp_path / "half.h5").write_bytes(mobilenet_file.read_bytes()[:100_000])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.zeros(3)
    for name in ("text.h5", "half.h5", "other.h5", "."):
        with pytest.raises(RequestError, match=r"cannot be read as a Keras HDF5 file"):
            read_layers(str(tmp_path / name))


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(RequestError, match=r"is a folder.*--from_run=RUN"):
        read_layers(str(tmp_path))


@pytest.mark.parametrize("names", [3, [b"a", b"b"]])
def test_a_file_whose_lists_are_odd_is_refused(tmp_path, names):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = names
    with pytest.raises(RequestError, match="cannot be read as a Keras HDF5 file") as caught:
        read_layers(str(tmp_path / "w.h5"))
    assert "\n" not in str(caught.value)
