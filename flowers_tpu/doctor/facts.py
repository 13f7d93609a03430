"""Gathers what can be known of this place without starting anything.

Packages are known by their metadata. TensorFlow is imported in a child process only, with a time
limit, and without libtpu, so that no TPU is taken; `start_tpu` is the one exception.

All facts are one dictionary that can be written as JSON, so that a place can be recorded and looked
at elsewhere (`scripts/doctor.py --json`, `--facts=FILE`).
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

# Of these the version is kept; what else is installed is nobody's business.
PACKAGES = (
    "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-gpu", "tf-nightly",
    "tf-nightly-tpu", "tf-keras", "keras", "tensorflow-addons", "typeguard", "libtpu",
    "libtpu-nightly", "jax", "jaxlib", "torch", "torch-xla", "ml-dtypes", "numpy", "protobuf",
    "flowers-tpu", "pandas", "scikit-learn", "absl-py", "pillow", "h5py", "tqdm", "matplotlib",
    "jinja2", "psutil", "tensorboard", "packaging", "cloud-tpu-client", "nvidia-cudnn-cu12",
)  # fmt: skip
# Of these the bounds on the packages above are kept too.
BINDING = (
    "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-gpu", "tensorflow-addons",
)  # fmt: skip
# Only what this program reads: an environment also holds passwords.
VARIABLES = (
    "ISTPUVM", "TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES",
    "TPU_WORKER_ID", "TPU_CHIPS_PER_HOST_BOUNDS", "TPU_CHIPS_PER_PROCESS_BOUNDS",
    "TPU_HOST_BOUNDS", "TPU_PROCESS_BOUNDS", "TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES",
    "TPU_SKIP_MDS_QUERY", "TPU_LOAD_LIBRARY", "TPU_LIBRARY_PATH", "PJRT_DEVICE", "COLAB_TPU_ADDR",
    "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "KERAS_BACKEND", "TF_USE_LEGACY_KERAS",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "TF_CONFIG",
)  # fmt: skip
# In the order in which they are asked for; who came first matters to Keras.
MODULES = ("tensorflow", "tf_keras", "keras", "jax", "torch_xla", "flowers_tpu.options")
IMPORT_SECONDS, TPU_SECONDS = 180, 300

_IMPORT = """
import json
import tensorflow as tf
from tensorflow.python.framework import kernels
kept = {"version": tf.__version__, "file": tf.__file__}
kept["tpu_kernels"] = len(kernels.get_registered_kernels_for_op("TPUExecute").kernel)
kept["built_with_cuda"] = tf.test.is_built_with_cuda()
kept["gpus"] = len(tf.config.list_physical_devices("GPU"))
kept["keras"] = getattr(tf.keras, "__version__", None) or getattr(tf.keras, "version", str)()
print("\\nFACTS " + json.dumps(kept))
"""
_START_TPU = """
import json
import tensorflow as tf
resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
tf.tpu.experimental.initialize_tpu_system(resolver)
cores = tf.distribute.TPUStrategy(resolver).num_replicas_in_sync
print("\\nFACTS " + json.dumps({"cores": cores}))
"""


def gather(run_dir: str, init: bool = False) -> dict[str, Any]:
    """Returns the facts of this place.

    Args:
        run_dir: the folder that a run would write to; it need not exist.
        init: whether to start the TPU, in a child process; nothing else here does.
    """
    modules = [name for name in MODULES if name in sys.modules]  # before anything is imported
    packages = installed()
    has_tensorflow = any(name.startswith(("tensorflow", "tf-nightly")) for name in packages)
    return {
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "system": platform.system(),
            "machine": platform.machine(),
        },
        "packages": packages,
        "bounds": {name: bounds(name) for name in BINDING if name in packages},
        "modules": modules,
        "tensorflow": child(_IMPORT, IMPORT_SECONDS, {"TPU_LOAD_LIBRARY": "0"})
        if has_tensorflow
        else None,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "marks": [path for path in ("/kaggle/input", "/content") if os.path.isdir(path)],
        "devices": devices(),
        "library": library(os.environ.get("TPU_LIBRARY_PATH")),
        "gpus": gpus(),
        "cores": cores(),
        "memory": memory(),
        "run_folder": run_folder(run_dir),
        "tpu": child(_START_TPU, TPU_SECONDS, {}) if init and has_tensorflow else None,
    }


# Packages


def plain(name: str) -> str:
    """Returns a package's name as the index compares it: `tf_keras` is `tf-keras`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Returns the versions of the packages that matter, of those that are found first."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        try:  # a half-removed package has a folder without metadata
            name, version = plain(distribution.metadata["Name"]), distribution.version
        except (KeyError, TypeError, OSError):
            continue
        if name in PACKAGES and version:
            found.setdefault(name, version)
    return {name: found[name] for name in PACKAGES if name in found}


def bounds(package: str) -> dict[str, str]:
    """Returns what an installed package wants of the others: `{"numpy": ">=1.26.0"}`.

    Lines with a marker are left out: extras, and other machines.
    """
    kept = {}
    for line in metadata.requires(package) or []:
        wanted, _, marker = line.partition(";")
        found = re.match(r"\s*([A-Za-z0-9._-]+)\s*\(?([^()\[\]]*)\)?\s*$", wanted)
        if found and not marker.strip() and plain(found.group(1)) in PACKAGES:
            kept[plain(found.group(1))] = found.group(2).replace(" ", "")
    return {name: wanted for name, wanted in kept.items() if wanted}


# Child processes


def child(code: str, seconds: float, variables: dict[str, str]) -> dict[str, Any]:
    """Runs Python code in a process of its own, with this one's interpreter.

    Returns:
        What it prints as JSON after `FACTS `; else `{"error": what happened}`.
    """
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2", **variables)
    environment.pop("TF_USE_LEGACY_KERAS", None)  # as TensorFlow is when nobody has chosen
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, env=environment,
            cwd=os.sep,  # Python imports from this folder first
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"no answer after {seconds} s; ended"}
    except OSError as error:
        return {"error": str(error)}
    for line in reversed(ended.stdout.decode("utf-8", "replace").splitlines()):
        if line.startswith("FACTS "):
            return json.loads(line[len("FACTS ") :])
    lines = [line for line in ended.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    if ended.returncode < 0:  # a failed check of TensorFlow's ends the process, after such a line
        fatal = [line for line in lines if re.match(r"[-\d]+ [:.\d]+: F ", line)]
        why = ": " + fatal[-1].partition("] ")[2] if fatal else ""
        return {"error": f"ended by signal {-ended.returncode}{why}"[:400]}
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return {"error": ([*errors, *lines[-1:]] or [f"exit code {ended.returncode}"])[0][:400]}


# Machine


def devices() -> dict[str, Any]:
    """Returns device files, which of them may not be opened, chips on the bus, and who has them."""
    accel = sorted(glob.glob("/dev/accel[0-9]*"))
    vfio = sorted(glob.glob("/dev/vfio/[0-9]*"))
    nodes = accel + vfio
    return {
        "accel": accel,
        "vfio": vfio,
        "nvidia": sorted(glob.glob("/dev/nvidia[0-9]*")),
        "refused": [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)],
        "chips": chips("0x1ae0"),
        "holders": holders(nodes),
    }


def chips(vendor: str) -> list[str]:
    """Returns the device numbers of a vendor's accelerators on the bus, as `0x0063`.

    Google sells network cards too, which are of class 0x02.
    """
    found = []
    for folder in sorted(glob.glob("/sys/bus/pci/devices/*")):
        kind = _read(os.path.join(folder, "class"))
        if _read(os.path.join(folder, "vendor")) == vendor and not kind.startswith("0x02"):
            found.append(_read(os.path.join(folder, "device")))
    return found


def holders(nodes: list[str]) -> list[dict[str, Any]]:
    """Returns the other processes that have one of the device files open, as far as one may see."""
    found = []
    for folder in glob.glob("/proc/[0-9]*") if nodes else []:
        pid = int(os.path.basename(folder))
        try:
            links = {os.readlink(link) for link in glob.glob(os.path.join(folder, "fd", "*"))}
        except OSError:
            continue
        if pid != os.getpid() and links & set(nodes):
            found.append({"pid": pid, "name": _read(os.path.join(folder, "comm"))})
    return sorted(found, key=lambda holder: holder["pid"])


def library(path: str | None) -> dict[str, Any] | None:
    """Returns whether the libtpu that a variable names is there."""
    return {"path": path, "exists": os.path.exists(path)} if path else None


def gpus() -> dict[str, Any]:
    """Returns the names of NVIDIA's GPUs and the driver's version, and what failed."""
    driver = re.search(r"Kernel Module\D*(\d+(\.\d+)+)", _read("/proc/driver/nvidia/version"))
    facts: dict[str, Any] = {"names": [], "driver": driver.group(1) if driver else None}
    program = shutil.which("nvidia-smi")
    if program:
        asked = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            answer = subprocess.run(
                asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30
            )
            lines = answer.stdout.decode("utf-8", "replace").strip().splitlines()
            if answer.returncode:
                facts["error"] = "nvidia-smi: " + " ".join(lines)[:200]
            else:
                facts["names"] = [line.rpartition(",")[0] for line in lines]
                facts["driver"] = lines[0].rpartition(",")[2].strip() if lines else None
        except (OSError, subprocess.TimeoutExpired) as error:
            facts["error"] = f"nvidia-smi: {error}"
    return facts


def cores() -> dict[str, Any]:
    """Returns the cores of the machine, those this process may use, and the container's quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if not period:  # cgroups of version 1
        quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    limit = round(int(quota) / int(period), 2) if quota.isdigit() and period.isdigit() else None
    return {"machine": os.cpu_count(), "usable": usable, "limit": limit}


def memory() -> dict[str, int | None]:
    """Returns bytes: of the machine, available on it, and the container's limit."""
    lines = re.findall(r"(\w+):\s+(\d+) kB", _read("/proc/meminfo"))
    sizes = {name: int(size) * 1024 for name, size in lines}
    total = sizes.get("MemTotal")
    if total is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [
        int(text)
        for text in map(
            _read, ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        )
        if text.isdigit() and (total is None or int(text) < total)
    ]
    return {
        "total": total,
        "available": sizes.get("MemAvailable"),
        "limit": min(limits) if limits else None,
    }


def run_folder(path: str) -> dict[str, Any]:
    """Returns whether a folder can be written to, made if need be, and the free bytes there.

    Nothing is written.
    """
    if path.startswith("gs://"):
        return {"path": path, "writable": None, "free": None}
    nearest = os.path.abspath(path)
    while not os.path.exists(nearest):
        nearest = os.path.dirname(nearest)
    writable = os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)
    return {"path": path, "writable": writable, "free": shutil.disk_usage(nearest).free}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
