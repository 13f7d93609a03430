"""The process around the compiler, with stand-ins for it that end in every way."""

import configparser
import json
import os
import stat
import subprocess
import sys
import time
from importlib import metadata

import pytest

from flowers_tpu.system import tpu_slices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.tpu import compiler

(V4,) = tpu_slices.parse_slices("v4")
RESULT = {
    "memory": {"arguments": 100, "outputs": 70, "aliased": 60, "temporaries": 30, "code": 5},
    "flops": 8.0,
    "bytes_accessed": 4.0,
    "seconds": 1.5,
}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Lets a shell script be started in the place of Python: $3 is the module, $4 the result."""

    def use(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(path))

    return use


def compile_it(seconds=60, **options):
    return compiler.compile_for(V4, b"module", seconds=seconds, **options)


def test_the_result_is_read(stand_in, tmp_path):
    stand_in(f"cp $3 {tmp_path}/seen; echo $5 > {tmp_path}/asked; echo '{json.dumps(RESULT)}' > $4")
    compiled = compile_it()
    assert (compiled.flops, compiled.bytes_accessed, compiled.seconds) == (8.0, 4.0, 1.5)
    # An output that replaces an argument counts once: 100 + (70 - 60) + 30 + 5.
    assert compiled.needed == 145
    assert (tmp_path / "seen").read_bytes() == b"module"
    asked = json.loads((tmp_path / "asked").read_text())
    assert asked == {"topology": "v4:2x2x1", "options": {"chip_config_name": "megacore"}}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("""echo '{"error": "UNIMPLEMENTED: that", "seconds": 1}' > $4""", "^UNIMPLEMENTED: that$"),
        ("echo some; echo 'Check failed: x' >&2; kill -ABRT $$", "SIGABRT: Check failed: x"),
        ("kill -KILL $$", "killed: it probably took more memory"),
        ("echo 'ImportError: no jax' >&2; exit 1", "the compiler failed: ImportError: no jax"),
    ],
)
def test_how_it_can_fail(stand_in, script, message):
    stand_in(script)
    with pytest.raises(compiler.CompileError, match=message):
        compile_it()


def test_one_that_hangs_is_ended(stand_in, tmp_path):
    stand_in(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    ticks, begin = [], time.monotonic()
    with pytest.raises(compiler.CompileTimeoutError):
        compile_it(seconds=1, on_wait=lambda: ticks.append(1))
    assert ticks
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def installed(monkeypatch, **versions):
    """Lets just these packages be installed."""

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


def refusal(monkeypatch, **versions):
    installed(monkeypatch, **versions)
    with pytest.raises(RequestError) as error:
        compiler.check_installed()
    return str(error.value)


def test_a_missing_compiler_is_one_line(monkeypatch):
    assert refusal(monkeypatch, jax="0.10.2", jaxlib="0.10.2") == (
        "the TPU compiler is not installed (no libtpu): pip install -e '.[tpu-check]'"
    )
    installed(monkeypatch, jax="0.10.2", jaxlib="0.10.2", libtpu="0.0.42.1")
    compiler.check_installed()


def test_other_versions_are_refused(monkeypatch):
    assert refusal(monkeypatch, jax="0.10.2", jaxlib="0.10.2", libtpu="0.0.17").startswith(
        "libtpu 0.0.17 is installed, but this check is made for libtpu 0.0.42.1: pip install -e"
    )


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [("platform", "darwin", " on darwin"), ("version_info", (3, 10, 14), "Python 3.10 on linux")],
)
def test_where_the_extra_installs_nothing(monkeypatch, name, value, found):
    with monkeypatch.context() as patch:
        patch.setattr(sys, name, value)
        message = refusal(patch)
    assert message.startswith("the TPU compiler needs Linux and Python 3.11 or later; this is ")
    assert found in message and "pip" not in message


def test_the_versions_are_those_of_the_extra():
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    extra = config["options.extras_require"]["tpu-check"].split("\n")
    pins = dict(line.partition(";")[0].strip().split("==") for line in extra if line)
    assert pins == compiler.VERSIONS


def test_the_compiler_does_not_outlive_the_one_that_waits_for_it():
    child = "from flowers_tpu.tpu import worker; worker.end_with_parent()\nimport time\n"
    child += "print('compiling', flush=True); time.sleep(60)"
    parent = (
        "import subprocess, sys\n"
        f"process = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "process.stdout.readline()\n"  # and ends, as if it were killed
    )
    begin = time.monotonic()
    # Standard error is inherited: it closes when the last of them is gone.
    subprocess.run([sys.executable, "-c", parent], stderr=subprocess.PIPE, check=True)
    assert time.monotonic() - begin < 40
