"""Backbones of one's own: functional Keras 2 models in HDF5 files.

A file is looked through before anything of it becomes a layer: one that would run foreign code, or
would lose something without a word when it is cloned, is refused by name.
"""

import copy
import json
import re
from typing import Any

import tensorflow as tf

from flowers_tpu.models.hdf5 import opened
from flowers_tpu.system.errors import RequestError, first_line

# What layers of `x + y` or `tf.nn.relu(x)` may call: these only calculate.
_CALCULATE = ("math.", "nn.", "__operators__.", "clip_by_value")
# Dropout alone is exchanged for this package's own, whose state a checkpoint holds.
_RANDOM = re.compile("Random|GaussianNoise|(Gaussian|Alpha|Spatial)Dropout")
_NESTED = ("Functional", "Model", "Sequential")


def is_file(name: str) -> bool:
    """Whether the value of `--backbone` is the path of a file, not a name of the registry."""
    return "/" in name or name.endswith((".h5", ".hdf5", ".keras"))


def read_config(path: str) -> dict[str, Any]:
    """Reads what a file's network is made of, as `tf.keras.Model.get_config` gives it.

    Args:
        path: of a file that `model.save("NAME.h5")` of Keras 2 wrote; local or `gs://`.

    Raises:
        RequestError: it is no such file, or has what cannot be taken: a classification layer,
            models within the model, layers of other packages, `Lambda`, randomness but `Dropout`.
    """
    with opened(path, "backbone") as file:
        attributes = {name: file.attrs.get(name) for name in ("model_config", "keras_version")}
    version = _text(attributes["keras_version"])
    if attributes["model_config"] is None:
        raise _refused(path, "has weights but no network; expected a file of model.save('NAME.h5')")
    if version.startswith("3."):
        raise _refused(path, f"was written by Keras {version}; expected one of Keras 2 (tf_keras)")
    try:
        model = json.loads(_text(attributes["model_config"]))
        kind, config = model["class_name"], model["config"]
        if kind not in ("Functional", "Model"):
            raise _refused(path, f"holds a {kind} model; expected a functional one")
        for layer in config["layers"]:
            if problem := _problem(layer["class_name"], layer["config"]):
                raise _refused(path, f"layer {layer['config']['name']!r} {problem}")
        if len(config["input_layers"]) != 1 or len(config["output_layers"]) != 1:
            raise _refused(path, "has several inputs or outputs; expected one of each")
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(path, f"its network cannot be read ({first_line(error)})") from error
    return config


def build(path: str, input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Builds the network of a file, with random weights, for images of a size.

    Its layers compute as the global policy says, whatever they did where the file was written.

    Raises:
        RequestError: see `read_config`; or the network does not work at that size, or gives no
            feature maps.
    """
    config = copy.deepcopy(read_config(path))
    policy = tf.keras.mixed_precision.global_policy().name
    (first,) = (name for name, *_ in config["input_layers"])
    for layer in config["layers"]:
        if layer["config"]["name"] == first:
            layer["config"]["batch_input_shape"] = [None, *input_shape]
        if layer["class_name"] != "InputLayer":
            layer["config"]["dtype"] = policy
    try:
        network = tf.keras.Model.from_config(config)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise _refused(
            path, f"its network cannot be built for {input_shape[0]} px ({first_line(error)})"
        ) from error
    if len(network.output_shape) != 4:
        raise _refused(
            path,
            f"gives {network.output_shape}; expected feature maps, (batch, height, width, "
            "channels): a network without pooling and classification layers (include_top=False)",
        )
    return network


def _problem(kind: str, config: dict[str, Any]) -> str:
    """What is wrong with a layer, or ''."""
    if kind == "Lambda":
        return "is a Lambda, which would run code of whoever made the file"
    if kind in _NESTED:
        return "is a model within the model; save it flat, of its layers alone"
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        function = str(config.get("function", ""))
        if function.startswith(_CALCULATE) and "dropout" not in function:
            return ""
        return f"calls tf.{function}, which is not known to be harmless"
    if not isinstance(getattr(tf.keras.layers, kind, None), type):
        return f"is a {kind}, which is no layer of Keras 2"
    if _RANDOM.match(kind) or "recurrent_dropout" in config:
        return f"is a {kind}: of random layers only Dropout is taken, as a run is repeatable"
    return ""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _refused(path: str, problem: str) -> RequestError:
    return RequestError(f"--backbone={path}: {problem}.")
