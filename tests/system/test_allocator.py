"""The allocator: what is freed is used again, without the kernel clearing its pages anew."""

import os
import platform
import subprocess
import sys

import pytest

_FAULTS = """
import ctypes, resource
from flowers_tpu.system import allocator

{set_up}
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for turn in range(4):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(set_up: str, **environment: str) -> int:
    """Page faults of filling a freed block of 64 MiB three times more, in a new process."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))
    }
    process = subprocess.run(
        [sys.executable, "-c", _FAULTS.format(set_up=set_up)],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(process.stdout)


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def test_freed_memory_is_used_again():
    assert _faults("allocator.keep_freed_memory()") < 100


def test_without_it_every_page_comes_anew():
    assert _faults("") > 64  # of 2 MiB even, where the kernel gives huge ones


_ARENAS = """
import ctypes, os, sys, threading
if sys.argv[1] != "all":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    from flowers_tpu.system import allocator

    allocator.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(16)

def work():
    together.wait()
    for _ in range(100):
        libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.parametrize("cores", ["one", "all"])
def test_there_are_no_more_heaps_than_cores(cores):
    """Of 16 threads that all take memory; by default there are eight for each core."""
    there = os.sched_getaffinity(0)
    chosen = str(min(there)) if cores == "one" else "all"
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    process = subprocess.run(
        [sys.executable, "-c", _ARENAS, chosen],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    heaps = process.stdout.count("<heap ")
    assert heaps == 1 if cores == "one" else heaps > 1


def test_an_allocator_that_the_environment_sets_stays():
    assert _faults("allocator.keep_freed_memory()", MALLOC_TOP_PAD_="131072") > 64
