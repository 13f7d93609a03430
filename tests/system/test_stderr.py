import os
import signal
import subprocess
import sys
import time

import pytest

from flowers_tpu.system import stderr

STAMP = "2024-05-01 10:00:00.123456: I tensorflow/core/util/port.cc:113] "
CHATTER = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    STAMP + "oneDNN custom operations are on. You may see slightly different numerical results",
    "I0000 00:00:1 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be",
    STAMP + "This TensorFlow binary is optimized to use available CPU instructions",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    STAMP + "Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN",
    STAMP + "Unable to register cuFFT factory: Attempting to register factory for plugin cuFFT",
    STAMP + "Unable to register cuBLAS factory: Attempting to register factory for plugin cuBLAS",
    "W0000 cuda_executor.cc:1] computation placer already registered. Please check linkage",
    STAMP + "TF-TRT Warning: Could not find TensorRT",
    "E0000 cuda_diagnostics.cc:1] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)",
    STAMP + "failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected",
    "W0000 root_dataset.cc:364] Optimization loop failed: CANCELLED: Operation was cancelled",
    "E0000 cuda_platform.cc:51] no NVIDIA GPU device is present: /dev/nvidia0 does not exist",
    STAMP + "Input of GeneratorDatasetOp::Dataset will not be optimized because the dataset does",
]
NEWS = [
    "E0000 failed call to cuInit: CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE: forward compatibility",
    "W0000 Allocation of 1234 exceeds 10% of free system memory.",
    "--tpu=local: no TPU found",
    "Blümchen",
]


def write(text):
    """Writes as TensorFlow's C++ side does, past Python."""
    os.write(2, text.encode())


@pytest.mark.parametrize("line", CHATTER)
def test_chatter_is_dropped(capfd, line):
    with stderr.without_chatter():
        write(f"before\n{line}\nafter\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_everything_else_passes_in_order(capfd):
    with stderr.without_chatter():
        write("\n".join(NEWS) + "\n\nno end of line")
    assert capfd.readouterr().err == "\n".join(NEWS) + "\n\nno end of line"


def test_it_passes_while_work_goes_on(capfd):
    with stderr.without_chatter():
        write("still starting\n")
        seen, deadline = "", time.monotonic() + 10
        while not seen and time.monotonic() < deadline:
            seen = capfd.readouterr().err
            time.sleep(0.01)
    assert seen == "still starting\n"


def test_the_last_words_before_an_abort_are_not_lost():
    code = """
import os
from flowers_tpu.system import stderr
with stderr.without_chatter():
    os.write(2, b"oneDNN custom operations are on\\nlibtpu is held by another process\\n")
    os.abort()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == -signal.SIGABRT
    assert result.stderr == "libtpu is held by another process\n"


def test_python_itself_writes_to_the_terminal_as_ever(capfd):
    with stderr.without_chatter():
        print(CHATTER[0], file=sys.stderr)
    assert capfd.readouterr().err == f"{CHATTER[0]}\n"


def test_what_was_written_before_an_error_is_kept(capfd):
    with pytest.raises(ValueError, match="broken"), stderr.without_chatter():
        write(f"{CHATTER[0]}\nnews\n")
        raise ValueError("broken")
    assert capfd.readouterr().err == "news\n"


def test_standard_error_works_as_before_afterwards(capfd):
    before = os.fstat(2)
    open_files = len(os.listdir("/proc/self/fd"))
    with stderr.without_chatter():
        assert os.fstat(2) != before
    assert os.path.samestat(os.fstat(2), before)
    assert len(os.listdir("/proc/self/fd")) == open_files
    write(f"{CHATTER[0]}\n")
    assert capfd.readouterr().err == f"{CHATTER[0]}\n"
