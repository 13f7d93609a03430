"""The TPU compiler, which runs in a process of its own: it may need gigabytes, hang, or abort."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata

from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.tpu_slices import Slice

# What `worker.py` knows the insides of; the extra `tpu-check` installs just these.
VERSIONS = {"jax": "0.10.2", "jaxlib": "0.10.2", "libtpu": "0.0.42.1"}
_INSTALL = "pip install -e '.[tpu-check]'"
_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program for one device.

    Attributes:
        memory: bytes of `arguments`, `outputs`, `aliased` (outputs that are updated arguments),
            `temporaries` and `code`.
        flops: floating-point operations.
        bytes_accessed: by the compiler's count, each fused operation's inputs and outputs; what
            stays on the chip may be among it.
        seconds: it took to compile.
    """

    memory: dict[str, float]
    flops: float
    bytes_accessed: float
    seconds: float

    @property
    def needed(self) -> float:
        """Bytes of memory that the program needs; an updated variable counts once."""
        memory = self.memory
        results = memory["outputs"] - memory["aliased"]
        return memory["arguments"] + results + memory["temporaries"] + memory["code"]


class CompileError(Exception):
    """The compiler refuses a program; the message is its own."""


class CompileTimeoutError(Exception):
    """The compiler was not done in time."""


def check_installed() -> None:
    """Raises RequestError if the compiler is not installed, or is another than `VERSIONS`."""
    if sys.platform != "linux" or sys.version_info < (3, 11):
        raise RequestError(
            "the TPU compiler needs Linux and Python 3.11 or later; this is Python "
            f"{sys.version_info[0]}.{sys.version_info[1]} on {sys.platform}, for which the extra "
            "tpu-check installs nothing"
        )
    for name, known in VERSIONS.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise RequestError(
                f"the TPU compiler is not installed (no {name}): {_INSTALL}"
            ) from error
        if found != known:
            raise RequestError(
                f"{name} {found} is installed, but this check is made for {name} {known}: "
                f"{_INSTALL}, in an environment of its own if another is needed"
            )


def compile_for(
    slice_: Slice, module: bytes, *, seconds: float, on_wait: Callable[[], None] = lambda: None
) -> Compiled:
    """Compiles a program for one device of a slice.

    Args:
        slice_: what to compile for.
        module: a serialized `HloModuleProto`.
        seconds: time to give it.
        on_wait: called twice a second.

    Raises:
        CompileError: it is refused, or the compiler ends otherwise than well.
        CompileTimeoutError: it was not done in time.
    """
    request = {"topology": slice_.topology, "options": slice_.options}
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("module", "result", "messages")]
        with open(paths[0], "wb") as file:
            file.write(module)
        command = [sys.executable, "-m", "flowers_tpu.tpu.worker", *paths[:2], json.dumps(request)]
        with open(paths[2], "w") as messages:
            process = subprocess.Popen(command, stdout=messages, stderr=messages)
        try:
            _wait(process, time.monotonic() + seconds, on_wait)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            with open(paths[2], errors="replace") as messages:
                raise CompileError(_ending(process.returncode, messages.read()))
        with open(paths[1]) as file:
            result = json.load(file)
    if "error" in result:
        raise CompileError(result["error"])
    return Compiled(**result)


def _wait(process: subprocess.Popen, deadline: float, on_wait: Callable[[], None]) -> None:
    while True:
        try:
            process.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired as error:
            if time.monotonic() > deadline:
                raise CompileTimeoutError from error
            on_wait()


def _ending(returncode: int, messages: str) -> str:
    """Why a compiler process ended, in a line."""
    last = (messages.strip().splitlines() or ["no message"])[-1]
    if returncode == -signal.SIGKILL:
        return "the compiler was killed: it probably took more memory than this machine has"
    if returncode < 0:
        return f"the compiler ended with {signal.Signals(-returncode).name}: {last}"
    return f"the compiler failed: {last}"
