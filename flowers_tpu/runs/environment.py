"""What a run says of where it was made, for `environment.json`."""

import os
import platform
import subprocess
import sys
from typing import Any

import tensorflow as tf

import flowers_tpu
from flowers_tpu.system.devices import Facts

_PACKAGES = ("tensorflow", "tf_keras", "tensorflow_addons", "numpy", "pandas", "sklearn")


def environment(facts: Facts) -> dict[str, Any]:
    """Returns versions, devices and the commit."""
    return {
        "flowers_tpu": flowers_tpu.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device_kind": facts.kind,
        "replicas": facts.replicas,
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "command": sys.argv,
    }


def _version(name: str) -> str | None:
    return getattr(sys.modules.get(name), "__version__", None)


def _git_commit() -> str | None:
    """The commit of this checkout; None for an installed package or without git.

    An installed package may lie within another project's repository, which does not track it.
    """
    here = os.path.dirname(os.path.abspath(flowers_tpu.__file__))
    try:
        for command in (["ls-files", "--error-unmatch", "__init__.py"], ["rev-parse", "HEAD"]):
            result = subprocess.run(
                ["git", "-C", here, *command], capture_output=True, text=True, timeout=10
            )
            if result.returncode:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()
