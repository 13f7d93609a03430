import json
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from flowers_tpu import distribution
from flowers_tpu.errors import RequestError

SECONDS = 30  # waiting for a TPU that is not there must not take minutes

# Looking for a local TPU initializes TensorFlow's runtime, and a CPU is split only once.
FRESH_PROCESS = """
import flowers_tpu
import json, sys
import tensorflow as tf
from flowers_tpu import distribution
from flowers_tpu.errors import RequestError

def outcome(arguments):
    try:
        devices = distribution.choose_devices(**arguments)
    except RequestError as error:
        return ["refused", str(error), type(error.__cause__).__name__]
    strategy = devices.strategy
    assert strategy.num_replicas_in_sync == devices.replicas
    each = strategy.run(lambda: tf.distribute.get_replica_context().replica_id_in_sync_group)
    places = {value.device for value in strategy.experimental_local_results(each)}
    return [devices.kind, devices.replicas, len(places)]

print("OUTCOMES", json.dumps([outcome(arguments) for arguments in json.loads(sys.argv[1])]))
"""


def in_fresh_process(*calls):
    """What `choose_devices` does in consecutive calls, and what it writes to standard error."""
    result = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, json.dumps(calls)],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
    )
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("OUTCOMES"))
    return json.loads(line.removeprefix("OUTCOMES")), result.stderr


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(
        distribution.logging, "warning", lambda text, *values: messages.append(text % values)
    )
    return messages


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """What is set in the environment for the sake of one TPU is unset afterwards."""
    for name in ("NO_GCE_CHECK", "GCE_METADATA_TIMEOUT"):
        monkeypatch.setenv(name, "unset in a moment")
        monkeypatch.delenv(name)


def test_a_missing_local_tpu_falls_back_to_the_replicas_asked_for():
    outcomes, messages = in_fresh_process(
        {"tpu": "local", "replicas": 2},
        {"tpu": "local", "replicas": 2, "require_tpu": True},
        {"tpu": "local"},
    )
    (refused, message, cause) = outcomes[1]
    assert outcomes[0] == ["CPU", 2, 2]
    assert outcomes[2] == ["CPU", 1, 1]
    warning = "--tpu=local: no TPU found (TPUs not found in the cluster); running on {} instead."
    assert warning.format("2 CPU replicas") in messages
    assert warning.format("1 CPU replica") in messages
    assert "tensorflow-tpu" in messages
    # What a missing TPU raises is no ValueError, which is what is usually caught.
    assert (refused, cause) == ("refused", "NotFoundError")
    assert message.startswith("--tpu=local: no TPU found (TPUs not found in the cluster).")
    assert "Without --require_tpu this would run on 2 CPU replicas." in message


def test_the_cpu_is_split_into_replicas_only_before_it_is_used():
    outcomes, messages = in_fresh_process({"replicas": 3}, {"replicas": 2}, {"replicas": 4})
    assert outcomes[:2] == [["CPU", 3, 3], ["CPU", 2, 2]]
    refused, message, _ = outcomes[2]
    assert refused == "refused"
    assert message.startswith("--replicas=4: TensorFlow was used before the CPU could be split")
    assert "no TPU" not in messages


def test_without_any_flag_there_is_one_replica(warnings):
    devices = distribution.choose_devices()
    assert devices.strategy is tf.distribute.get_strategy()
    assert (devices.kind, devices.replicas) == ("CPU", 1)
    assert warnings == []


@pytest.mark.parametrize(
    ("tpu", "reason"),
    [
        ("grpc://127.0.0.1:1", "Connection refused"),  # nobody listens on port 1
        ("grpc://no-such-host.invalid:8470", ""),
        ("some-name", ""),
    ],
)
@pytest.mark.parametrize("replicas", [0, 2])
def test_a_missing_remote_tpu_is_given_up_within_seconds(warnings, tpu, reason, replicas):
    begin = time.monotonic()
    devices = distribution.choose_devices(tpu=tpu, replicas=replicas)
    assert time.monotonic() - begin < SECONDS
    assert (devices.kind, devices.replicas) == ("CPU", replicas or 1)
    assert devices.strategy.num_replicas_in_sync == devices.replicas
    (message,) = warnings
    assert message.startswith(f"--tpu={tpu}: no TPU found (")
    assert reason in message
    assert f"running on {distribution.describe(devices)} instead" in message
    assert "\n" not in message


@pytest.mark.parametrize("tpu", ["grpc://127.0.0.1:1", "some-name"])
def test_a_tpu_that_is_required_must_be_there(warnings, tpu):
    with pytest.raises(RequestError, match=f"--tpu={tpu}: no TPU found .* run on 1 CPU replica"):
        distribution.choose_devices(tpu=tpu, require_tpu=True)
    assert warnings == []


@pytest.mark.parametrize("tpu", ["grpc://10.0.0.2", "grpc://", "grpc://:8470", "grpc://host:port"])
def test_a_tpus_address_needs_a_host_and_a_port(tpu):
    with pytest.raises(RequestError, match=f"--tpu={tpu}: expected grpc://HOST:PORT"):
        distribution.choose_devices(tpu=tpu)


@pytest.mark.parametrize(
    ("kind", "replicas", "expected"),
    [("CPU", 1, "1 CPU replica"), ("GPU", 2, "2 GPU replicas"), ("TPU", 8, "8 TPU replicas")],
)
def test_devices_are_described(kind, replicas, expected):
    assert distribution.describe(distribution.Devices(None, kind, replicas)) == expected


def test_several_workers_are_refused(monkeypatch):
    cluster = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(RequestError, match="TF_CONFIG: names 3 workers"):
        distribution.choose_devices()
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(RequestError, match="TF_CONFIG: expected a JSON object"):
        distribution.choose_devices()
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["b:1"]}}))
    assert distribution.choose_devices().kind == "CPU"
