"""The registry of backbones: how each is built, and what it wants its pixels to be.

A backbone is a convolutional network without its classification layers. Each was trained on pixels
preprocessed in its own way; a fine-tuned one only keeps its worth if it gets them so again.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

from flowers_tpu.models import own_backbone
from flowers_tpu.models.options import ModelOptions
from flowers_tpu.models.small_cnn import SmallCNN
from flowers_tpu.models.tiny import Tiny
from flowers_tpu.system.errors import RequestError

# The modes of `tf.keras.applications.imagenet_utils.preprocess_input`; "inside" are networks whose
# first layers rescale and normalize the pixels 0 to 255 themselves.
Preprocessing = Literal["caffe", "torch", "tf", "inside"]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """How a backbone is built.

    Attributes:
        application: builder with the signature of `tf.keras.applications`, or `SmallCNN`, `Tiny`.
        preprocessing: what is done to the pixels before the network, see `preprocess`.
        minimum_size: the smallest image side the network works on, pixels.
        takes_alpha: whether the width of the network can be scaled by a factor `alpha`.
        from_keras: whether the builder takes the arguments that all Keras applications share.
    """

    application: Callable[..., tf.keras.Model]
    preprocessing: Preprocessing
    minimum_size: int = 32
    takes_alpha: bool = False
    from_keras: bool = True


_keras = tf.keras.applications

# GFLOP at 224 px, times ten.
_REGNET_SIZES = (2, 4, 6, 8, 16, 32, 40, 64, 80, 120, 160, 320)

# Not ConvNeXt: its blocks are models within the model, and its stochastic depth draws from a
# generator that no checkpoint holds.
BACKBONES: dict[str, Backbone] = {
    "tiny": Backbone(Tiny, "inside", from_keras=False),
    "small_cnn": Backbone(SmallCNN, "tf", from_keras=False),
    "vgg16": Backbone(_keras.VGG16, "caffe"),
    "vgg19": Backbone(_keras.VGG19, "caffe"),
    "resnet50": Backbone(_keras.ResNet50, "caffe"),
    "resnet101": Backbone(_keras.ResNet101, "caffe"),
    "resnet50_v2": Backbone(_keras.ResNet50V2, "tf"),
    "resnet101_v2": Backbone(_keras.ResNet101V2, "tf"),
    "resnet152_v2": Backbone(_keras.ResNet152V2, "tf"),
    "densenet121": Backbone(_keras.DenseNet121, "torch"),
    "densenet201": Backbone(_keras.DenseNet201, "torch"),
    "xception": Backbone(_keras.Xception, "tf", minimum_size=71),
    "inception_v3": Backbone(_keras.InceptionV3, "tf", minimum_size=75),
    "inception_resnet_v2": Backbone(_keras.InceptionResNetV2, "tf", minimum_size=75),
    "mobilenet": Backbone(_keras.MobileNet, "tf", takes_alpha=True),
    "mobilenet_v2": Backbone(_keras.MobileNetV2, "tf", takes_alpha=True),
    # These, and RegNet, have `include_preprocessing=True` as their default, or rescale in any case.
    "mobilenet_v3_small": Backbone(_keras.MobileNetV3Small, "inside", takes_alpha=True),
    "mobilenet_v3_large": Backbone(_keras.MobileNetV3Large, "inside", takes_alpha=True),
    "efficientnet_b0": Backbone(_keras.EfficientNetB0, "inside"),
    "efficientnet_b1": Backbone(_keras.EfficientNetB1, "inside"),
    "efficientnet_b2": Backbone(_keras.EfficientNetB2, "inside"),
    "efficientnet_b3": Backbone(_keras.EfficientNetB3, "inside"),
    "efficientnet_b4": Backbone(_keras.EfficientNetB4, "inside"),
    "efficientnet_b5": Backbone(_keras.EfficientNetB5, "inside"),
    "efficientnet_b6": Backbone(_keras.EfficientNetB6, "inside"),
    "efficientnet_b7": Backbone(_keras.EfficientNetB7, "inside"),
    "efficientnet_v2_b0": Backbone(_keras.EfficientNetV2B0, "inside"),
    "efficientnet_v2_b1": Backbone(_keras.EfficientNetV2B1, "inside"),
    "efficientnet_v2_b2": Backbone(_keras.EfficientNetV2B2, "inside"),
    "efficientnet_v2_b3": Backbone(_keras.EfficientNetV2B3, "inside"),
    "efficientnet_v2_s": Backbone(_keras.EfficientNetV2S, "inside"),
    "efficientnet_v2_m": Backbone(_keras.EfficientNetV2M, "inside"),
    "efficientnet_v2_l": Backbone(_keras.EfficientNetV2L, "inside"),
    **{
        f"regnet_{kind}_{size:03}": Backbone(
            getattr(_keras, f"RegNet{kind.upper()}{size:03}"), "inside"
        )
        for kind in "xy"
        for size in _REGNET_SIZES
    },
}


def lookup(name: str) -> Backbone:
    """Returns the entry of a backbone: of the registry, or made of a file.

    Raises:
        RequestError: the name is unknown, or the file cannot be taken (`own_backbone`).
    """
    if own_backbone.is_file(name):
        own_backbone.read_config(name)
        build = functools.partial(own_backbone.build, name)
        return Backbone(build, "inside", minimum_size=1, from_keras=False)
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise RequestError(
            f"--backbone={name} is unknown; there are: {known}; or give the path of a file."
        )
    return BACKBONES[name]


def preprocessing_of(options: ModelOptions) -> Preprocessing:
    """Returns what is done to the pixels before a backbone."""
    if options.preprocessing == "auto":
        return lookup(options.backbone).preprocessing
    chosen: Any = options.preprocessing  # one of the flag's choices
    return "inside" if chosen == "none" else chosen


def check_backbone(
    name: str, *, image_size: int, evaluation_size: int = 0, alpha: float = 1.0
) -> Backbone:
    """Looks a backbone up and checks that it can be built so; cheap, builds nothing.

    Args:
        name: a key of `BACKBONES`, or the path of a file.
        image_size: side of the square images, pixels.
        evaluation_size: of those of evaluation and prediction; 0: the same.
        alpha: width factor.

    Returns:
        The entry of the registry.

    Raises:
        RequestError: the name is unknown, the images are too small, or the backbone has no alpha.
    """
    backbone = lookup(name)
    sizes = {"image_size": image_size, "eval_image_size": evaluation_size or image_size}
    for flag, size in sizes.items():
        if size < backbone.minimum_size:
            raise RequestError(
                f"--{flag}={size} is too small for --backbone={name}, "
                f"which needs at least {backbone.minimum_size}."
            )
    if not backbone.takes_alpha and alpha != 1.0:
        with_alpha = ", ".join(key for key, value in BACKBONES.items() if value.takes_alpha)
        raise RequestError(
            f"--alpha={alpha:g} is given, but --backbone={name} has no width factor; "
            f"leave it at 1, or take one of: {with_alpha}."
        )
    if alpha <= 0:
        raise RequestError(f"--alpha={alpha:g} must be positive.")
    return backbone


def build_backbone(name: str, *, image_size: int, alpha: float = 1.0) -> tf.keras.Model:
    """Builds a backbone with random weights, as Keras has it.

    Args:
        name: a key of `BACKBONES`, or the path of a file.
        image_size: side of the square images, pixels.
        alpha: width factor; 1 for backbones without one.

    Returns:
        A model from preprocessed pixels, float32 `[batch, image_size, image_size, 3]` (see
        `preprocess`), to feature maps `[batch, height, width, channels]` in the compute dtype of
        the global mixed-precision policy.

    Raises:
        RequestError: see `check_backbone`.
    """
    backbone = check_backbone(name, image_size=image_size, alpha=alpha)
    input_shape = (image_size, image_size, 3)
    if not backbone.from_keras:
        return backbone.application(input_shape=input_shape)
    options = {"alpha": alpha} if backbone.takes_alpha else {}
    return backbone.application(include_top=False, weights=None, input_shape=input_shape, **options)


def preprocess(images: tf.Tensor, mode: Preprocessing) -> tf.Tensor:
    """Turns pixels into what a backbone was trained on, in float32 whatever the precision policy.

    Args:
        images: uint8 `[batch, height, width, 3]`, RGB; a tensor or a Keras input.
        mode: `caffe`: BGR minus the mean of ImageNet (VGG, ResNet); `torch`: to [0, 1], minus mean,
            divided by the standard deviation (DenseNet); `tf`: to [-1, 1] (Xception, Inception,
            MobileNet); `inside`: 0 to 255 as they are, the network has layers for it.

    Returns:
        float32, of the shape of `images`.
    """
    images = tf.cast(images, tf.float32)
    if mode == "inside":
        return images
    return tf.keras.applications.imagenet_utils.preprocess_input(images, mode=mode)
