"""The launcher, with small programs in place of workers: start, signals, ends, restarts."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from flowers_tpu.system import launching
from flowers_tpu.system.launching import LaunchOptions, launch_all

# Does what stands after the number of the worker that is meant.
PROGRAM = """
import os, signal, sys, time
workers, index = (argument.partition("=")[2] for argument in sys.argv[-2:])
mine = [argument[2:] for argument in sys.argv[1:-2] if argument[0] in (index, "*")]
print("worker", index, "of", len(workers.split(",")), flush=True)
for what in mine:
    exec(what)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return str(path)


def test_each_worker_knows_all_and_its_lines_have_its_number(program, capfd):
    assert launch_all([program], LaunchOptions(workers=3)) == 0
    out = capfd.readouterr().out.splitlines()
    assert sorted(out) == [f"[{n}] worker {n} of 3" for n in range(3)]


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ({"0": 0, "1": 0}, 0),
        ({"0": 1, "1": 1}, 1),
        ({"0": 1, "1": 2}, 2),
        ({"0": 143, "1": 143}, 143),
        ({"0": 7, "1": 0}, 1),
    ],
)
def test_the_jobs_code_is_that_of_its_worst_worker(program, ends, code):
    command = [program, *(f"{index}:sys.exit({end})" for index, end in ends.items())]
    assert launch_all(command, LaunchOptions()) == code


def test_all_end_when_one_does(program, capfd):
    command = [program, "1:os.kill(os.getpid(), 9)", "0:time.sleep(600)"]
    begin = time.monotonic()
    assert launch_all(command, LaunchOptions(kill_after_seconds=0.5)) == 1
    assert time.monotonic() - begin < 20
    out = capfd.readouterr().out
    assert "launch: worker 0 was ended by SIGKILL" in out
    assert "launch: worker 1 was ended by SIGKILL" in out


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(launching, "_LONGEST_PAUSE", 0.05)


def test_a_job_that_fails_is_started_again_so_often(program, no_pauses, tmp_path, capfd):
    """Twice it fails, then it does not; of one restart the second failure is the end."""
    again = f"0:p = {str(tmp_path / 'n')!r}; n = os.path.exists(p) and len(open(p).read()) or 0"
    write = "0:open(p, 'a').write('x'); sys.exit(n < 2)"
    assert launch_all([program, again, write], LaunchOptions(max_restarts=5)) == 0
    assert (tmp_path / "n").read_text() == "xxx"
    assert "starting all again in 0 s (2 of at most 5 times)" in capfd.readouterr().out
    (tmp_path / "n").unlink()
    assert launch_all([program, again, write], LaunchOptions(max_restarts=1)) == 1
    assert (tmp_path / "n").read_text() == "xx"


@pytest.mark.parametrize("code", [2, 143])
def test_what_is_wrong_or_stopped_is_not_started_again(program, no_pauses, tmp_path, code):
    write = f"0:open({str(tmp_path / 'n')!r}, 'a').write('x'); sys.exit({code})"
    assert launch_all([program, write], LaunchOptions(max_restarts=3)) == code
    assert (tmp_path / "n").read_text() == "x"


def test_pauses_grow_up_to_a_bound(program, monkeypatch, capfd):
    waited = []
    monkeypatch.setattr(launching._Signals, "wait", lambda self, seconds: waited.append(seconds))
    launch_all([program, "0:sys.exit(1)"], LaunchOptions(workers=1, max_restarts=0))
    assert waited == []
    monkeypatch.setattr(launching._Attempt, "run", lambda self, signals: 1)
    assert launch_all([program], LaunchOptions(max_restarts=7)) == 1
    assert waited == [2, 4, 8, 16, 32, 60, 60]


def test_a_port_that_somebody_takes_meanwhile_is_exchanged_once(program, monkeypatch, capfd):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    free_ports, asked = launching.free_ports, []

    def ports(count):
        asked.append(count)
        return [port, *free_ports(count - 1)] if len(asked) == 1 else free_ports(count)

    monkeypatch.setattr(launching, "free_ports", ports)
    ends = f"*:sys.exit(2 if {str(port)!r} in workers else 0)"
    with taken:
        assert launch_all([program, ends], LaunchOptions()) == 0
    assert asked == [2, 2]
    assert "another program has taken a port" in capfd.readouterr().out


LAUNCH = "import sys; from flowers_tpu.system.launching import *; " + (
    "sys.exit(launch_all(sys.argv[1:], LaunchOptions(max_restarts=3, kill_after_seconds=5)))"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_goes_on_to_all_and_the_job_is_not_started_again(program, number):
    """Workers that save and end: 143."""
    name = signal.Signals(number).name
    ends = f"*:signal.signal(signal.{name}, lambda *_: (print('heard', flush=True), os._exit(143)))"
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, program, ends, "*:print('ready', flush=True)",
         "*:time.sleep(600)"],
        stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    seen = []
    for line in process.stdout:
        seen.append(line.strip())
        if sum("ready" in one for one in seen) == 2 and "sent" not in seen:
            process.send_signal(number)
            seen.append("sent")
    assert process.wait(60) == 143
    assert {"[0] heard", "[1] heard"} <= set(seen)
