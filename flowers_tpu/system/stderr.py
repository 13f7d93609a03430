"""Keeps TensorFlow's known chatter off the terminal, and nothing else.

Newer TensorFlow writes some lines to file descriptor 2 before any setting of the log level is
heard, reports the CUDA parts of its own wheel as errors on machines without a GPU, and warns of
what its own distributed iterators are made of, and of ending them.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

_CHATTER = re.compile(
    rb"All log messages before absl::InitializeLog"
    rb"|oneDNN custom operations are on"
    rb"|Could not find cuda drivers on your machine"
    rb"|This TensorFlow binary is optimized"
    rb"|To enable the following instructions"
    rb"|Unable to register cu(DNN|FFT|BLAS) factory"
    rb"|computation placer already registered"
    rb"|Could not find TensorRT"
    # No CUDA driver at all; a driver that is there and fails says something else.
    rb"|failed call to cuInit: .*UNKNOWN ERROR \(303\)"
    rb"|failed call to cuInit: CUDA_ERROR_NO_DEVICE"
    rb"|no NVIDIA GPU device is present"
    rb"|Compiled cluster using XLA!"
    rb"|SetPriority unimplemented for this stream"
    rb"|Input of GeneratorDatasetOp::Dataset will not be optimized"
    rb"|Optimization loop failed: CANCELLED"
    # Of conversions to TFLite, and of what checks them.
    rb"|oneDNN supports DT_UINT8 only on platforms with AVX-512"
    rb"|Ignored (output_format|drop_control_dependency)\."
    rb"|Skipping runtime version metadata in the model"
    rb"|^fully_quantize: \d"
    rb"|Created TensorFlow Lite XNNPACK delegate for CPU"
)


# What passes the lines on. A process of its own, so that the last words before an abort, which ends
# all threads at once, are passed on too; it ends with the one that writes to it.
_FILTER = """
import re, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
chatter = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not chatter.search(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


_SECONDS_TO_END = 5.0  # a process that was started meanwhile may hold the pipe open for longer


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Leaves chatter out of what is written to file descriptor 2; the rest passes at once.

    Python's own `sys.stderr` goes to the terminal as ever: bars move, and lines keep their order.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    passing_on = subprocess.Popen(
        [sys.executable, "-ESs", "-c", _FILTER, _CHATTER.pattern.decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert passing_on.stdin is not None, "a pipe was asked for"
    own = contextlib.nullcontext()
    if _writes_to_descriptor_2(sys.stderr):
        file = os.fdopen(terminal, "w", buffering=1, errors="backslashreplace", closefd=False)
        own = contextlib.redirect_stderr(file)
    os.dup2(passing_on.stdin.fileno(), 2)
    try:
        with own:
            yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        passing_on.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            passing_on.wait(_SECONDS_TO_END)


def _writes_to_descriptor_2(file: TextIO) -> bool:
    try:
        return file.fileno() == 2
    except (OSError, ValueError):
        return False
