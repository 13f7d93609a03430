"""Who the workers of a job are, and their talk before TensorFlow's engine starts."""

import json
import socket
import threading
import time

import pytest

from flowers_tpu.system import files, workers
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.system.options import DeviceOptions
from flowers_tpu.system.workers import Cluster, Exchange, find_cluster

TWO = ("a:1", "b:2")


def of(environment=None, **flags):
    return find_cluster(DeviceOptions(**flags), environment or {})


def tf_config(cluster, **task):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def slurm(nodes, tasks, rank, job="123", count=2):
    return {
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_PROCID": str(rank),
        "SLURM_JOB_ID": job,
    }


def test_flags_come_before_tf_config_and_that_before_slurm():
    environment = tf_config({"worker": ["c:1", "d:1"]}, type="worker", index=1)
    environment |= slurm("n[1-2]", "1(x2)", 1)
    assert of(environment, workers="a:1, b:2", worker_index=1) == Cluster(TWO, 1)
    assert of(environment) == Cluster(("c:1", "d:1"), 1)
    del environment["TF_CONFIG"]
    assert of(environment) == Cluster(("n1:20123", "n2:20123"), 1)
    assert of() is None


@pytest.mark.parametrize(
    ("cluster", "task", "expected"),
    [
        ({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 1}, Cluster(TWO, 1)),
        ({"chief": ["a:1"], "worker": ["b:2"]}, {"type": "chief", "index": 0}, Cluster(TWO, 0)),
        ({"chief": ["a:1"], "worker": ["b:2"]}, {"type": "worker", "index": 0}, Cluster(TWO, 1)),
        ({"worker": ["a:1"]}, {}, None),
        ({"worker": None}, {}, None),
        ({}, {}, None),
    ],
)
def test_tf_config(cluster, task, expected):
    assert of(tf_config(cluster, **task)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG: expected a JSON object"),
        ('["a:1"]', "TF_CONFIG: expected a JSON object"),
        ('{"cluster": ["a:1"]}', "its cluster is .*lists of hosts by"),
        ('{"cluster": {"worker": 3}}', "its cluster is .*lists of hosts by"),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "evaluator"}}',
            "nothing to do for a task of the type 'evaluator'",
        ),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"index": 2}}',
            "names 2 workers, so --worker_index is 0 to 1, not 2",
        ),
    ],
)
def test_a_tf_config_that_names_no_workers_is_refused(text, message):
    with pytest.raises(RequestError, match=message):
        of({"TF_CONFIG": text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:1,b", "expected HOST:PORT of each worker, found 'b'"),
        ("a:1,", "found ''"),
        ("a:1,a:1", "names an address twice"),
    ],
)
def test_addresses_that_are_none_are_refused(text, message):
    with pytest.raises(RequestError, match=f"--workers={text}.*{message}"):
        of(workers=text)


def test_an_index_beyond_the_workers_is_refused():
    with pytest.raises(RequestError, match="names 2 workers, so --worker_index is 0 to 1, not 2"):
        of(workers="a:1,b:2", worker_index=2)
    for flags in ({"replicas": 2}, {"tpu": "local"}):
        with pytest.raises(RequestError, match=f"--workers and --{next(iter(flags))}"):
            of(workers="a:1,b:2", **flags)
    with pytest.raises(RequestError, match=r"TF_CONFIG: names 2 workers.*leave --replicas out"):
        of(tf_config({"worker": list(TWO)}), replicas=2)
    with pytest.raises(RequestError, match="--worker_index goes with --workers"):
        of(worker_index=1)


# As `srun` sets them, by the documentation of Slurm.
@pytest.mark.parametrize(
    ("nodes", "tasks", "count", "addresses"),
    [
        ("n[9-10]", "1(x2)", 2, ("n9:20123", "n10:20123")),
        ("n[09-10]", "1(x2)", 2, ("n09:20123", "n10:20123")),
        ("node", "3", 3, ("node:20123", "node:20124", "node:20125")),
        ("a[1,3-4],b", "2,1(x3)", 5, ("a1:20123", "a1:20124", "a3:20123", "a4:20123", "b:20123")),
        ("g-001.x[1-2].org", "1(x2)", 2, ("g-001.x1.org:20123", "g-001.x2.org:20123")),
    ],
)
def test_a_step_of_slurm(nodes, tasks, count, addresses):
    for rank in range(count):
        assert of(slurm(nodes, tasks, rank, count=count)) == Cluster(addresses, rank)


def test_ports_of_slurms_jobs_are_within_bounds():
    assert of(slurm("n[1-2]", "1(x2)", 0, job="987654321")).addresses[0] == "n1:34321"


def test_what_is_no_step_of_several_tasks_is_one_process():
    assert of({"SLURM_JOB_ID": "5", "SLURM_NTASKS": "4"}) is None  # a batch script, without srun
    assert of(slurm("n1", "1", 0, count=1)) is None


def test_variables_of_slurm_that_are_not_srun_s_are_refused():
    environment = slurm("n[1-2]", "1(x2)", 0)
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST"):
        lacking = {key: value for key, value in environment.items() if key != name}
        with pytest.raises(RequestError, match=f"{name}.*name the workers by --workers"):
            of(lacking)


# The talk


@pytest.fixture
def clusters():
    """Gives the cluster as each of so many workers sees it, on free ports."""

    def make(count):
        servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        addresses = tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
        for server in servers:
            server.close()
        return [Cluster(addresses, index) for index in range(count)]

    return make


def talk(cluster, work, seconds=20.0, delays=()):
    """What a function of its exchange comes to on each worker: a value, or the error's text."""
    found = {}

    def run(one, delay):
        time.sleep(delay)
        try:
            exchange = Exchange(one, seconds)
            try:
                found[one.index] = work(one, exchange)
            finally:
                exchange.close()
        except (RequestError, RunError) as error:
            found[one.index] = str(error)

    delays = dict(enumerate(delays))
    threads = [
        threading.Thread(target=run, args=(one, delays.get(one.index, 0))) for one in cluster
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [found[one.index] for one in cluster]


@pytest.mark.parametrize("delays", [(0, 0.5, 0), (0.7, 0, 0.3)])
def test_workers_that_are_alike_go_on_whoever_comes_first(clusters, delays):
    def work(one, exchange):
        exchange.must_agree({"--seed": 3, "names": ["a", "b"]}, "Mend it.")
        return exchange.told_by_chief(one.index + 41)

    assert talk(clusters(3), work, delays=delays) == [41, 41, 41]


def test_who_differs_and_in_what_is_said_on_all(clusters):
    def work(one, exchange):
        facts = {"--seed": 4 if one.index == 2 else 3, "train": "x" if one.index == 1 else "y"}
        exchange.must_agree(facts, "Mend it.")

    cluster = clusters(3)
    messages = set(talk(cluster, work))
    assert messages == {
        f"the workers are not alike: worker 1 ({cluster[0].addresses[1]}) has train 'x', the chief "
        f"'y'; worker 2 ({cluster[0].addresses[2]}) has --seed 4, the chief 3. Mend it."
    }


def test_who_does_not_come_is_named_on_all_that_have(clusters):
    cluster = clusters(4)
    begin = time.monotonic()
    chief, other = talk([cluster[0], cluster[2]], lambda *_: None, seconds=1.0)
    assert time.monotonic() - begin < 10
    for message in (chief, other):
        assert f"worker 1 ({cluster[0].addresses[1]}), worker 3" in message
        assert "did not come within 1 s" in message
        assert "worker 2" not in message
    assert "--worker_index; --workers_seconds waits longer" in chief


def test_a_chief_that_does_not_come_is_named(clusters):
    (message,) = talk(clusters(2)[1:], lambda *_: None, seconds=0.5)
    assert message.startswith("worker 0 (127.0.0.1:")
    assert "the chief, cannot be reached within 0 s" in message or "within 1 s" in message


def test_one_that_ends_in_the_middle_is_named(clusters):
    def work(one, exchange):
        if one.index == 0:
            raise RequestError("its folder is no run's")
        exchange.must_agree({"--seed": 3}, "Mend it.")

    cluster = clusters(2)
    chief, other = talk(cluster, work)
    assert chief == "its folder is no run's"
    assert other == f"worker 0 ({cluster[0].addresses[0]}) has ended; its own message says why"


def test_a_port_that_is_taken_is_named(clusters):
    cluster = clusters(2)
    port = int(cluster[0].addresses[0].rpartition(":")[2])
    with socket.create_server(("", port)):
        (message,) = talk(cluster[:1], lambda *_: None, seconds=1.0)
    assert f"cannot listen on port {port} of 127.0.0.1" in message


def test_strangers_are_not_taken_for_workers(clusters):
    """A worker of another job, and what says nothing that could be understood."""
    cluster = clusters(2)
    host, _, port = cluster[0].addresses[0].rpartition(":")

    def disturb():
        for said in (b'{"index": 1, "addresses": ["a:1"]}\n', b"GET / HTTP/1.1\r\n"):
            for _ in range(100):
                try:
                    with socket.create_connection((host, int(port)), timeout=1) as connection:
                        connection.sendall(said)
                    break
                except OSError:
                    time.sleep(0.02)

    stranger = threading.Thread(target=disturb)
    stranger.start()
    assert talk(cluster, lambda one, _: one.index, delays=(0, 0.5)) == [0, 1]
    stranger.join()


def test_only_the_chief_writes_but_what_is_each_machines_own(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "_joined", [Cluster(TWO, 1)])
    assert not workers.may_write() and workers.label() == "worker 1 (b:2): "
    path = str(tmp_path / "file")
    files.write_atomically(path, "mine")
    files.make_dirs(str(tmp_path / "folder"))
    assert not list(tmp_path.iterdir())
    with workers.own_files():
        files.write_atomically(path, "mine")
    files.remove(path)
    files.write_atomically(path, "other")
    assert files.read_text(path) == "mine"
    monkeypatch.setattr(workers, "_joined", [Cluster(TWO, 0)])
    assert workers.may_write() and workers.label() == ""
    files.remove(path)
    assert not list(tmp_path.iterdir())


def test_a_process_alone_writes_and_goes_on():
    assert workers.this_cluster() is None and workers.may_write() and workers.label() == ""
    workers.leave(3)  # ends none that is alone
