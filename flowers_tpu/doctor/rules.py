"""What can be wrong in a place, as data: when, what, and the command that mends it.

`RULES` is in order of importance. A rule is looked at on its own; what it says and what it does are
functions of the facts alone (see `facts.py`), so that rules are tested on recorded places.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, NamedTuple

Facts = Any  # what `facts.gather` returns; a place recorded by hand may lack a part
WRONG, NOTE = "wrong", "note"

# The same as in README and docs/tpu.md; a test compares them, and with what the index resolves.
TPU_PINS = {"tensorflow-tpu": "2.20.0", "libtpu": "0.0.14", "tf-keras": "2.20.1"}
OTHER_PACKAGES = (
    "numpy pandas 'scikit-learn>=1.3' absl-py Pillow h5py tqdm 'matplotlib>=3.8' Jinja2 psutil "
    "tensorboard"
)
# tensorflow-tpu 2.20.0 lets pip take any later libtpu. Tried on a CPU, 0.0.14, 0.0.17,
# 0.0.21, 0.0.24 and 0.0.30 load, while with 0.0.33, 0.0.36 and 0.0.52 importing TensorFlow aborts.
LAST_GOOD_LIBTPU, FIRST_BAD_LIBTPU = "0.0.30", "0.0.33"
TPU_LINES = (
    "pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'",
    "pip install --no-deps 'tf_keras==2.20.1' -e .",
    "pip install " + OTHER_PACKAGES,
)
ADDONS_LINE = "pip install --no-deps tensorflow-addons==0.23.0 'typeguard<3' packaging"
LINE = "pip install -e ."
NEEDED = (
    "numpy", "pandas", "scikit-learn", "absl-py", "pillow", "h5py", "tqdm", "matplotlib", "jinja2",
    "psutil", "tensorboard",
)  # fmt: skip

_WHEELS = (
    "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-gpu", "tf-nightly",
    "tf-nightly-tpu",
)  # fmt: skip
_TPU_WHEELS = ("tensorflow-tpu", "tf-nightly-tpu")
# TensorFlow's wheel comes first: what else is on the TPU is taken away with it.
_OTHERS_ON_TPU = ("jax", "jaxlib", "torch-xla", "libtpu-nightly")
_V6E_CHIP = "0x006f"
_GIGABYTE = 1 << 30
LEAST_MEMORY, LEAST_ROOM = 1.5 * _GIGABYTE, 2 * _GIGABYTE
CUDA_12_DRIVER = (525, 60, 13)


class Rule(NamedTuple):
    """What can be wrong.

    Attributes:
        name: for tests and for those who ask about it.
        wrong: returns what is wrong in these facts, or '' if nothing is.
        mend: returns the commands that mend it; may be empty if nothing here can.
        kind: `WRONG`, or `NOTE` for what need not be mended.
        source: who says so, if it was not seen by us.
    """

    name: str
    wrong: Callable[[Facts], str]
    mend: Callable[[Facts], list[str]]
    kind: str = WRONG
    source: str = ""


class Trouble(NamedTuple):
    """A rule that fires: its name, kind and source, what is wrong, and the commands."""

    name: str
    kind: str
    wrong: str
    commands: list[str]
    source: str


def diagnose(facts: Facts) -> list[Trouble]:
    """Returns what is wrong by `RULES`, most important first."""
    found = []
    for rule in RULES:
        wrong = rule.wrong(facts)
        if wrong:
            commands = [_with(facts, line) for line in rule.mend(facts)]
            found.append(Trouble(rule.name, rule.kind, wrong, commands, rule.source))
    return found


# Versions


def numbers(version: str) -> tuple[int, ...]:
    """Returns the release of a version: (2, 20, 0) of `2.20.0rc1`."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release.group(0).split(".")) if release else ()


def meets(version: str, wanted: str) -> bool:
    """Whether a version is within bounds such as `<1.0.0,>=0.5.1` (PEP 440, releases only)."""
    return all(_meets(version, bound) for bound in wanted.split(",") if bound)


def _meets(version: str, bound: str) -> bool:
    parts = re.match(r"(~=|==|!=|<=|>=|<|>)([\w.*!+]+)$", bound.strip())
    if not parts:
        return True  # what is not understood is not complained about
    sign, text = parts.groups()
    have, want = numbers(version), numbers(text)
    length = max(len(have), len(want))
    padded = have + (0,) * (length - len(have))
    bound_to = want + (0,) * (length - len(want))
    if sign == "~=":
        return padded >= bound_to and padded[: len(want) - 1] == want[:-1]
    if text.endswith(".*"):
        return (padded[: len(want)] == want) == (sign == "==")
    return {
        "==": padded == bound_to, "!=": padded != bound_to, "<=": padded <= bound_to,
        ">=": padded >= bound_to, "<": padded < bound_to, ">": padded > bound_to,
    }[sign]  # fmt: skip


# What kind of place it is


def packages(facts: Facts) -> dict[str, str]:
    """Returns the versions of the installed packages that matter."""
    return facts.get("packages") or {}


def variables(facts: Facts) -> dict[str, str]:
    """Returns the variables that matter."""
    return facts.get("variables") or {}


def wheels(facts: Facts) -> list[str]:
    """Returns the packages that bring TensorFlow itself."""
    return [name for name in _WHEELS if name in packages(facts)]


def on_tpu(facts: Facts) -> bool:
    """Whether this machine has a TPU, or says so.

    `/dev/vfio` alone is no TPU: virtual machines hand other devices on by it.
    """
    there = facts.get("devices") or {}
    said = variables(facts)
    return bool(
        there.get("accel")
        or there.get("chips")
        or said.get("ISTPUVM") == "1"
        or said.get("TPU_ACCELERATOR_TYPE")
        or said.get("COLAB_TPU_ADDR")
        or (facts.get("tpu") or {}).get("cores")
    )


def on_kaggle(facts: Facts) -> bool:
    """Whether this is a notebook of Kaggle."""
    marks = facts.get("marks") or []
    return "KAGGLE_KERNEL_RUN_TYPE" in variables(facts) or "/kaggle/input" in marks


def on_colab(facts: Facts) -> bool:
    """Whether this is a notebook of Colab."""
    return "COLAB_RELEASE_TAG" in variables(facts)


def place(facts: Facts) -> str:
    """Returns where this is, in words."""
    there = facts.get("devices") or {}
    host = "Kaggle" if on_kaggle(facts) else "Colab" if on_colab(facts) else "a machine"
    if on_tpu(facts):
        return host + " with a TPU"
    if there.get("nvidia") or (facts.get("gpus") or {}).get("names"):
        return host + " with a GPU"
    return host + " without a TPU or GPU"


def python(facts: Facts) -> tuple[int, ...]:
    """Returns Python's version as numbers."""
    return numbers((facts.get("python") or {}).get("version", ""))


def imported(facts: Facts) -> dict[str, Any]:
    """Returns what importing TensorFlow in a child process came to; {} if it was not tried."""
    return facts.get("tensorflow") or {}


# Commands


def _with(facts: Facts, line: str) -> str:
    """A line for the very Python that was looked at: `pip` alone may be another's."""
    executable = (facts.get("python") or {}).get("executable") or "python"
    return executable + " -m " + line if line.startswith("pip ") else line


def install(facts: Facts) -> list[str]:
    """Returns the lines that install everything here, after taking away what collides.

    On Google's images of 2.18.0 TensorFlow is left as it is.
    """
    if _python(facts):
        return _other_python(facts)
    if not on_tpu(facts):
        return [*_without_others(facts), LINE]
    if wheels(facts) == ["tensorflow-tpu"] and not _fails(packages(facts)["tensorflow-tpu"]):
        version = numbers(packages(facts)["tensorflow-tpu"])
        if version[:2] != (2, 20):
            keras = "pip install --no-deps 'tf_keras=={}.{}.*' -e .".format(*version[:2])
            return [*_uninstall(facts, _OTHERS_ON_TPU), keras, TPU_LINES[2]]
    return _uninstall(facts, _must_go(facts)) + list(TPU_LINES)


def _must_go(facts: Facts) -> list[str]:
    """What collides on a TPU. Of two wheels over each other both go, as they share their files."""
    there = wheels(facts)
    good = there if there == ["tensorflow-tpu"] else []
    return [name for name in there if name not in good] + list(_OTHERS_ON_TPU)


def _without_others(facts: Facts) -> list[str]:
    there = wheels(facts)
    return _uninstall(facts, there) if len(there) > 1 else []


def _uninstall(facts: Facts, names: Any) -> list[str]:
    there = [name for name in names if name in packages(facts)]
    return ["pip uninstall -y " + " ".join(there)] if there else []


def _fails(version: str) -> bool:
    """2.19, by what others report."""
    return numbers(version)[:2] == (2, 19)


def _another_run_folder(facts: Facts) -> list[str]:
    folder = "/kaggle/working/run" if on_kaggle(facts) else "FOLDER"
    return [f"python scripts/train.py --tpu=local --run_dir={folder} --flagfile=..."]


# The rules, each as what is wrong; what mends it is in the table below


def _python(facts: Facts) -> str:
    have = python(facts)[:2]
    if have and have < (3, 10):
        return "Python is {}.{}; 3.10 or later is needed.".format(*have)
    if have >= (3, 14):
        return "Python is {}.{}, for which TensorFlow before 2.22 has no wheel.".format(*have)
    return ""


def _is_2_18(facts: Facts) -> bool:
    return wheels(facts) == ["tensorflow-tpu"] and numbers(packages(facts)["tensorflow-tpu"]) < (
        2,
        19,
    )


def _other_python(facts: Facts) -> list[str]:
    lines = TPU_LINES if on_tpu(facts) else (LINE,)
    return ["python3.11 -m venv .venv", *(".venv/bin/" + line for line in lines)]


def _several(facts: Facts) -> str:
    there = wheels(facts)
    if len(there) < 2:
        return ""
    named = " and ".join(f"{name} {packages(facts)[name]}" for name in there)
    return named + " are installed over each other: they share their files."


def _none(facts: Facts) -> str:
    return "" if wheels(facts) else "TensorFlow is not installed."


def _no_operations(facts: Facts) -> str:
    there = wheels(facts)
    if not there or not on_tpu(facts):
        return ""
    without = [name for name in there if name not in _TPU_WHEELS]
    kernels = imported(facts).get("tpu_kernels")
    if kernels or (kernels is None and not without):
        return ""
    name = (without or there)[0]
    return (
        f"{name} {packages(facts)[name]} has no TPU operations, so there is 'no TPU found': on a "
        "TPU it must be tensorflow-tpu."
    )


def _others_on_tpu(facts: Facts) -> str:
    there = [name for name in _OTHERS_ON_TPU if name in packages(facts)]
    if not on_tpu(facts) or not there:
        return ""
    named = ", ".join(f"{name} {packages(facts)[name]}" for name in there)
    return named + ": whoever of them is imported takes libtpu, and TensorFlow finds no TPU."


def _wheel_without_tpu(facts: Facts) -> str:
    if on_tpu(facts) or not any(name in _TPU_WHEELS for name in wheels(facts)):
        return ""
    return (
        "tensorflow-tpu is installed, but there is no TPU: it cannot compile for a CPU, which "
        "augmentation on the host needs (or give --augment_on=device)."
    )


def _failing(facts: Facts) -> str:
    version = packages(facts).get("tensorflow-tpu", "")
    if on_tpu(facts) and version and _fails(version):
        return f"tensorflow-tpu {version}: others report that it cannot start the TPU."
    return ""


def _no_libtpu(facts: Facts) -> str:
    if "tensorflow-tpu" not in packages(facts) or not on_tpu(facts):
        return ""
    there = facts.get("library")
    if there and not there["exists"]:
        return "TPU_LIBRARY_PATH={}: no such file.".format(there["path"])
    return "" if there or "libtpu" in packages(facts) else "libtpu is not installed."


def _libtpu_lines(facts: Facts) -> list[str]:
    if (facts.get("library") or {}).get("exists") is False:
        return ["unset TPU_LIBRARY_PATH"]
    if _is_2_18(facts):
        return [_google_line(packages(facts)["tensorflow-tpu"])]
    return [TPU_LINES[0]]


def _libtpu_too_new(facts: Facts) -> str:
    have = packages(facts)
    if numbers(have.get("tensorflow-tpu", ""))[:2] != (2, 20) or "libtpu" not in have:
        return ""
    if numbers(have["libtpu"]) < numbers(FIRST_BAD_LIBTPU):
        return ""
    return (
        f"libtpu {have['libtpu']} is too new for tensorflow-tpu {have['tensorflow-tpu']}: "
        f"importing TensorFlow aborts ('... not available in this library'). "
        f"{TPU_PINS['libtpu']} to {LAST_GOOD_LIBTPU} load."
    )


def _google_line(version: str) -> str:
    page = "https://storage.googleapis.com/libtpu-tf-releases/index.html"
    return f"pip install tensorflow-tpu=={version} -f {page}"


def _broken_bounds(facts: Facts) -> list[tuple[str, str, str]]:
    """(who, whom, bounds) for each package that is not what the wheel wants."""
    have = packages(facts)
    return [
        (who, whom, bound)
        for who, bounds in sorted((facts.get("bounds") or {}).items())
        for whom, bound in sorted(bounds.items())
        if whom in have and not meets(have[whom], bound)
    ]


def _bounds(facts: Facts) -> str:
    have = packages(facts)
    named = [
        "{} {} wants {} {}, and {} is installed".format(
            who, have.get(who, ""), whom, bound, have[whom]
        )
        for who, whom, bound in _broken_bounds(facts)
    ]
    return "; ".join(named) + "." if named else ""


def _bounds_lines(facts: Facts) -> list[str]:
    lines = []
    if any(whom == "libtpu" for _, whom, _ in _broken_bounds(facts)):
        lines += _libtpu_lines(facts)
    wanted = [f"'{whom}{b}'" for _, whom, b in _broken_bounds(facts) if whom != "libtpu"]
    return lines + (["pip install " + " ".join(wanted)] if wanted else [])


def _version(facts: Facts) -> str:
    for name in wheels(facts):
        if not meets(packages(facts)[name], ">=2.15.1,<2.22"):
            return f"{name} is {packages(facts)[name]}; flowers_tpu takes 2.15.1 to 2.21."
    return ""


def _version_lines(facts: Facts) -> list[str]:
    if on_tpu(facts):
        return _uninstall(facts, _must_go(facts)) + list(TPU_LINES)
    (name, *_) = wheels(facts)
    return [f"pip install '{name}>=2.15.1,<2.22' 'tf_keras>=2.15.1,<2.22'"]


def _keras(facts: Facts) -> str:
    have = packages(facts)
    if not wheels(facts):
        return ""
    name = wheels(facts)[0]
    version = numbers(have[name])
    if version[:2] < (2, 16) and numbers(have.get("keras", "2"))[:1] == (2,):
        return ""
    if "tf-keras" not in have:
        keras = (
            "Keras {} is not Keras 2".format(have["keras"])
            if "keras" in have
            else "Keras 2 is needed"
        )
        return f"tf_keras is missing: {keras}, and from TensorFlow 2.16 on Keras 2 is tf_keras."
    if numbers(have["tf-keras"])[:2] != version[:2]:
        return "tf_keras {} does not belong to {} {}.".format(have["tf-keras"], name, have[name])
    return ""


def _keras_lines(facts: Facts) -> list[str]:
    wheel_goes = wheels(facts) != ["tensorflow-tpu"] or _failing(facts)
    if on_tpu(facts) and (wheel_goes or "flowers-tpu" not in packages(facts)):
        return install(facts)
    # Without the version, pip would take the newest, and TensorFlow with it.
    version = numbers(packages(facts)[wheels(facts)[0]])[:2]
    return ["pip install --no-deps 'tf_keras=={}.{}.*'".format(*version)]


def _import(facts: Facts) -> str:
    error = imported(facts).get("error")
    return f"TensorFlow cannot be imported: {error}" if error else ""


def _import_lines(facts: Facts) -> list[str]:
    (name, *_) = wheels(facts)
    version = packages(facts)[name]
    return [f"pip install --force-reinstall '{name}=={version}'"]


def _imported_first(facts: Facts) -> str:
    modules = facts.get("modules") or []
    chosen = variables(facts).get("TF_USE_LEGACY_KERAS") == "1"
    old = wheels(facts) and numbers(packages(facts)[wheels(facts)[0]])[:2] < (2, 16)
    if "tensorflow" not in modules or chosen or old:
        return ""
    return (
        "TensorFlow was imported in this process before Keras 2 was chosen: import flowers_tpu "
        "first, after restarting the kernel."
    )


def _missing(facts: Facts) -> str:
    absent = [name for name in NEEDED if name not in packages(facts)]
    if "flowers-tpu" not in packages(facts):
        absent.insert(0, "flowers_tpu itself")
    return "Not installed: {}.".format(", ".join(absent)) if absent else ""


def _no_nodes(facts: Facts) -> str:
    there = facts.get("devices")
    if not there or not on_tpu(facts) or there["accel"] or there["vfio"]:
        return ""
    if there.get("chips"):
        return "{} TPU chips are on the bus, but no driver has them.".format(len(there["chips"]))
    said = [n for n in ("ISTPUVM", "TPU_ACCELERATOR_TYPE") if variables(facts).get(n)]
    said = [f"{name}={variables(facts)[name]}" for name in said] or ["a variable"]
    return (
        "{} says that there is a TPU, but neither /dev/accel* nor /dev/vfio/* is here: this "
        "session or container was not given one.".format(" and ".join(said))
    )


def _nodes_lines(facts: Facts) -> list[str]:
    if (facts.get("devices") or {}).get("chips"):
        return ["sudo reboot"]
    if on_kaggle(facts):
        return ["# Settings > Accelerator > TPU v5e-8, then restart the session"]
    if on_colab(facts):
        return ["# Runtime > Change runtime type > a TPU"]
    return ["docker run --privileged --net=host ...  # of the container that this runs in"]


def _refused(facts: Facts) -> str:
    nodes = (facts.get("devices") or {}).get("refused") or []
    return (
        "{} may not be opened by this user.".format(", ".join(nodes))
        if nodes and on_tpu(facts)
        else ""
    )


def _held(facts: Facts) -> str:
    holders = (facts.get("devices") or {}).get("holders") or []
    if not holders or not on_tpu(facts):
        return ""
    named = ", ".join("{} (process {})".format(holder["name"], holder["pid"]) for holder in holders)
    return f"The TPU is taken by {named}; one process can have it at a time."


def _held_lines(facts: Facts) -> list[str]:
    return ["kill " + " ".join(str(holder["pid"]) for holder in facts["devices"]["holders"])]


def _not_loaded(facts: Facts) -> str:
    if on_tpu(facts) and variables(facts).get("TPU_LOAD_LIBRARY") == "0":
        return "TPU_LOAD_LIBRARY=0 hides this machine's own TPU; it is for driving others by name."
    return ""


def _workers(facts: Facts) -> str:
    try:
        cluster = json.loads(variables(facts).get("TF_CONFIG") or "{}").get("cluster", {})
        count = len(cluster.get("chief", [])) + len(cluster.get("worker", []))
    except (ValueError, AttributeError, TypeError):
        return "TF_CONFIG is not a JSON object."
    if count < 2:
        return ""
    return f"TF_CONFIG names {count} workers: scripts/train.py waits for all, others refuse it."


def _nvidia(facts: Facts) -> bool:
    there = facts.get("gpus") or {}
    return bool(there.get("names") or (facts.get("devices") or {}).get("nvidia"))


def _gpu_driver(facts: Facts) -> str:
    there = facts.get("gpus") or {}
    if not _nvidia(facts):
        return ""
    if there.get("error"):
        return "The GPU's driver does not answer: {}.".format(there["error"])
    driver = numbers(there.get("driver") or "")
    if driver and driver < CUDA_12_DRIVER:
        return "The GPU's driver is {}; CUDA 12 wants 525.60.13 or later.".format(there["driver"])
    return ""


def _gpu_unseen(facts: Facts) -> str:
    found = imported(facts)
    if not _nvidia(facts) or "gpus" not in found or found["gpus"]:
        return ""
    if variables(facts).get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES={} hides the GPUs.".format(
            variables(facts)["CUDA_VISIBLE_DEVICES"]
        )
    (name, *_) = wheels(facts) or ["TensorFlow"]
    reason = "CUDA's libraries are missing" if found.get("built_with_cuda") else "it has no CUDA"
    return f"{name} sees no GPU, though there is one: {reason}."


def _gpu_lines(facts: Facts) -> list[str]:
    if variables(facts).get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ["unset CUDA_VISIBLE_DEVICES"]
    (name, *_) = wheels(facts)
    version = packages(facts)[name]
    gone = _uninstall(facts, [] if name == "tensorflow" else [name])
    return [*gone, f"pip install 'tensorflow[and-cuda]=={version}'"]


def _unwritable(facts: Facts) -> str:
    there = facts.get("run_folder") or {}
    return (
        "{} cannot be written to.".format(there["path"]) if there.get("writable") is False else ""
    )


def _full(facts: Facts) -> str:
    there = facts.get("run_folder") or {}
    free = there.get("free")
    if free is None or free >= LEAST_ROOM:
        return ""
    return "{} has {:.1f} GB free; checkpoints of a large network want {:.0f} GB.".format(
        there["path"], free / _GIGABYTE, LEAST_ROOM / _GIGABYTE,
    )  # fmt: skip


def usable_memory(facts: Facts) -> int | None:
    """Returns the bytes that the machine or its container allows, if known."""
    there = facts.get("memory") or {}
    known = [there[name] for name in ("total", "limit") if there.get(name)]
    return min(known) if known else None


def _memory(facts: Facts) -> str:
    have = usable_memory(facts)
    if have is None or have >= LEAST_MEMORY:
        return ""
    return "%.1f GB of memory; the quickstart alone needs 1.2 GB." % (have / _GIGABYTE)


def _tpu_failed(facts: Facts) -> str:
    error = (facts.get("tpu") or {}).get("error")
    return f"The TPU did not start: {error}" if error else ""


def _v6e(facts: Facts) -> str:
    kind = variables(facts).get("TPU_ACCELERATOR_TYPE", "")
    if kind.startswith("v6e") or _V6E_CHIP in ((facts.get("devices") or {}).get("chips") or []):
        return "This is a v6e; no report is known to us of TensorFlow at work on one."
    return ""


def _untried(facts: Facts) -> str:
    have = packages(facts)
    if not on_tpu(facts) or numbers(have.get("tensorflow-tpu", ""))[:2] != (2, 20):
        return ""
    return "No report is known to us of tensorflow-tpu 2.20 at work on a TPU, with any libtpu."


def _no_accelerator(facts: Facts) -> str:
    if on_tpu(facts) or _nvidia(facts):
        return ""
    return "No TPU and no GPU: all runs on the CPU, with one line of warning."


def _addons(facts: Facts) -> str:
    if "tensorflow-addons" in packages(facts) or not wheels(facts):
        return ""
    if python(facts)[:2] >= (3, 12):
        return (
            "TensorFlow Addons has no wheel for Python 3.12 and later: --optimizer=lamb, radam and "
            "novograd are refused, all else works."
        )
    return "TensorFlow Addons is missing; only --optimizer=lamb, radam and novograd want it."


def _addons_lines(facts: Facts) -> list[str]:
    return [] if python(facts)[:2] >= (3, 12) else [ADDONS_LINE]


def _nothing(_: Facts) -> list[str]:
    return []


KAGGLE_1370 = "https://github.com/Kaggle/docker-python/issues/1370"
KAGGLE_REQUIREMENTS = "https://github.com/Kaggle/docker-python/blob/main/tpu/requirements.in"

RULES = (
    Rule("python", _python, _other_python),
    Rule("two-tensorflows", _several, install),
    Rule("no-tensorflow", _none, install),
    Rule("no-tpu-operations", _no_operations, install),
    Rule(
        "tpu-wheel-without-tpu", _wheel_without_tpu,
        lambda facts: [*_uninstall(facts, wheels(facts)), LINE],
    ),
    Rule("tpu-taken-by-packages", _others_on_tpu, install, source=KAGGLE_1370),
    Rule(
        "tensorflow-2.19", _failing, install,
        source="https://github.com/tensorflow/tensorflow/issues/93618",
    ),
    Rule("tensorflow-version", _version, _version_lines),
    Rule("no-libtpu", _no_libtpu, _libtpu_lines),
    Rule("libtpu-too-new", _libtpu_too_new, lambda _: [TPU_LINES[0]]),
    Rule("bounds", _bounds, _bounds_lines),
    Rule("keras-2", _keras, _keras_lines),
    Rule("import", _import, _import_lines),
    Rule("imported-first", _imported_first, lambda _: ["export TF_USE_LEGACY_KERAS=1"]),
    Rule("not-installed", _missing, install),
    Rule(
        "no-device", _no_nodes, _nodes_lines,
        source="https://github.com/Kaggle/kaggle-cli/issues/1197",
    ),
    Rule(
        "device-refused", _refused,
        lambda facts: ["sudo chmod a+rw " + " ".join(facts["devices"]["refused"])],
    ),
    Rule("tpu-held", _held, _held_lines),
    Rule("tpu-hidden", _not_loaded, lambda _: ["unset TPU_LOAD_LIBRARY"]),
    Rule("several-workers", _workers, lambda _: ["unset TF_CONFIG"]),
    Rule("gpu-driver", _gpu_driver, lambda _: ["sudo ubuntu-drivers install && sudo reboot"]),
    Rule("gpu-unseen", _gpu_unseen, _gpu_lines),
    Rule("run-folder", _unwritable, _another_run_folder),
    Rule("room", _full, _another_run_folder),
    Rule(
        "memory", _memory,
        lambda _: ["python scripts/train.py --batch_size_per_replica=4 --flagfile=..."],
    ),
    Rule("tpu-failed", _tpu_failed, _nothing),
    Rule("v6e", _v6e, _nothing, NOTE),
    Rule("untried-pair", _untried, _nothing, NOTE, source=KAGGLE_REQUIREMENTS),
    Rule("no-accelerator", _no_accelerator, _nothing, NOTE),
    Rule("addons", _addons, _addons_lines, NOTE),
)  # fmt: skip
