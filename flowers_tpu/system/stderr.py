"""Keeps TensorFlow's known chatter off the terminal, and nothing else.

Newer TensorFlow writes some lines to file descriptor 2 before any setting of the log level is
heard, reports the CUDA parts of its own wheel as errors on machines without a GPU, and warns of
what its own distributed iterators are made of.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

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
)


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Holds back what is written to standard error inside, then writes all but the chatter."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if not _CHATTER.search(line):
                    os.write(2, line)
