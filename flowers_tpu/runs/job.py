"""A run's job: one process, or several workers that train it together and do the same at each step.

What they have to be alike in is compared before TensorFlow's engine starts, and their data right
after they are read: reading starts TensorFlow, which then can be one worker's of several no more.
What a clock or a signal decides is decided by one, or by any, at the boundary of two calls.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

import flowers_tpu
from flowers_tpu.runs import data as data_lib
from flowers_tpu.runs.boundary import AsksToStop
from flowers_tpu.runs.data import Data
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files, folders, terminal, workers
from flowers_tpu.system.errors import RequestError, RunError, StoppedError
from flowers_tpu.system.workers import Cluster, Exchange
from flowers_tpu.training.calls import Decision

# The flags in which workers may differ: which one it is, and where its machine has files.
_OWN = ("worker_index", "workers", "workers_seconds", "data_dir", "classes", "weights", "backbone")
_SECONDS_TO_SEE = 10.0  # what another machine has written, on a shared file system
_STOPS = ("", "time", "signal")


class Job:
    """One process: there is nobody to agree with."""

    def agree_on_data(self, data: Data) -> None:
        """Compares the data of all workers, which is the last that they talk about.

        Raises:
            RequestError: theirs are others.
        """

    def starts(self, strategy: tf.distribute.Strategy) -> None:
        """Prepares to agree by the engine of a strategy."""

    def wait(self) -> None:
        """Waits until all workers are here."""

    def decision(self, own: Decision) -> Decision:
        """Returns what all do, of what each would."""
        return own

    def signals(self, own: AsksToStop) -> AsksToStop:
        """Returns what asks all to stop if any is asked."""
        return own


class SeveralWorkers(Job):
    """The workers of a job.

    Args:
        cluster: the workers.
        exchange: their talk.
    """

    def __init__(self, cluster: Cluster, exchange: Exchange):
        self._cluster, self._exchange = cluster, exchange

    def agree_on_data(self, data: Data) -> None:
        """See `Job`."""
        record = data_lib.record_of(data)
        facts = {"classes": _digest(record["class_names"])}
        for name, split in record["splits"].items():
            facts[name] = f"{split['photos']:,} photos, {_digest(split)}"
        self._exchange.must_agree(
            facts, "Give all of them the same data, by --data_dir on each machine."
        )
        self._exchange.close()

    def starts(self, strategy: tf.distribute.Strategy) -> None:
        """See `Job`."""

        def of_replica(values: tf.Tensor) -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(
                tf.identity(values)[tf.newaxis], axis=0
            )

        @tf.function(input_signature=[tf.TensorSpec([3], tf.float32)])
        def gather(values):
            per_replica = strategy.run(of_replica, args=(values,))
            return strategy.experimental_local_results(per_replica)[0]

        self._gather = gather

    def wait(self) -> None:
        """See `Job`."""
        self._of_all(0, 0, 0)

    def decision(self, own: Decision) -> Decision:
        """The chief's clock decides, and anybody's signal."""
        rows = self._of_all(own.steps, own.save, _STOPS.index(own.stop))
        steps, save, stop = rows[0]
        told = np.flatnonzero(rows[:, 2] == _STOPS.index("signal"))
        if told.size:
            stop = _STOPS.index("signal")
            if own.stop != "signal":
                index = int(told[0]) * self._cluster.size // len(rows)
                terminal.say(f"{self._cluster.name(index)} was told to end: all save and end")
        why = _STOPS[int(stop)]
        return Decision(int(steps), bool(save) or bool(why), why)

    def signals(self, own: AsksToStop) -> AsksToStop:
        """See `Job`."""
        return _SignalsOfAll(self, own)

    def any_(self, own: bool) -> bool:
        """Returns whether something is so for any worker."""
        return bool(self._of_all(own, 0, 0)[:, 0].any())

    def _of_all(self, *values: float) -> np.ndarray:
        """What each replica's worker says, `[replicas, 3]`, the chief's first."""
        return self._gather(tf.constant(values, tf.float32)).numpy()


class _SignalsOfAll:
    """Asks all to stop as soon as any is asked to, where all ask at the same place."""

    def __init__(self, job: SeveralWorkers, own: AsksToStop):
        self._job, self._own = job, own

    @property
    def stop_requested(self) -> bool:
        """Whether this worker is asked to."""
        return self._own.stop_requested

    def check(self) -> None:
        """Raises StoppedError once any is; all workers call this at the same place."""
        if self._job.any_(self._own.stop_requested):
            raise StoppedError("stopped; the same command continues")


@contextlib.contextmanager
def joined(spec: Spec) -> Iterator[Job]:
    """Brings the workers of a job together, if there are several.

    Raises:
        RequestError: some do not come, or are not like the chief.
        RunError: within, if another worker is gone.
    """
    cluster = workers.find_cluster(spec.devices)
    if cluster is None:
        yield Job()
        return
    exchange = Exchange(cluster, spec.devices.workers_seconds)
    _compare(spec, cluster, exchange)
    workers.join(cluster)
    try:
        yield SeveralWorkers(cluster, exchange)
    except tf.errors.OpError as error:
        if gone := _who_is_gone(cluster, str(error)):
            raise RunError(
                f"{gone} is gone, and without it nothing can go on; the same command on all "
                "workers continues from the last checkpoint"
            ) from error
        _leave_unless_named(error)
        raise
    except Exception as error:
        _leave_unless_named(error)
        raise


def _leave_unless_named(error: Exception) -> None:
    """Ends with the traceback of what has no words yet: an orderly end may wait for others."""
    if not isinstance(error, RequestError | RunError | StoppedError) and not files.is_trouble(
        error
    ):
        traceback.print_exc()
        workers.leave(RunError.exit_code)


def _compare(spec: Spec, cluster: Cluster, exchange: Exchange) -> None:
    """Compares flags, versions and the run's folder, by a token in it that the chief writes."""
    folder = RunFolder(spec.run.run_dir)
    if cluster.is_chief:
        folder.check_usable()
        files.make_dirs(folder.path)
        files.write_atomically(folder.file(folders.TOKEN), f"{time.time_ns()} {os.getpid()}")
    token = exchange.told_by_chief(
        files.read_text(folder.file(folders.TOKEN)) if cluster.is_chief else None
    )
    flags = {f"--{name}": value for name, value in spec.flat().items() if name not in _OWN}
    seen = _sees(folder, token)
    exchange.must_agree(
        {
            "flowers_tpu": flowers_tpu.__version__,
            "TensorFlow": tf.__version__,
            "Python": sys.version.split()[0],
            f"the chief's --run_dir={spec.run.run_dir}": seen,
            **flags,
        },
        "Start the same command with the same packages on all, and give them a --run_dir that all "
        "share.",
    )
    if cluster.is_chief:
        files.remove(folder.file(folders.TOKEN))


def _sees(folder: RunFolder, token: str) -> bool:
    """Whether the token is there, now or soon."""
    deadline = time.monotonic() + _SECONDS_TO_SEE
    while True:
        if folder.has(folders.TOKEN) and files.read_text(folder.file(folders.TOKEN)) == token:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _who_is_gone(cluster: Cluster, error: str) -> str:
    """The other workers that an error of the engine names; '' if it is of another kind."""
    named = {int(n) for n in re.findall(r"/job:worker/replica:\d+/task:(\d+)", error)}
    others = sorted(index for index in named - {cluster.index} if index < cluster.size)
    if others:
        return " and ".join(cluster.name(index) for index in others)
    of_engine = re.search(r"[Cc]ollective|heartbeat|coordination|Connection|Socket closed", error)
    return "another worker" if of_engine else ""


def _digest(value: Any) -> str:
    """A short fingerprint of what is JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
