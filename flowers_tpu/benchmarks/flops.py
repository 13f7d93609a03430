"""How many floating-point operations a compiled step does, and how many its devices could do."""

import contextlib
import math
import os
from collections.abc import Callable

import tensorflow as tf

from flowers_tpu.benchmarks import peaks
from flowers_tpu.errors import RequestError

# TensorFlow's profiler counts these forward, but has no figure for their gradients.
_DEPTHWISE_GRADIENTS = (
    "DepthwiseConv2dNativeBackpropInput",
    "DepthwiseConv2dNativeBackpropFilter",
)


def of_step(function: Callable, batch: dict) -> float:
    """Returns the FLOPs of a step, by TensorFlow's profiler on the step's graph.

    A multiplication and an addition are two. What the graph's results do not depend on is left out,
    as TensorFlow leaves it out before it runs.

    Args:
        function: of a batch, with static shapes; what it returns is what it computes.
        batch: to trace it with.
    """
    graph = tf.function(function).get_concrete_function(batch).graph
    counted = {node.name: node.float_ops for node in _nodes(_profile(graph))}
    total = 0.0
    for operation in _needed(graph):
        if operation.type in _DEPTHWISE_GRADIENTS:
            total += _of_depthwise_gradient(operation)
        else:
            total += counted.get(operation.name, 0)
    return total


def peak(kind: str, accelerator: str = "") -> float | None:
    """Returns the most FLOP/s of one replica's device; None where it is not known.

    Args:
        kind: of the device: `TPU`, `GPU` or `CPU`.
        accelerator: see `peaks.of_tpu`; '': what the environment names.
    """
    if kind == "TPU":
        with contextlib.suppress(RequestError):
            return peaks.of_tpu(accelerator or os.environ.get("TPU_ACCELERATOR_TYPE", ""))
    if kind == "GPU":
        details = tf.config.experimental.get_device_details(
            tf.config.list_physical_devices(kind)[0]
        )
        return peaks.of_gpu(details.get("device_name", ""))
    return None


def _profile(graph: tf.Graph):
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # the profiler warns that it uses a deprecated function of its own
    try:
        return tf.compat.v1.profiler.profile(graph, cmd="scope", options=options)
    finally:
        logger.setLevel(level)


def _nodes(node):
    for child in node.children:
        yield child
        yield from _nodes(child)


def _needed(graph: tf.Graph) -> list[tf.Operation]:
    """The operations that a function's results depend on."""
    found, waiting = {}, [output.op for output in graph.outputs] + list(graph.control_outputs)
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found[operation.name] = operation
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return list(found.values())


def _of_depthwise_gradient(operation: tf.Operation) -> float:
    """As forward: each of the output's elements took part in the products of a whole filter."""
    is_input = operation.type.endswith("Input")
    layout = operation.get_attr("data_format").decode()
    out = operation.inputs[2].shape
    filter_shape = operation.inputs[1].shape if is_input else operation.outputs[0].shape
    assert layout in ("NHWC", "NCHW")
    return 2.0 * math.prod(out) * math.prod(filter_shape[:2])
