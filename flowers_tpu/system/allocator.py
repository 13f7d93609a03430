"""Lets the C library keep the memory that TensorFlow gives back, for the next step to use.

By default glibc maps every block over 32 MiB anew and returns it when freed, and gives back the
top of its heaps beyond 64 MiB. The kernel then clears each page again in each step: a batch of 16
photos of 512 px is 50 MB of floats, and clearing took up to two thirds of the time of a small
network's step (docs/measurements.md).
"""

import ctypes
import os
import platform

# The parameters of mallopt(3) in <malloc.h>, and what they are set to here.
_SETTINGS = {
    # Heaps, each with a lock. More than cores help nobody (the default is eight for each), and each
    # keeps the largest that its threads ever held.
    -8: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,  # M_ARENA_MAX
    -4: 0,  # M_MMAP_MAX: large blocks come from the heap too
    -1: 1 << 30,  # M_TRIM_THRESHOLD, bytes: what is kept at the heap's top
    -2: 64 << 20,  # M_TOP_PAD, bytes: by how much it grows at least
}


def keep_freed_memory() -> None:
    """Sets this process's allocator; call it before TensorFlow is imported and starts threads.

    Does nothing where the C library is not glibc, or where the environment already sets its
    allocator (`MALLOC_…`, `GLIBC_TUNABLES`) or brings another one (`LD_PRELOAD`).
    """
    chosen = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(chosen) for name in os.environ):
        return
    libc = ctypes.CDLL(None)
    for parameter, value in _SETTINGS.items():
        libc.mallopt(parameter, value)
