"""Fills a backbone from `--weights`: ImageNet, a Keras HDF5 file, or nothing.

Keras itself loads by order, which needs a file of exactly the same layers, or by name, which
silently skips what it does not find. Here a file may have classification layers or not, and every
weight of the backbone is filled, or the file is refused.
"""

import re
from typing import Any

import numpy as np
import tensorflow as tf

from flowers_tpu.models.hdf5 import opened
from flowers_tpu.models.imagenet import read_imagenet
from flowers_tpu.models.own_backbone import is_file
from flowers_tpu.system.errors import RequestError

# A file's weights: layer name -> values, in the order of the layers in the network.
Layers = dict[str, list[np.ndarray]]

# Of RGB values in [0, 1]; as in `tf.keras.applications.imagenet_utils`.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STANDARD_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def read_weights(
    weights: str, *, backbone: str, image_size: int, alpha: float = 1.0
) -> Layers | None:
    """Reads the weights of a backbone that `--weights` names; None: it has random ones.

    Args:
        weights: `imagenet` (of a backbone of one's own: what its file has), `none`, or the path of
            a Keras HDF5 file (`model.save_weights("x.h5")` or `model.save("x.h5")`), with or
            without classification layers, local or `gs://`.
        backbone: name in the registry, or the path of a file.
        image_size: side of the square images, pixels.
        alpha: width factor.

    Raises:
        RequestError: the download failed; or the file is missing, or is no Keras HDF5 file.
    """
    if weights == "none":
        return None
    if weights == "imagenet" and not is_file(backbone):
        return read_imagenet(backbone, image_size=image_size, alpha=alpha)
    return read_layers(backbone if weights == "imagenet" else weights)  # which brings its own


def set_weights(
    model: tf.keras.Model, stored: Layers | None, *, weights: str, backbone: str, alpha: float = 1.0
) -> None:
    """Sets the weights of a backbone.

    Args:
        model: what `build_backbone` gave, or a clone of it.
        stored: what `read_weights` gave; changed.
        weights: where they come from, for messages.
        backbone: for messages.
        alpha: for messages.

    Raises:
        RequestError: they are not exactly the weights of this backbone.
    """
    normalization = _input_normalization(model)
    if normalization is not None:
        set_input_normalization(normalization, _pop_normalization(stored or {}))
    if stored is None:
        return
    layers = [layer for layer in model.layers if layer.weights and layer is not normalization]
    expected = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in layers}
    try:
        found = match_layers(expected, stored)
    except ValueError as error:
        width = "" if alpha == 1 else f" with --alpha={alpha:g}"
        raise RequestError(
            f"--weights={weights} does not hold the weights of --backbone={backbone}{width}: "
            f"{error}. Give the file of this backbone, or --weights=imagenet or none."
        ) from error
    for layer in layers:
        layer.set_weights(found[layer.name])


def match_layers(expected: dict[str, list[tuple[int, ...]]], stored: Layers) -> Layers:
    """Finds for each layer of a backbone its values in a file.

    By name, where the file has all names; else by order: the names that Keras numbers itself
    (`conv2d_17`) depend on what was built before, and on the version of Keras. Layers that the
    backbone does not have are passed over only after all of its own (a classification head): VGG19
    holds every layer of VGG16, ResNet101 every one of ResNet50, and would otherwise pass for them.

    Args:
        expected: layer name -> shapes of its weights, in the order of the network.
        stored: what `read_layers` gave.

    Returns:
        The values for each name in `expected`.

    Raises:
        ValueError: not all could be found; the message names the first differences.
    """
    by_name = {name: stored[name] for name in expected if name in stored}
    differences = _differences(expected, stored)
    if not differences:
        return by_name
    by_order = dict(zip(expected, stored.values(), strict=False))
    if len(by_name) < len(expected) and _shapes(by_order) == expected:
        return by_order
    raise ValueError("; ".join(differences))


def _differences(expected: dict[str, list[tuple[int, ...]]], stored: Layers) -> list[str]:
    """What hinders loading by name, in words; empty if nothing does."""
    shapes = _shapes(stored)
    missing = [name for name in expected if name not in stored]
    reshaped = [
        f"{name} {_shape_text(shapes[name])} instead of {_shape_text(expected[name])}"
        for name in expected
        if name in stored and shapes[name] != expected[name]
    ]
    backbone_ends = max((i for i, name in enumerate(stored) if name in expected), default=0)
    foreign = [name for name in list(stored)[:backbone_ends] if name not in expected]
    kinds = {"missing layers": missing, "other shapes": reshaped, "foreign layers": foreign}
    return [f"{kind}: {_first(names)}" for kind, names in kinds.items() if names]


def _first(texts: list[str], count: int = 3) -> str:
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return ", ".join(texts[:count]) + more


def _shapes(layers: Layers) -> dict[str, list[tuple[int, ...]]]:
    return {name: [value.shape for value in values] for name, values in layers.items()}


def _shape_text(shapes: list[tuple[int, ...]]) -> str:
    return " + ".join("×".join(map(str, shape)) or "scalar" for shape in shapes)


def read_layers(path: str) -> Layers:
    """Reads the layers that have weights from a Keras HDF5 file.

    Args:
        path: a local path, or one of a file system that TensorFlow knows, as `gs://…`.

    Raises:
        RequestError: there is no such file, or it is not of this format.
    """
    with opened(path, "weights") as file:
        return _read_group(file.get("model_weights", file))


def _read_group(group: Any) -> Layers:
    # An `h5py.Group`, of whose items h5py does not say what they are.
    layers = {}
    for name in _read_names(group, "layer_names"):
        if weight_names := _read_names(group[name], "weight_names"):
            layers[name] = [np.asarray(group[name][weight]) for weight in weight_names]
    return layers


def _read_names(group: Any, attribute: str) -> list[str]:
    """A list of names that Keras splits into numbered parts where it exceeds HDF5's 64 KiB."""
    if attribute in group.attrs:
        names = group.attrs[attribute]
    elif f"{attribute}0" in group.attrs:
        parts = sum(re.fullmatch(rf"{attribute}\d+", key) is not None for key in group.attrs)
        names = [name for part in range(parts) for name in group.attrs[f"{attribute}{part}"]]
    else:
        raise KeyError(f"attribute {attribute} is absent")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _input_normalization(model: tf.keras.Model) -> tf.keras.layers.Normalization | None:
    """The layer of EfficientNet (the first version) whose mean and variance are weights."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Normalization) and layer.weights:
            return layer
    return None


def _pop_normalization(stored: Layers) -> list[np.ndarray] | None:
    for name in stored:
        if re.fullmatch(r"normalization(_\d+)?", name):
            return stored.pop(name)
    return None


def set_input_normalization(
    layer: tf.keras.layers.Normalization, stored: list[np.ndarray] | None
) -> None:
    """Makes EfficientNet's input layer do what the weights of the other layers were trained with.

    Three kinds of files are about. Those of the package `efficientnet` (Noisy Student among them)
    have no such layer; it preprocesses by (x / 255 - mean) / deviation with ImageNet's values.
    Those of Keras hold ImageNet's mean, but its *deviation* where the layer takes a variance; Keras
    makes up for that by a division it adds for `weights="imagenet"` alone
    (https://github.com/tensorflow/tensorflow/issues/49930). Here both get the square of the
    deviation, which comes to the same. Any other values are a choice of who trained the file.

    Args:
        layer: the layer, with float32 weights mean `[3]` and variance `[3]`, and int64 count `[]`.
        stored: these three as the file has them, or None.
    """
    mean, variance, count = layer.get_weights()
    if stored is None:
        mean, variance = IMAGENET_MEAN, IMAGENET_STANDARD_DEVIATION**2
    else:
        mean, variance, count = stored
        if np.allclose(mean, IMAGENET_MEAN, atol=1e-4) and np.allclose(
            variance, IMAGENET_STANDARD_DEVIATION, atol=1e-4
        ):
            variance = IMAGENET_STANDARD_DEVIATION**2
    layer.set_weights([mean, variance, count])
