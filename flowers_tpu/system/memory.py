"""What memory there is, so that what would not fit is refused with numbers, not killed."""

import psutil

from flowers_tpu.system.errors import RequestError

_MOST = 0.9  # what may be taken of the memory that is available

# Where the limit of a container stands, what it has taken, and what of it can be taken back (the
# pages of files): of cgroups of version 2 and 1.
_CONTAINERS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
_CGROUP = "/sys/fs/cgroup"


def check(needed: float, request: str, advice: str) -> None:
    """Raises RequestError where memory would not suffice.

    Args:
        needed: bytes.
        request: what needs them, for the message.
        advice: what to do instead.
    """
    there = available()
    if needed > _MOST * there:
        raise RequestError(
            f"{request} needs {needed / 1e9:.1f} GB, but {there / 1e9:.1f} GB of memory are "
            f"available; {advice}"
        )


def available() -> int:
    """The bytes that can still be taken of the machine, or of this container if that is less."""
    return min(psutil.virtual_memory().available, _of_container())


def _of_container() -> float:
    for names in _CONTAINERS:
        limit_file, usage_file, statistics_file = (f"{_CGROUP}/{name}" for name in names[:3])
        try:
            with (
                open(limit_file) as limit,
                open(usage_file) as usage,
                open(statistics_file) as file,
            ):
                statistics = dict(line.split() for line in file)
                left = int(limit.read()) - int(usage.read())
                return max(0, left + int(statistics.get(names[3], 0)))
        except (OSError, ValueError):  # no such version; or no limit, which reads `max`
            continue
    return float("inf")
