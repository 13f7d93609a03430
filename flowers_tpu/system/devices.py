"""From the devices asked for, and those there are, to a strategy and the facts about them."""

import dataclasses
import signal
import socket

import tensorflow as tf
from absl import logging
from tensorflow.python.client import device_lib

from flowers_tpu.system import workers
from flowers_tpu.system.errors import RequestError, first_line
from flowers_tpu.system.facts import Facts, Listed, facts_of
from flowers_tpu.system.options import DeviceOptions
from flowers_tpu.system.workers import Cluster

TPU_SECONDS_TO_ANSWER = 10  # a remote TPU that does not accept a connection by then is not there


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a run computes on.

    Attributes:
        strategy: runs the steps.
        facts: of the devices.
    """

    strategy: tf.distribute.Strategy
    facts: Facts


def choose_devices(options: DeviceOptions) -> Devices:
    """Chooses the TPU asked for, else the GPUs there are, else the CPU.

    Must come before any other use of TensorFlow's devices: the CPU can only be split up to then.

    Raises:
        RequestError: no TPU was found although required, the CPU cannot be split any more, or
            several workers are named and have not come together; or the memory of GPUs is taken.
    """
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    cluster = workers.this_cluster()
    if not cluster and workers.find_cluster(options):
        raise RequestError(
            "several workers are named (by --workers, TF_CONFIG or Slurm's variables), but only "
            "scripts/train.py takes several; unset them, or run this on one"
        )
    if options.memory_growth:
        _let_memory_grow()
    if cluster:
        return _with_others(cluster)
    if options.replicas:
        _split_cpu(options.replicas)
    return _tpu(options) if options.tpu else _without_tpu(options.replicas)


def _with_others(cluster: Cluster) -> Devices:
    """Starts TensorFlow's engine for several workers, all of whom have come."""
    spec = tf.train.ClusterSpec({"worker": cluster.addresses})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, task_type="worker", task_id=cluster.index, rpc_layer="grpc"
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    # It has put a handler of its own in the place of SIGTERM's, which does not end the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    facts = facts_of(_listed())
    facts = dataclasses.replace(facts, replicas=strategy.num_replicas_in_sync, workers=cluster.size)
    return Devices(strategy, facts)


def one_cpu_replica(facts: Facts | None = None) -> Devices:
    """Returns the default strategy, with the facts of one CPU or of what it stands in for."""
    return Devices(tf.distribute.get_strategy(), facts or Facts("CPU"))


def _tpu(options: DeviceOptions) -> Devices:
    try:
        strategy = _connect_to_tpu(options.tpu)
    except _NO_TPU as error:
        fallback = _without_tpu(options.replicas)
        reason, hint = _reason(error), _hint(options.tpu)
        if options.require_tpu:
            raise RequestError(
                f"--tpu={options.tpu}: no TPU found ({reason}). {hint} Without --require_tpu this "
                f"would run on {fallback.facts}."
            ) from error
        logging.warning(
            "--tpu=%s: no TPU found (%s); running on %s instead. %s",
            options.tpu, reason, fallback.facts, hint,
        )  # fmt: skip
        return fallback
    facts = facts_of(
        (), tpu_replicas=strategy.num_replicas_in_sync, hosts=strategy.extended.num_hosts
    )
    return Devices(strategy, facts)


# `TPUClusterResolver('local')` succeeds anywhere; without a TPU the initialization then raises
# NotFoundError. Names are looked up on the network, by libraries that raise errors of their own.
_NO_TPU = (ValueError, RuntimeError, OSError, ImportError, tf.errors.OpError)


def _connect_to_tpu(tpu: str) -> tf.distribute.Strategy:
    if tpu.startswith("grpc://"):
        _check_address(tpu)
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
    if tpu != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def _reason(error: BaseException) -> str:
    """The gist of an error; TensorFlow's own go on about where it happened."""
    reason = first_line(error)
    return reason.partition(". ")[0] if isinstance(error, tf.errors.OpError) else reason


def _hint(tpu: str) -> str:
    """What is mostly the matter where such a TPU is not found."""
    if tpu == "local":
        return (
            "On a TPU VM, TensorFlow must be the package `tensorflow-tpu`; "
            "`python scripts/doctor.py` says what is wrong."
        )
    if tpu.startswith("grpc://"):
        return "An address is reached from the TPU's own network only; see the README."
    return (
        "A name is looked up from a machine on Google Cloud in the TPU's zone, and needs "
        "`pip install cloud-tpu-client`; see the README."
    )


def _check_address(tpu: str) -> None:
    """Raises OSError where nobody listens; TensorFlow itself would wait without an end."""
    host, _, port = tpu.removeprefix("grpc://").partition(":")
    if not (host and port.isdigit()):
        raise RequestError(f"--tpu={tpu}: expected grpc://HOST:PORT, like grpc://10.0.0.2:8470")
    socket.create_connection((host, int(port)), timeout=TPU_SECONDS_TO_ANSWER).close()


def _without_tpu(cpu_replicas: int) -> Devices:
    facts = facts_of(_listed(), cpu_replicas=cpu_replicas)
    if cpu_replicas:
        names = [device.name for device in tf.config.list_logical_devices("CPU")[:cpu_replicas]]
        # Without an explicit reduction, strategies of several sizes abort each other.
        strategy = tf.distribute.MirroredStrategy(
            names, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
    elif facts.kind == "GPU":
        # Also for one, as the default strategy copies no batch to it before its step.
        strategy = tf.distribute.MirroredStrategy()
    else:
        # One CPU needs no distribution.
        strategy = tf.distribute.get_strategy()
    return Devices(strategy, facts)


def _listed() -> list[Listed]:
    """Returns the devices of this process; asking for them starts them."""
    tf.config.list_logical_devices()
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    local = device_lib.list_local_devices() if gpus else []
    memory = [device.memory_limit for device in local if device.device_type == "GPU"]
    memory += [None] * (len(gpus) - len(memory))
    return [Listed("CPU")] + [
        Listed("GPU", detail.get("compute_capability"), limit)
        for detail, limit in zip(details, memory, strict=False)
    ]


def _let_memory_grow() -> None:
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError as error:
            raise RequestError(
                f"--memory_growth: TensorFlow has taken the memory of {gpu.name} already "
                f"({first_line(error)})"
            ) from error


def _split_cpu(replicas: int) -> None:
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    configuration = [tf.config.LogicalDeviceConfiguration()] * replicas
    try:
        tf.config.set_logical_device_configuration(cpu, configuration)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < replicas:
            raise RequestError(
                f"--replicas={replicas}: TensorFlow was used before the CPU could be split "
                f"({first_line(error)})"
            ) from error
