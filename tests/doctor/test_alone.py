"""The doctor runs where nothing else does, gathers facts of this place, and starts nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from flowers_tpu.doctor import facts as facts_lib
from flowers_tpu.doctor import main, rules

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "recorded"


def run(*command, cwd=None, **variables):
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, cwd=cwd, env=environment
    )


def script(*flags, options=("-S", "-E"), cwd=None, **variables):
    """The script in a Python that sees no installed package."""
    return run(
        sys.executable, *options, str(ROOT / "scripts/doctor.py"), *flags, cwd=cwd, **variables
    )


@pytest.mark.parametrize("options", [("-S", "-E"), ("-I", "-S")])
def test_it_runs_without_any_package(options, tmp_path):
    ended = script(options=options, cwd=tmp_path)
    assert ended.returncode == 1 and not ended.stderr
    assert ended.stdout.startswith("flowers_tpu doctor: ")
    assert "TensorFlow    none\n" in ended.stdout
    assert "1. TensorFlow is not installed.\n" in ended.stdout
    assert f"{sys.executable} -m pip install" in ended.stdout
    assert list(tmp_path.iterdir()) == [], "nothing is written, the run folder neither"


def test_it_imports_nothing_but_the_standard_library():
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    given = (str(ROOT / "scripts/doctor.py"), f"--facts={RECORDED / 'laptop.json'}")
    ended = run(sys.executable, "-S", "-c", code, *given)
    imported = set(ended.stdout.splitlines()[-1].split())
    assert "flowers_tpu" in imported
    assert imported - sys.stdlib_module_names - {"__main__"} == {"flowers_tpu"}


def python_3_8():
    """A Python 3.8 that runs; a shim may stand for one that is not there."""
    paths = [shutil.which("python3.8"), *Path.home().glob(".pyenv/versions/3.8*/bin/python")]
    return next((p for p in paths if p and run(str(p), "-c", "").returncode == 0), None)


def test_it_runs_on_python_3_8():
    old = python_3_8()
    if old is None:
        pytest.skip("there is no Python 3.8 here")
    ended = run(str(old), "-S", str(ROOT / "scripts/doctor.py"))
    assert ended.returncode == 1 and not ended.stderr
    assert "1. Python is 3.8; 3.10 or later is needed.\n" in ended.stdout


def test_exit_codes(tmp_path):
    def code(*flags):
        return main.main(flags)

    assert code(f"--facts={RECORDED / 'as_the_readme_says.json'}") == 0
    assert code(f"--facts={RECORDED / 'laptop.json'}") == 1
    assert code(f"--facts={tmp_path / 'nowhere.json'}") == 2
    (tmp_path / "list.json").write_text("[]")
    assert code(f"--facts={tmp_path / 'list.json'}") == 2


def test_what_json_prints_is_what_facts_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(facts_lib, "child", lambda *_: {"tpu_kernels": 0, "gpus": 0})
    monkeypatch.chdir(tmp_path)
    main.main([])
    page = capsys.readouterr().out
    main.main(["--json"])
    (tmp_path / "facts.json").write_text(capsys.readouterr().out)
    main.main(["--facts=facts.json"])
    assert steady(capsys.readouterr().out) == steady(page)


def steady(page):
    """Without what moves from moment to moment."""
    return re.sub(r"[\d.]+ GB", "GB", page)


def test_the_package_is_a_way_to_it_too():
    ended = run(
        sys.executable, "-m", "flowers_tpu", "doctor", f"--facts={RECORDED / 'colab_tpu.json'}",
        PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert ended.returncode == 1 and not ended.stderr
    assert ended.stdout.startswith("flowers_tpu doctor: Colab with a TPU\n")


def test_tensorflow_imported_before_is_named_and_not_refused():
    """As from a cell of a notebook: `%run scripts/doctor.py`."""
    code = (
        "import os, runpy, sys, types\n"
        "sys.modules['tensorflow'] = types.SimpleNamespace(__version__='2.20.0')\n"
        "sys.argv[1:] = ['--json']\n"
        "try: runpy.run_path(os.environ['SCRIPT'], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n"
    )
    ended = run(sys.executable, "-S", "-c", code, SCRIPT=str(ROOT / "scripts/doctor.py"))
    assert not ended.stderr
    assert json.loads(ended.stdout)["modules"][0] == "tensorflow"


# Facts


@pytest.fixture
def children(monkeypatch):
    """What would be run in child processes, with the variables that it is given."""
    started = []
    answer = {"tpu_kernels": 0, "gpus": 0, "cores": 8}
    monkeypatch.setattr(facts_lib, "child", lambda *given: started.append(given) or answer)
    return started


def test_a_tpu_is_started_only_if_asked(children, tmp_path):
    gathered = facts_lib.gather(str(tmp_path))
    assert gathered["tpu"] is None
    ((code, _, variables),) = children
    assert "initialize_tpu" not in code and variables == {"TPU_LOAD_LIBRARY": "0"}
    children.clear()
    assert facts_lib.gather(str(tmp_path), init=True)["tpu"]["cores"] == 8
    (_, (code, seconds, variables)) = children
    assert "initialize_tpu_system" in code and seconds <= 600 and variables == {}


def test_facts_of_this_place(children, tmp_path, monkeypatch):
    monkeypatch.setenv("TPU_NAME", "flowers")
    monkeypatch.setenv("KAGGLE_USER_SECRETS_TOKEN", "precious")
    gathered = facts_lib.gather(str(tmp_path / "new" / "run"))
    assert gathered["packages"]["numpy"] == metadata.version("numpy")
    assert gathered["variables"]["TPU_NAME"] == "flowers"
    assert "precious" not in json.dumps(gathered), "only variables that are asked for"
    assert gathered["run_folder"]["writable"] is True and gathered["run_folder"]["free"] > 0
    assert list(tmp_path.iterdir()) == []
    assert gathered["cores"]["machine"] == os.cpu_count()
    if sys.platform == "linux":
        import psutil

        assert gathered["memory"]["total"] == psutil.virtual_memory().total


def test_what_a_wheel_wants_of_others(monkeypatch):
    lines = [
        "numpy<2.1.0,>=1.26.0", "ml_dtypes (<0.5.0,>=0.4.0)", "libtpu==2.18.0", "keras", "wrapt>=1",
        'numpy>=9; python_version >= "3.13"', 'protobuf<1; extra == "and-cuda"',
    ]  # fmt: skip
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    assert facts_lib.bounds("tensorflow-tpu") == {
        "numpy": "<2.1.0,>=1.26.0", "ml-dtypes": "<0.5.0,>=0.4.0", "libtpu": "==2.18.0",
    }  # fmt: skip


def test_packages_are_known_by_their_metadata_alone(monkeypatch):
    found = [
        types.SimpleNamespace(metadata={"Name": "tensorflow_cpu"}, version="2.20.0"),
        types.SimpleNamespace(metadata={"Name": None}, version="1"),  # half removed
        types.SimpleNamespace(metadata={"Name": "Jinja2"}, version="3.1"),
        types.SimpleNamespace(metadata={"Name": "secret-project"}, version="1"),
        types.SimpleNamespace(metadata={"Name": "tensorflow-cpu"}, version="2.0"),  # hidden by it
    ]
    monkeypatch.setattr(metadata, "distributions", lambda: found)
    assert facts_lib.installed() == {"tensorflow-cpu": "2.20.0", "jinja2": "3.1"}


def test_a_child_process():
    answer = facts_lib.child("print('noise'); print('FACTS {\"a\": 1}'); print('more')", 20, {})
    assert answer == {"a": 1}
    assert facts_lib.child("import time; time.sleep(9)", 0.2, {})["error"].startswith("no answer")
    code = "import sys; sys.stderr.write('at\\nfoo.BarError: bad\\n  more\\n'); sys.exit(1)"
    assert facts_lib.child(code, 20, {}) == {"error": "foo.BarError: bad"}
    line = "2026-11-26 03:09:48.8: F a/b.inc:12] Op not available in this library."
    code = f"import os, sys; print({line!r}, file=sys.stderr, flush=True); os.abort()"
    expected = {"error": "ended by signal 6: Op not available in this library."}
    assert facts_lib.child(code, 20, {}) == expected
    code = "import os; print('FACTS {\"a\": \"%s\"}' % os.environ['TPU_LOAD_LIBRARY'])"
    assert facts_lib.child(code, 20, {"TPU_LOAD_LIBRARY": "0"}) == {"a": "0"}


def test_the_container_sets_the_limit(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB",
        "/sys/fs/cgroup/memory.max": "4294967296",
        "/sys/fs/cgroup/cpu.max": "150000 100000",
    }
    monkeypatch.setattr(facts_lib, "_read", lambda path: files.get(path, ""))
    assert facts_lib.memory() == {"total": 16 << 30, "available": 8 << 30, "limit": 4 << 30}
    assert facts_lib.cores()["limit"] == 1.5
    files |= {"/sys/fs/cgroup/memory.max": "max", "/sys/fs/cgroup/cpu.max": "max 100000"}
    assert facts_lib.memory()["limit"] is None and facts_lib.cores()["limit"] is None


def test_gpus_by_their_own_program(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Tesla T4, 560.35.03'\necho 'Tesla T4, 560.35.03'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert facts_lib.gpus() == {"names": ["Tesla T4", "Tesla T4"], "driver": "560.35.03"}
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert facts_lib.gpus()["error"] == "nvidia-smi: NVIDIA-SMI has failed"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_who_holds_a_device(tmp_path):
    device = tmp_path / "accel0"
    device.touch()
    code = "import sys, time; file = open(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(device)], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        found = facts_lib.holders([str(device)])
        assert [entry["pid"] for entry in found] == [holder.pid] and found[0]["name"]
    finally:
        holder.kill()
        holder.communicate()
    assert facts_lib.holders([str(device)]) == []


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    assert facts_lib.run_folder(str(tmp_path / "file" / "run"))["writable"] is False
    assert facts_lib.run_folder("gs://bucket/run")["writable"] is None


def test_tensorflow_here_is_looked_at_in_a_child():
    """The real import; 7 s. The plain wheel has no TPU operations."""
    found = facts_lib.child(facts_lib._IMPORT, facts_lib.IMPORT_SECONDS, {"TPU_LOAD_LIBRARY": "0"})
    assert found["version"] == metadata.version("tensorflow")
    assert found["tpu_kernels"] == 0 and found["gpus"] == 0
    assert rules.imported({"tensorflow": found}) == found
