"""Several processes that train one model: who they are, and what they tell each other at the start.

Gradients and everything else that a step needs go by TensorFlow's own engine. That waits without a
word or an end for one that never comes; so before it starts, and for what has to be alike on all,
the workers talk by plain TCP, a JSON object a line: all others to the first one, the *chief*.
"""

import contextlib
import dataclasses
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from absl import logging

from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.system.options import DeviceOptions

_SECONDS_BETWEEN_TRIES = 0.2
_SECONDS_TO_ANSWER = 60.0  # of one that has come
_FIRST_PORT, _PORTS = 20_000, 20_000  # of Slurm's jobs, whose number tells which


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a job, two at least.

    Attributes:
        addresses: `host:port` of each.
        index: which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this is the one that writes, and that a person reads."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Returns what a worker is called in messages."""
        return f"worker {index} ({self.addresses[index]})"


def find_cluster(
    options: DeviceOptions, environment: Mapping[str, str] = os.environ
) -> Cluster | None:
    """Returns the workers that flags name, else `TF_CONFIG`, else Slurm; None: there is one.

    Raises:
        RequestError: they are not named so that they could be found.
    """
    if options.workers:
        addresses = tuple(part.strip() for part in options.workers.split(","))
        flag, index = f"--workers={options.workers}", options.worker_index
    elif "TF_CONFIG" in environment:
        flag = "TF_CONFIG"
        addresses, index = _of_tf_config(environment["TF_CONFIG"])
    else:
        flag = "Slurm's variables"
        addresses, index = _of_slurm(environment)
    if len(addresses) < 2:
        return None
    if options.replicas:
        raise RequestError(
            f"{flag}: names {len(addresses)} workers, of which each has one replica on its CPU; "
            "leave --replicas out"
        )
    for address in addresses:
        if not re.fullmatch(r"(\[[^\]]+\]|[^:\s]+):\d{1,5}", address):
            raise RequestError(f"{flag}: expected HOST:PORT of each worker, found {address!r}")
    if len(set(addresses)) < len(addresses):
        raise RequestError(f"{flag}: names an address twice; each worker has one of its own")
    if not 0 <= index < len(addresses):
        raise RequestError(
            f"{flag}: names {len(addresses)} workers, so --worker_index is 0 to "
            f"{len(addresses) - 1}, not {index}"
        )
    return Cluster(addresses, index)


def _of_tf_config(text: str) -> tuple[tuple[str, ...], int]:
    try:
        config = json.loads(text or "{}")
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
    except (ValueError, AttributeError) as error:
        raise RequestError(f"TF_CONFIG: expected a JSON object, found {error}") from error
    try:
        chiefs, others = (list(cluster.get(job) or []) for job in ("chief", "worker"))
        index, kind = int(task.get("index") or 0), task.get("type") or "worker"
    except (AttributeError, TypeError, ValueError) as error:
        raise RequestError(
            f"TF_CONFIG: its cluster is {json.dumps(cluster)[:100]}; expected lists of hosts by "
            'their job, such as {"worker": ["10.0.0.2:2222"]}, or unset it'
        ) from error
    if len(chiefs) + len(others) > 1 and kind not in ("chief", "worker"):
        raise RequestError(f"TF_CONFIG: there is nothing to do for a task of the type {kind!r}")
    return (*chiefs, *others), index + (len(chiefs) if kind == "worker" else 0)


def _of_slurm(environment: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
    """The tasks of a step, as `srun` starts it; none where no such step is, or it is of one task.

    TensorFlow's `SlurmClusterResolver` gives the workers of `n[9-10]` each other's address, and
    wants GPUs.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return (), 0
    try:
        hosts = slurm_hosts(environment["SLURM_STEP_NODELIST"])
        counts = slurm_counts(environment["SLURM_STEP_TASKS_PER_NODE"])
        first = _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS
        addresses = tuple(
            f"{host}:{first + place}"
            for host, count in zip(hosts, counts, strict=True)
            for place in range(count)
        )
        return addresses, int(environment["SLURM_PROCID"])
    except (KeyError, ValueError) as error:
        raise RequestError(
            f"Slurm's variables are not what srun sets ({type(error).__name__}: {error}); name the "
            "workers by --workers=HOST:PORT,… and --worker_index"
        ) from error


def slurm_hosts(text: str) -> list[str]:
    """Returns the hosts of a list such as `n[9-10,12],m03`, in order."""
    hosts = []
    for prefix, inner, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]+)\]([^,\[\]]*))?", text):
        for part in inner.split(",") if inner else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1) if first else [None]
            width = len(first)
            hosts += [
                f"{prefix}{'' if number is None else f'{number:0{width}}'}{suffix}"
                for number in numbers
            ]
    return hosts


def slurm_counts(text: str) -> list[int]:
    """Returns the tasks of each host of a list such as `2(x3),1`."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


class Exchange:
    """The talk of the workers of a job, at its start; close it when all is said.

    Args:
        cluster: the workers.
        seconds: how long to wait for all to come.

    Raises:
        RequestError: some do not come; it names them.
        RunError: in any talk, if the other end is gone.
    """

    def __init__(self, cluster: Cluster, seconds: float):
        self._cluster = cluster
        self._lines: dict[int, tuple[TextIO, TextIO]] = {}
        deadline = time.monotonic() + seconds
        if cluster.is_chief:
            self._wait_for_all(deadline, seconds)
        else:
            self._reach_chief(deadline, seconds)

    def close(self) -> None:
        """Ends the talk."""
        for lines in self._lines.values():
            for line in lines:
                with contextlib.suppress(OSError):
                    line.close()

    def must_agree(self, facts: Mapping[str, Any], advice: str) -> None:
        """Compares what has to be alike; all workers call this at the same place.

        Args:
            facts: of this worker, by name.
            advice: what to do if they differ.

        Raises:
            RequestError: on every worker, if any differs from the chief: who, and in what.
        """
        mine = json.loads(json.dumps(dict(facts)))
        differing = []
        for index, facts_there in self._gathered(mine).items():
            differing += [
                f"{self._cluster.name(index)} has {name} {there!r}, the chief {mine.get(name)!r}"
                for name, there in facts_there.items()
                if there != mine.get(name)
            ]
        verdict = self.told_by_chief("; ".join(differing))
        if verdict:
            raise RequestError(f"the workers are not alike: {verdict}. {advice}")

    def told_by_chief(self, value: Any) -> Any:
        """Gives every worker what the chief has; all workers call this at the same place."""
        if not self._cluster.is_chief:
            return self._hear(0)
        for index in self._lines:
            with contextlib.suppress(OSError):
                self._say(index, value)
        return value

    def _wait_for_all(self, deadline: float, seconds: float) -> None:
        host, _, port = self._cluster.addresses[0].rpartition(":")
        missing = set(range(1, self._cluster.size))
        try:
            both = socket.has_dualstack_ipv6()
            listener = socket.create_server(
                ("", int(port)),
                family=socket.AF_INET6 if both else socket.AF_INET,
                dualstack_ipv6=both,
                backlog=self._cluster.size,
            )
        except OSError as error:
            raise RequestError(
                f"{self._cluster.name(0)}: cannot listen on port {port} of {host} ({error}); give "
                "another port to all workers, or end what has it"
            ) from error
        with listener, terminal.bar(len(missing), "waiting for workers", "workers") as bar:
            while missing:
                listener.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    names = ", ".join(self._cluster.name(index) for index in sorted(missing))
                    self.told_by_chief({"error": f"{names} did not come within {seconds:.0f} s"})
                    raise RequestError(
                        f"{names} did not come within {seconds:.0f} s: start the same command on "
                        "every machine, each with its own --worker_index; --workers_seconds waits "
                        "longer"
                    ) from None
                index = self._welcomed(connection)
                if index in missing:
                    missing.remove(index)
                    bar.update()
        self.told_by_chief({})

    def _welcomed(self, connection: socket.socket) -> int:
        """Takes the line of a worker that has come; -1 if it is none of this job."""
        connection.settimeout(_SECONDS_TO_ANSWER)
        lines = connection.makefile("r"), connection.makefile("w")
        try:
            hello = json.loads(lines[0].readline())
            if hello["addresses"] != list(self._cluster.addresses):
                raise ValueError("of another job")
            index = int(hello["index"])
        except (OSError, ValueError, KeyError, TypeError):
            connection.close()
            return -1
        _wait_as_long_as_it_lives(connection)
        self._lines[index] = lines
        return index

    def _reach_chief(self, deadline: float, seconds: float) -> None:
        host, _, port = self._cluster.addresses[0].rpartition(":")
        while True:
            try:
                connection = socket.create_connection((host.strip("[]"), int(port)), timeout=5)
                connection.settimeout(max(1.0, deadline - time.monotonic()) + _SECONDS_TO_ANSWER)
                lines = connection.makefile("r"), connection.makefile("w")
                self._lines = {0: lines}
                self._say(
                    0,
                    {"index": self._cluster.index, "addresses": list(self._cluster.addresses)},
                )
                answer = self._hear(0)
                _wait_as_long_as_it_lives(connection)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RequestError(
                        f"{self._cluster.name(0)}, the chief, cannot be reached within "
                        f"{seconds:.0f} s ({error}): start it too, and see that its port is open "
                        "to the others; --workers_seconds waits longer"
                    ) from error
                time.sleep(_SECONDS_BETWEEN_TRIES)
        if "error" in answer:
            raise RequestError(answer["error"])

    def _gathered(self, mine: Any) -> dict[int, Any]:
        """What all others have said, for the chief; nothing for them."""
        if self._cluster.is_chief:
            return {index: self._hear(index) for index in sorted(self._lines)}
        self._say(0, mine)
        return {}

    def _say(self, index: int, value: Any) -> None:
        self._lines[index][1].write(json.dumps(value) + "\n")
        self._lines[index][1].flush()

    def _hear(self, index: int) -> Any:
        try:
            if line := self._lines[index][0].readline():
                return json.loads(line)
        except TimeoutError as error:
            raise RunError(f"{self._cluster.name(index)} does not answer") from error
        except OSError:
            pass  # its end may come as an error too
        # It may have been killed, so that all may be started again.
        raise RunError(f"{self._cluster.name(index)} has ended; its own message says why")


def _wait_as_long_as_it_lives(connection: socket.socket) -> None:
    """Reading data may take long; that the other's machine is gone is noticed within a minute."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


_joined: list[Cluster] = []  # the one of this process, if there is one
_own_files: list[None] = []  # one for each time that `own_files` is entered


def join(cluster: Cluster) -> None:
    """Makes this process one of several: only the chief writes, and speaks to a person."""
    _joined[:] = [cluster]
    if not cluster.is_chief:
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        logging.set_verbosity(logging.ERROR)


def this_cluster() -> Cluster | None:
    """Returns the workers of which this process is one; None if it is alone."""
    return _joined[0] if _joined else None


def may_write() -> bool:
    """Returns whether this process is the one that writes what the job comes to."""
    return not _joined or _joined[0].is_chief or bool(_own_files)


@contextlib.contextmanager
def own_files() -> Iterator[None]:
    """Within it any worker writes: files of its machine, which are no part of a job's results."""
    _own_files.append(None)
    try:
        yield
    finally:
        _own_files.pop()


def label() -> str:
    """Returns how messages of this process begin: with nothing, if it is alone or the chief."""
    return "" if may_write() else f"{_joined[0].name(_joined[0].index)}: "


def leave(code: int) -> None:
    """Ends a process that is one of several at once: an orderly end may wait for one that is gone.

    Does nothing in a process that is alone.
    """
    if _joined:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
