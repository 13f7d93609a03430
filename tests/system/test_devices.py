import configparser
import http.server
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import types

import pytest
import tensorflow as tf

from flowers_tpu.system import devices as lib
from flowers_tpu.system.devices import Devices, choose_devices, one_cpu_replica
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts, Listed
from flowers_tpu.system.options import DeviceOptions

SECONDS = 30  # waiting for a TPU that is not there must not take minutes

# Looking for a local TPU initializes TensorFlow's runtime, and a CPU is split only once.
FRESH_PROCESS = """
import flowers_tpu
import json, sys
import tensorflow as tf
from flowers_tpu.system.devices import choose_devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.options import DeviceOptions

def outcome(flags):
    try:
        devices = choose_devices(DeviceOptions(**flags))
    except RequestError as error:
        return ["refused", str(error), type(error.__cause__).__name__]
    strategy, facts = devices.strategy, devices.facts
    assert strategy.num_replicas_in_sync == facts.replicas
    each = strategy.run(lambda: tf.distribute.get_replica_context().replica_id_in_sync_group)
    places = {value.device for value in strategy.experimental_local_results(each)}
    return [facts.kind, facts.replicas, len(places)]

print("OUTCOMES", json.dumps([outcome(flags) for flags in json.loads(sys.argv[1])]))
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
        lib.logging, "warning", lambda text, *values: messages.append(text % values)
    )
    return messages


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
    devices = choose_devices(DeviceOptions())
    assert devices == Devices(tf.distribute.get_strategy(), Facts("CPU", 1))
    assert devices == one_cpu_replica()
    assert warnings == []


def test_one_cpu_replica_may_stand_in_for_other_devices():
    facts = Facts("TPU", 8)
    assert one_cpu_replica(facts) == Devices(tf.distribute.get_strategy(), facts)


def test_what_tensorflow_lists_decides(monkeypatch):
    """Two GPUs of two kinds, as `get_device_details` and `list_local_devices` describe them."""

    class Gpu(types.SimpleNamespace):
        device_type = "GPU"

    gpus = ["GPU:0", "GPU:1"]
    details = {"GPU:0": {"compute_capability": (8, 0)}, "GPU:1": {"compute_capability": (7, 5)}}
    local = [
        types.SimpleNamespace(device_type="CPU", memory_limit=1),
        *(Gpu(memory_limit=40), Gpu(memory_limit=15)),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
        patch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
        patch.setattr(lib.device_lib, "list_local_devices", lambda: local)
        listed = lib._listed()
    assert listed == [Listed("CPU"), Listed("GPU", (8, 0), 40), Listed("GPU", (7, 5), 15)]
    monkeypatch.setattr(lib, "_listed", lambda: listed)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: "mirrored")
    assert choose_devices(DeviceOptions()) == Devices("mirrored", Facts("GPU", 2, 1, (7, 5), 15))
    # Also for one, whose batches are then copied to it before their step.
    monkeypatch.setattr(lib, "_listed", lambda: listed[:2])
    one = Devices("mirrored", Facts("GPU", 1, 1, (8, 0), 40))
    assert choose_devices(DeviceOptions()) == one


def test_memory_grows_on_every_gpu_if_that_is_asked_for(monkeypatch):
    gpus = [types.SimpleNamespace(name=f"GPU:{number}") for number in range(2)]
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else []
    )
    monkeypatch.setattr(lib, "_listed", lambda: [Listed("CPU")])
    grown = []
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu.name, on))
    )
    choose_devices(DeviceOptions())
    assert grown == []
    choose_devices(DeviceOptions(memory_growth=True))
    assert grown == [("GPU:0", True), ("GPU:1", True)]

    def too_late(gpu, on):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", too_late)
    with pytest.raises(RequestError, match=r"--memory_growth: .* memory of GPU:0 already"):
        choose_devices(DeviceOptions(memory_growth=True))


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
    devices = choose_devices(DeviceOptions(tpu=tpu, replicas=replicas))
    assert time.monotonic() - begin < SECONDS
    assert devices.facts == Facts("CPU", replicas or 1)
    assert devices.strategy.num_replicas_in_sync == devices.facts.replicas
    (message,) = warnings
    assert message.startswith(f"--tpu={tpu}: no TPU found (")
    assert reason in message
    assert f"running on {devices.facts} instead" in message
    assert "\n" not in message


def test_looking_for_a_tpu_leaves_the_environment_as_it_was(warnings, monkeypatch):
    """With NO_GCE_CHECK=true, for one, TensorFlow would read `gs://` without credentials."""
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)
    before = dict(os.environ)
    choose_devices(DeviceOptions(tpu="some-name"))
    assert dict(os.environ) == before


@pytest.fixture
def google_cloud(monkeypatch):
    """Answers what TensorFlow asks a machine on Google Cloud for: its project and zone."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"projects/1/zones/us-central1-a")

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


@pytest.mark.skipif(
    importlib.util.find_spec("googleapiclient") is not None, reason="cloud-tpu-client is installed"
)
def test_the_remedy_that_tensorflow_names_is_passed_on(warnings, google_cloud):
    choose_devices(DeviceOptions(tpu="some-name"))
    (message,) = warnings
    assert "Google API client. Run `pip install cloud-tpu-client` to fix.);" in message
    assert "A name is looked up from a machine on Google Cloud" in message
    assert "tensorflow-tpu" not in message  # which is for a TPU VM


@pytest.mark.parametrize("tpu", ["grpc://127.0.0.1:1", "some-name"])
def test_a_tpu_that_is_required_must_be_there(warnings, tpu):
    with pytest.raises(RequestError, match=f"--tpu={tpu}: no TPU found .* run on 1 CPU replica"):
        choose_devices(DeviceOptions(tpu=tpu, require_tpu=True))
    assert warnings == []


@pytest.mark.parametrize("tpu", ["grpc://10.0.0.2", "grpc://", "grpc://:8470", "grpc://host:port"])
def test_a_tpus_address_needs_a_host_and_a_port(tpu):
    with pytest.raises(RequestError, match=f"--tpu={tpu}: expected grpc://HOST:PORT"):
        choose_devices(DeviceOptions(tpu=tpu))


def test_several_workers_that_have_not_come_together_are_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}))
    with pytest.raises(RequestError, match=r"several workers are named .*only scripts/train\.py"):
        choose_devices(DeviceOptions())
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["b:1"]}}))
    assert choose_devices(DeviceOptions()).facts.kind == "CPU"


def test_the_readmes_installation_on_a_tpu_names_every_package():
    """What is installed without its dependencies there, because of TensorFlow, lacks no other."""
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    required = config["options"]["install_requires"].split("\n")
    needed = {re.match(r"[\w-]+", line)[0] for line in required if line}
    readme = pathlib.Path("README.md").read_text()
    lines = readme.partition("**Packages**")[2].partition("```sh\n")[2].partition("```")[0]
    words = lines.replace("'", "").split()
    named = {re.match(r"[\w-]+", word)[0] for word in words if re.match(r"\w", word)}
    assert needed - {"tensorflow"} <= named
    assert "tensorflow" not in named and "tensorflow-tpu" in named
    versions = re.findall(r"(?:tensorflow-tpu|tf_keras)==(\d+\.\d+)\.\d+\b", lines)
    assert len(versions) == 2 and len(set(versions)) == 1
