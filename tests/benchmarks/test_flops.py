import pytest
import tensorflow as tf

from flowers_tpu.benchmarks import flops
from flowers_tpu.models.backbones import build_backbone


def gradients_of(function, *variables):
    def step(x):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(function(x) ** 2)
        return tape.gradient(y, variables)

    return step


def variable(*shape):
    return tf.Variable(tf.ones(shape))


def products(function, x):
    """FLOPs without those of what is done to each element."""
    return flops.of_step(function, x) - flops.of_step(lambda x: tf.reduce_sum(x), x)


def test_a_matrix_product():
    w = variable(5, 7)
    assert flops.of_step(lambda x: x @ w, tf.ones([3, 5])) == 2 * 3 * 5 * 7


def test_a_convolution_and_its_gradients():
    w, x = variable(3, 3, 4, 8), tf.ones([2, 10, 10, 4])
    forward = 2 * (3 * 3 * 4) * (2 * 5 * 5 * 8)

    def convolve(x):
        return tf.nn.conv2d(x, w, 2, "SAME")

    assert flops.of_step(convolve, x) == forward
    # The filter's gradient costs as much again; that of the photos is not wanted.
    both = flops.of_step(gradients_of(convolve, w), x)
    assert both == pytest.approx(2 * forward, rel=0.05)
    assert both >= 2 * forward


def test_depthwise_gradients_count_too():
    first, w, x = variable(1, 1, 3, 16), variable(3, 3, 16, 1), tf.ones([2, 8, 8, 3])
    pointwise, depthwise = 2 * 3 * (2 * 8 * 8 * 16), 2 * 9 * (2 * 8 * 8 * 16)

    def network(x):
        return tf.nn.depthwise_conv2d(tf.nn.conv2d(x, first, 1, "SAME"), w, [1, 1, 1, 1], "SAME")

    assert flops.of_step(network, x) == pointwise + depthwise
    # Forward, the filter's gradient, and for what is below also that of its input.
    found = flops.of_step(gradients_of(network, first, w), x)
    wanted = 2 * pointwise + 3 * depthwise
    assert wanted <= found <= 1.1 * wanted


def test_what_no_result_needs_is_left_out():
    w = variable(5, 7)

    def step(x):
        _ = x @ w @ tf.transpose(w)
        return x @ w

    assert flops.of_step(step, tf.ones([3, 5])) == 2 * 3 * 5 * 7


def test_vgg16_has_the_flops_of_its_paper():
    """The 13 convolutions at 32 px, by hand; at 224 px they are 30.7 GFLOP."""
    size, channels, by_hand = 32, 3, 0
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convolutions):
            by_hand += 2 * size**2 * width * 9 * channels
            channels = width
        size //= 2
    assert by_hand * 49 == pytest.approx(30.7e9, rel=1e-3)
    network = build_backbone("vgg16", image_size=32)
    assert flops.of_step(network, tf.ones([1, 32, 32, 3])) == pytest.approx(by_hand, rel=0.01)


def test_the_peak_of_a_device(monkeypatch):
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    assert flops.peak("TPU") == 197e12
    assert flops.peak("TPU", "v3") == 61.5e12  # what is asked for goes first
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v99-8")
    assert flops.peak("TPU") is None
    monkeypatch.delenv("TPU_ACCELERATOR_TYPE")
    assert flops.peak("TPU") is None
    assert flops.peak("CPU") is None
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "NVIDIA L4"}
    )
    assert flops.peak("GPU") == 121e12
