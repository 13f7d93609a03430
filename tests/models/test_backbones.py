import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.models.backbones import BACKBONES, build_backbone, check_backbone, preprocess
from flowers_tpu.models.cloning import clone_with_rules
from flowers_tpu.system.errors import RequestError

# What the pixel (red 10, green 128, blue 255) becomes, by pocket calculator.
CAFFE = [255 - 103.939, 128 - 116.779, 10 - 123.68]  # blue, green, red
TORCH = [-1.946656, 0.205182, 2.64]  # (10/255 - 0.485) / 0.229, ...
SYMMETRIC = [-0.9215686, 0.00392157, 1.0]  # 10/127.5 - 1, ...
BY_128 = [-0.921875, 0.0, 0.9921875]  # 10/128 - 1, ...

EXPECTED = {
    "tiny": [10, 128, 255],  # as they are
    "small_cnn": SYMMETRIC,
    "vgg16": CAFFE,
    "vgg19": CAFFE,
    "resnet50": CAFFE,
    "resnet101": CAFFE,
    "densenet121": TORCH,
    "densenet201": TORCH,
    "xception": SYMMETRIC,
    "inception_v3": SYMMETRIC,
    "mobilenet": SYMMETRIC,
    "mobilenet_v2": SYMMETRIC,
    "mobilenet_v3_small": SYMMETRIC,
    "mobilenet_v3_large": SYMMETRIC,
    "resnet50_v2": SYMMETRIC,
    "resnet101_v2": SYMMETRIC,
    "resnet152_v2": SYMMETRIC,
    "inception_resnet_v2": SYMMETRIC,
    "efficientnet_v2_b0": TORCH,
    "efficientnet_v2_b1": TORCH,
    "efficientnet_v2_b2": TORCH,
    "efficientnet_v2_b3": TORCH,
    "efficientnet_v2_s": BY_128,
    "efficientnet_v2_m": BY_128,
    "efficientnet_v2_l": BY_128,
    # Of the first EfficientNet, normalization is a weight: test_weights.py. Unset, it is x / 255.
    **{f"efficientnet_b{size}": [10 / 255, 128 / 255, 1.0] for size in range(8)},
    **{name: [10 / 255, 128 / 255, 1.0] for name in BACKBONES if name.startswith("regnet_")},
}
QUICK_TO_BUILD = {"tiny", "efficientnet_v2_b0", "mobilenet_v3_small", "regnet_x_002"}


def slow_unless(quick, names):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def pixel_before_first_convolution(name):
    """What reaches the first convolution where all pixels are (10, 128, 255)."""
    entry = BACKBONES[name]
    images = np.full((1, 32, 32, 3), [10, 128, 255], np.uint8)
    pixels = preprocess(tf.constant(images), entry.preprocessing)
    if entry.preprocessing == "inside":
        network = build_backbone(name, image_size=32)
        first = next(x for x in network.layers if isinstance(x, tf.keras.layers.Conv2D))
        pixels = tf.keras.Model(network.input, first.input)(pixels)
    return pixels[0, 16, 16]


def test_every_backbone_has_its_pixels_checked():
    assert EXPECTED.keys() == BACKBONES.keys()


@pytest.mark.parametrize(
    "name",
    slow_unless(
        QUICK_TO_BUILD | {n for n, b in BACKBONES.items() if b.preprocessing != "inside"}, EXPECTED
    ),
)
def test_pixels_become_what_the_backbone_was_trained_on(name):
    np.testing.assert_allclose(
        pixel_before_first_convolution(name), EXPECTED[name], rtol=1e-5, atol=1e-6
    )


def test_preprocessing_is_float32_under_a_bfloat16_policy():
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        images = tf.keras.Input((32, 32, 3), dtype=tf.uint8)
        model = tf.keras.Model(images, preprocess(images, "torch"))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    output = model(tf.fill([1, 32, 32, 3], tf.constant(124, tf.uint8)))
    assert output.dtype == tf.float32
    # (124 / 255 - 0.485) / 0.229 and so on; bfloat16 would be off by half.
    np.testing.assert_allclose(output[0, 0, 0], [0.0055655, 0.1351541, 0.3567756], rtol=1e-3)


@pytest.mark.parametrize("name", slow_unless({"small_cnn", "mobilenet", "regnet_y_002"}, BACKBONES))
def test_backbones_build_at_their_smallest_size(name):
    size = BACKBONES[name].minimum_size
    network = build_backbone(name, image_size=size)
    assert network.input_shape == (None, size, size, 3)
    assert len(network.output_shape) == 4
    assert None not in network.output_shape[1:]
    # Weights may be loaded by order, into a clone.
    clone = clone_with_rules(network)
    assert [layer.name for layer in clone.layers] == [layer.name for layer in network.layers]


def test_alpha_scales_the_width():
    # MobileNet's last layer has 1024 channels.
    assert build_backbone("mobilenet", image_size=32, alpha=0.25).output_shape[-1] == 256


def test_an_unknown_name_lists_the_known():
    with pytest.raises(
        RequestError, match=r"--backbone=vgg17 .*vgg16.*efficientnet_v2_l.*or give the path"
    ):
        check_backbone("vgg17", image_size=64)


def test_the_flag_of_the_size_that_is_too_small_is_named():
    with pytest.raises(RequestError, match=r"--image_size=16 is too small .* at least 32"):
        check_backbone("vgg16", image_size=16, evaluation_size=64)
    with pytest.raises(RequestError, match=r"--eval_image_size=16 is too small .* at least 32"):
        check_backbone("vgg16", image_size=64, evaluation_size=16)


def test_alpha_is_refused_where_there_is_none():
    with pytest.raises(
        RequestError, match=r"--alpha=0\.5 .*vgg16.*mobilenet, mobilenet_v2, mobilenet_v3"
    ):
        check_backbone("vgg16", image_size=64, alpha=0.5)
    with pytest.raises(RequestError, match="--alpha=0 must be positive"):
        check_backbone("mobilenet", image_size=64, alpha=0)


@pytest.mark.parametrize(
    ("name", "smallest"), [("vgg16", 32), ("xception", 71), ("inception_v3", 75)]
)
def test_images_too_small_are_refused(name, smallest):
    check_backbone(name, image_size=smallest)
    with pytest.raises(RequestError, match=rf"--image_size={smallest - 1} .*at least {smallest}"):
        check_backbone(name, image_size=smallest - 1)
