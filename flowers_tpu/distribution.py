"""From `--tpu`, `--replicas` and the devices there are to a `tf.distribute.Strategy`."""

import dataclasses
import json
import os
import socket

import tensorflow as tf
from absl import logging

from flowers_tpu.errors import RequestError, first_line

TPU_SECONDS_TO_ANSWER = 10  # a remote TPU that does not accept a connection by then is not there


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a run computes on.

    Attributes:
        strategy: runs the steps.
        kind: `TPU`, `GPU` or `CPU`.
        replicas: copies of the model that share each global batch.
    """

    strategy: tf.distribute.Strategy
    kind: str
    replicas: int


def choose_devices(*, tpu: str = "", replicas: int = 0, require_tpu: bool = False) -> Devices:
    """Chooses the TPU asked for, else the GPUs there are, else the CPU.

    Must come before any other use of TensorFlow's devices: the CPU can only be split up to then.

    Args:
        tpu: `local`, a name, `grpc://HOST:PORT`, or empty for none.
        replicas: N > 0 splits the CPU into N replicas where no TPU is found.
        require_tpu: makes a missing TPU an error.

    Raises:
        RequestError: no TPU was found although required, the CPU cannot be split any more, or
            `TF_CONFIG` names several workers.
    """
    _refuse_several_workers()
    if replicas:
        _split_cpu(replicas)
    if tpu:
        try:
            strategy = _connect_to_tpu(tpu)
            return Devices(strategy, "TPU", strategy.num_replicas_in_sync)
        except _NO_TPU as error:
            fallback = _without_tpu(replicas)
            reason, hint = _reason(error), _hint(tpu)
            if require_tpu:
                raise RequestError(
                    f"--tpu={tpu}: no TPU found ({reason}). {hint} Without --require_tpu this "
                    f"would run on {describe(fallback)}."
                ) from error
            logging.warning(
                "--tpu=%s: no TPU found (%s); running on %s instead. %s",
                tpu, reason, describe(fallback), hint,
            )  # fmt: skip
            return fallback
    return _without_tpu(replicas)


def describe(devices: Devices) -> str:
    """`2 CPU replicas`, for messages."""
    return f"{devices.replicas} {devices.kind} replica{'s' if devices.replicas > 1 else ''}"


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
        return "On a TPU VM, TensorFlow must be the package `tensorflow-tpu`; see the README."
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


def _without_tpu(replicas: int) -> Devices:
    if replicas:
        names = [device.name for device in tf.config.list_logical_devices("CPU")[:replicas]]
        # Without an explicit reduction, strategies of several sizes abort each other.
        strategy = tf.distribute.MirroredStrategy(
            names, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        return Devices(strategy, "CPU", replicas)
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return Devices(tf.distribute.MirroredStrategy(), "GPU", len(gpus))
    # One device needs no distribution; the default strategy places everything on it by itself.
    return Devices(tf.distribute.get_strategy(), "GPU" if gpus else "CPU", 1)


def _refuse_several_workers() -> None:
    """Each worker would train on its own, all of them into one run directory."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except (ValueError, AttributeError) as error:
        raise RequestError(f"TF_CONFIG: expected a JSON object, found {error}") from error
    workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
    if len(workers) > 1:
        raise RequestError(
            f"TF_CONFIG: names {len(workers)} workers, but this version runs on one; unset it"
        )


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
