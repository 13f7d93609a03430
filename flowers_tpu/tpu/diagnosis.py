"""Why a step does not compile for a TPU: which operation, of which line, and what to do instead."""

import dataclasses
import math
import os
import re
import sysconfig
from collections.abc import Callable

import tensorflow as tf

from flowers_tpu.system.errors import first_line

# Where a file's path is cut for a message.
_PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PACKAGES = sysconfig.get_path("purelib")

_HOST = "it runs on the host only: do this in the input pipeline, before the batch is made"
_STATIC = "keep the shape and mask instead: tf.where with three arguments, or weights of 0"
_ADVICE = {
    r"Decode|Encode|ReadFile|Parse": _HOST,
    r"PyFunc": "it runs Python on the host: use TensorFlow operations, or the input pipeline",
    r"String|Print": "it handles text, which a TPU cannot: return the value, print it outside",
    r"^Where$|Unique|NonMaxSuppression|DynamicPartition": _STATIC,
    r"CropAndResize|Resize|ImageProjective": "resize by two products of matrices, or bilinearly",
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """What keeps a step from running on a TPU.

    Attributes:
        reason: `host-only`, `dynamic shape`, `memory`, `timeout` or `compiler`.
        text: what is the matter.
        operation: type and name of the operation in question, as `Where (boolean_mask/Where)`.
        source: the line that made it, `path:line`; '' if unknown.
        advice: what to use instead.
        needed: bytes of memory it would need; infinity if unknown.
    """

    reason: str
    text: str
    operation: str = ""
    source: str = ""
    advice: str = ""
    needed: float = math.inf

    def __str__(self) -> str:
        where = f"{self.operation}{' at ' if self.source else ''}{self.source}"
        text = f"{where}: {self.text}" if where else self.text
        return f"{text}; {self.advice}" if self.advice else text


class StepError(Exception):
    """A step cannot be lowered for a TPU; `problem` says why."""

    def __init__(self, problem: Problem):
        super().__init__(str(problem))
        self.problem = problem


def of_lowering(error: BaseException) -> Problem:
    """Reads what TensorFlow says if it has no XLA operation for one of its own."""
    text = str(error)
    named = re.search(r"(\w+) \(No registered '\w+' OpKernel.*?\{\{node ([^}]+)\}\}", text)
    node = named or re.search(r"()\{\{node ([^}]+)\}\}", text)
    # TensorFlow leaves its own frames out; the last one is the line that called it.
    stack = re.findall(r'File "([^"]+)", line (\d+)', text.split("tf2xla conversion failed")[0])
    kind, name = node.groups() if node else ("", "")
    return Problem(
        reason="host-only" if named else "compiler",
        text="XLA has no such operation" if named else _gist(text),
        operation=_operation(kind, name),
        source=_place(*stack[-1]) if stack else "",
        advice=_advice(kind, _HOST) if named else "",
    )


def of_dynamic_shape(kind: str, name: str, source: str) -> Problem:
    """An operation whose result has another shape for other values."""
    return Problem(
        reason="dynamic shape",
        text="its shape depends on the values, but a TPU's must be known beforehand",
        operation=_operation(kind, name),
        source=source,
        advice=_advice(kind, _STATIC),
    )


def of_compilation(text: str, source_of: Callable[[str], str]) -> Problem:
    """Reads what the TPU compiler says.

    Args:
        text: its message.
        source_of: gives the source line of an operation by its name.
    """
    amounts = _memory(text)
    if amounts:
        return too_large(*amounts)
    name = re.search(r'op_name="([^"]+)"', text)
    kind = re.search(r'op_type="([^"]+)"', text)
    name, kind = (match[1] if match else "" for match in (name, kind))
    return Problem(
        reason="compiler",
        text=_gist(text),
        operation=_operation(kind, name),
        source=source_of(name),
        advice=_advice(kind, "") if kind else "",
    )


def too_large(needed: float, available: float) -> Problem:
    """A program that needs more bytes of memory than a device has for it."""
    return Problem(
        reason="memory",
        text=f"needs {needed / 2**30:.2f} GiB of memory, but {available / 2**30:.2f} are available",
        advice="lower --batch_size_per_replica or --global_batch_size; --find_batch finds the most",
        needed=needed,
    )


def source_of(graph: tf.Graph, name: str) -> str:
    """Returns the line that made an operation of a graph, `path:line`, or '' if it is not in it.

    It is the innermost one outside TensorFlow: in this project, or in Keras.
    """
    try:
        frames = graph.get_operation_by_name(name).traceback
    except (KeyError, ValueError):
        return ""
    tensorflow = os.path.dirname(tf.__file__) + os.sep
    outside = [frame for frame in frames if not frame.filename.startswith(tensorflow)]
    return _place(outside[-1].filename, outside[-1].lineno) if outside else ""


def _memory(text: str) -> tuple[float, float] | None:
    """Bytes (needed, available) of a message about too little memory."""
    amount = r"([\d.]+)([KMG]?)"
    found = re.search(rf"\({amount}\) exceeds available HBM \({amount}\)", text) or re.search(
        rf"Used {amount} of {amount} hbm", text
    )
    if not found:
        return None
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
    needed, unit, available, other_unit = found.groups()
    return float(needed) * units[unit], float(available) * units[other_unit]


def _operation(kind: str, name: str) -> str:
    return f"{kind} ({name})" if kind and name else kind or name


def _advice(kind: str, otherwise: str) -> str:
    return next((text for key, text in _ADVICE.items() if re.search(key, kind)), otherwise)


def _gist(text: str) -> str:
    return first_line(ValueError(text.removeprefix("Failed getting HLO text: '")))


def _place(path: str, line: int | str) -> str:
    """`path:line`, the path as short as it says where."""
    if not os.path.isabs(path) and os.path.exists(os.sep + path):
        path = os.sep + path  # TensorFlow's messages leave the first one out
    for root in (_PACKAGES, _PROJECT):  # an environment may lie in the project
        if path.startswith(root + os.sep):
            path = os.path.relpath(path, root)
    return f"{path}:{line}"
