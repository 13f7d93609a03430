"""A small convolutional network, for training from scratch in minutes on a laptop's CPU."""

import tensorflow as tf

_WIDTHS = (32, 64, 128)  # channels of the stages, each at half the resolution of the one before
_BATCH_NORM_MOMENTUM = 0.9  # a run has only some thousand steps


def SmallCNN(  # noqa: N802 (named like the builders of tf.keras.applications)
    input_shape: tuple[int, int, int], name: str = "small_cnn"
) -> tf.keras.Model:
    """Builds the network, without top and pooling.

    A residual network (He et al., 2016, arXiv:1512.03385) of dense 3x3 convolutions: on a CPU,
    depthwise ones take longer for the same accuracy.

    Args:
        input_shape: (height, width, 3) of the photos.
        name: of the model.

    Returns:
        A functional model from `[b, height, width, 3]` float pixels in [-1, 1] to feature maps
        `[b, height / 16, width / 16, 128]`, rounded up.
    """
    inputs = tf.keras.Input(input_shape)
    x = _conv_bn(inputs, _WIDTHS[0], strides=2, name="stem")
    x = tf.keras.layers.ReLU(name="stem_relu")(x)
    for stage, width in enumerate(_WIDTHS, start=1):
        x = _residual_block(x, width, f"stage{stage}")
    return tf.keras.Model(inputs, x, name=name)


def _residual_block(x: tf.Tensor, width: int, name: str) -> tf.Tensor:
    """Halves the resolution with one convolution, then adds two more to what it gave."""
    x = _conv_bn(x, width, strides=2, name=f"{name}_down")
    shortcut = x = tf.keras.layers.ReLU(name=f"{name}_down_relu")(x)
    x = _conv_bn(x, width, strides=1, name=f"{name}_conv1")
    x = tf.keras.layers.ReLU(name=f"{name}_relu1")(x)
    x = _conv_bn(x, width, strides=1, name=f"{name}_conv2")
    x = tf.keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return tf.keras.layers.ReLU(name=f"{name}_relu2")(x)


def _conv_bn(x: tf.Tensor, width: int, strides: int, name: str) -> tf.Tensor:
    x = tf.keras.layers.Conv2D(
        width,
        3,
        strides=strides,
        padding="same",
        use_bias=False,  # batch normalization has its own
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return tf.keras.layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
