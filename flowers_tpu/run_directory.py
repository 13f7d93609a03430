"""A run's folder: what is in it, whether it may be continued, and what it says of itself."""

import dataclasses
import fcntl
import io
import json
import os
import platform
import subprocess
import sys
import time
from typing import TextIO

import pandas as pd
import tensorflow as tf

import flowers_tpu
from flowers_tpu import config as config_lib
from flowers_tpu import files
from flowers_tpu.config import Config
from flowers_tpu.errors import RequestError

_CONFIG = "config.json"
_LOCK = "lock"

# What a process that is killed while it begins a run may leave.
_BEFORE_CONFIG = {"flags.txt", "environment.json", _LOCK}


class RunDirectory:
    """A run's folder; paths in it, and its files written whole or not at all."""

    def __init__(self, path: str):
        self.path = path
        self._lock: TextIO | None = None

    def file(self, *names: str) -> str:
        """The path of a file in the folder."""
        return files.join(self.path, *names)

    @property
    def checkpoints(self) -> str:
        """Where `latest/` and `best/` are."""
        return self.file("checkpoints")

    def has(self, name: str) -> bool:
        """Whether a file of that name is there."""
        return tf.io.gfile.exists(self.file(name))

    def write_table(self, name: str, table: pd.DataFrame, *, index: bool = False) -> None:
        """Writes a CSV; floats are written so that reading gives the same ones."""
        files.write_atomically(self.file(name), table.to_csv(index=index))

    def read_table(self, name: str) -> pd.DataFrame:
        """Reads a CSV that `write_table` wrote."""
        return pd.read_csv(io.StringIO(files.read_text(self.file(name))))

    def write_json(self, name: str, value: dict) -> None:
        """Writes a JSON object."""
        files.write_atomically(self.file(name), json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict:
        """Reads a JSON object."""
        return json.loads(files.read_text(self.file(name)))

    def read_configs(self) -> tuple[Config, Config]:
        """Returns the flags of the run as given, and with all that was left open resolved.

        Raises:
            RequestError: the folder is not a run's, or one of a version with other flags.
        """
        if not self.is_run():
            raise RequestError(
                f"--run_dir={self.path}: no run there (it has no {_CONFIG}); "
                "scripts/train.py makes one"
            )
        saved = self.read_json(_CONFIG)
        known = {field.name for field in dataclasses.fields(Config)}
        if unknown := sorted({*saved["flags"], *saved["resolved"]} - known):
            raise RequestError(
                f"{self.file(_CONFIG)}: holds flags that this version does not know "
                f"({', '.join(f'--{name}' for name in unknown)}); use the version that made the "
                "run, which environment.json tells"
            )
        return Config(**saved["flags"]), Config(**saved["resolved"])

    def begin(self, given: Config, resolved: Config, environment: dict) -> None:
        """Makes and locks the folder of a new run; `config.json` comes last and makes it one."""
        tf.io.gfile.makedirs(self.path)
        self.lock()
        files.write_atomically(self.file("flags.txt"), resolved.to_flagfile())
        self.write_json("environment.json", environment)
        configs = {"flags": given, "resolved": resolved}
        self.write_json(_CONFIG, {n: dataclasses.asdict(c) for n, c in configs.items()})

    def lock(self) -> None:
        """Keeps other processes off the run until this one ends, however it ends.

        The operating system holds the lock, so that of a dead process is gone. On `gs://` there is
        no such thing, and nothing is locked.

        Raises:
            RequestError: another process has it.
        """
        if "://" in self.path or self._lock:
            return
        lock = open(self.file(_LOCK), "a+")  # noqa: SIM115  (open as long as the process works)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise RequestError(
                f"--run_dir={self.path}: is in use by {lock.read().strip() or 'another process'}; "
                "wait for it, stop it, or choose another folder"
            ) from error
        lock.truncate(0)
        lock.write(
            f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        )
        lock.flush()
        self._lock = lock

    def is_run(self) -> bool:
        """Whether the folder holds a run, begun at least."""
        return self.has(_CONFIG)

    def check_usable(self) -> None:
        """Raises RequestError where the folder holds something that is not a run."""
        if tf.io.gfile.exists(self.path) and not tf.io.gfile.isdir(self.path):
            raise RequestError(f"--run_dir={self.path}: is a file, not a folder")
        if tf.io.gfile.isdir(self.path) and not self.is_run():
            others = set(tf.io.gfile.listdir(self.path)) - _BEFORE_CONFIG
            if others:
                raise RequestError(
                    f"--run_dir={self.path}: holds files but no run ({sorted(others)[0]}, …); "
                    "choose another folder"
                )

    def remove(self) -> None:
        """Deletes the run, for `--overwrite`; only what is a run is ever deleted."""
        if self.is_run():
            self.lock()
            tf.io.gfile.rmtree(self.path)
            if self._lock:
                self._lock.close()
                self._lock = None


def check_same_flags(run: RunDirectory, given: Config, resolved: Config) -> None:
    """Refuses to continue a run with flags that change its results.

    A flag has changed where both what was given and what it comes to are different: a batch size
    of 16 on 2 replicas is that of 8 on 4, and the same flags on other devices are the same flags.

    Raises:
        RequestError: names every flag that changed, with both values.
    """
    given_before, resolved_before = run.read_configs()
    came_to = set(config_lib.changed_flags(resolved_before, resolved)) - {"batch_size_per_replica"}
    if "global_batch_size" in came_to:
        came_to.add("batch_size_per_replica")
    changes = [
        f"--{name} was {getattr(given_before, name)}, is {getattr(given, name)}"
        for name in config_lib.changed_flags(given_before, given)
        if name in came_to
    ]
    if changes:
        raise RequestError(
            f"--run_dir={run.path}: holds a run with other flags: {'; '.join(changes)}. "
            "Continue it with its own, choose another --run_dir, or begin anew with --overwrite"
        )


def environment(kind: str, replicas: int) -> dict:
    """Versions, devices and the commit, for `environment.json`."""
    packages = ("tensorflow", "tf_keras", "tensorflow_addons", "numpy", "pandas", "sklearn")
    return {
        "flowers_tpu": flowers_tpu.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device_kind": kind,
        "replicas": replicas,
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "command": sys.argv,
    }


def _version(name: str) -> str | None:
    module = sys.modules.get(name)
    return getattr(module, "__version__", None)


def _git_commit() -> str | None:
    """The commit of this checkout; None for an installed package or without git."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        result = subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
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


def check_output_dir(path: str) -> None:
    """Raises RequestError where --output_dir, for what is no run, is a file or holds a run."""
    if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
        raise RequestError(f"--output_dir={path}: is a file; choose a folder")
    if RunDirectory(path).is_run():
        raise RequestError(f"--output_dir={path}: holds a run; choose another folder")


def make_output_dir(path: str) -> None:
    """Makes --output_dir where it is not there; raises RequestError where it cannot be made."""
    try:
        tf.io.gfile.makedirs(path)
    except tf.errors.OpError as error:
        raise RequestError(f"--output_dir={path}: cannot be made ({error.message})") from error
