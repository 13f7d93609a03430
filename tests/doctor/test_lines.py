"""The lines that the doctor, the README and docs/tpu.md give: the same, and the index has them."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flowers_tpu.doctor import facts as facts_lib
from flowers_tpu.doctor import rules

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "recorded"


def blocks(page):
    """The lines of each block of commands, without comments."""
    found = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    return [[line for line in text.splitlines() if not line.startswith("#")] for text in found]


def test_the_readme_gives_the_doctors_lines():
    assert [*rules.TPU_LINES, rules.ADDONS_LINE] in blocks("README.md")


def test_kaggles_cells_are_the_doctors_lines():
    facts = json.loads((RECORDED / "kaggle_tpu_2026.json").read_text())
    commands = [line.partition(" -m ")[2] for line in rules.diagnose(facts)[0].commands]
    cells = next(lines for lines in blocks("docs/tpu.md") if lines[0].startswith("!git clone"))
    assert [line[1:] for line in cells if line.startswith("!pip")] == commands
    (uninstall, *others) = commands
    assert {"tensorflow-cpu", "jax", "jaxlib", "torch-xla"} <= set(uninstall.split())
    assert not any("addons" in line for line in others)


def test_pins_are_those_of_the_lines():
    text = " ".join(rules.TPU_LINES).replace("'", "")
    pinned = dict(re.findall(r"([\w-]+)==([\d.]+)", text))
    assert {facts_lib.plain(name): version for name, version in pinned.items()} == rules.TPU_PINS
    for version in re.findall(r"libtpu==([\d.]+)", (ROOT / "docs/tpu.md").read_text("utf-8")):
        assert version == rules.TPU_PINS["libtpu"]
    last, first = (rules.numbers(v) for v in (rules.LAST_GOOD_LIBTPU, rules.FIRST_BAD_LIBTPU))
    assert rules.numbers(rules.TPU_PINS["libtpu"]) <= last < first


def resolved(python, *wanted, cwd):
    """{package: (version, what it wants)} as pip resolves it for Linux; None if it cannot."""
    platforms = (
        "manylinux2014",
        "manylinux_2_17",
        "manylinux_2_27",
        "manylinux_2_28",
        "manylinux_2_31",
    )
    ended = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report=report.json",
            "--only-binary=:all:", "--target=nothing", f"--python-version={python}",
            *(f"--platform={name}_x86_64" for name in platforms), *wanted,
        ],
        cwd=cwd, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if ended.returncode:
        assert re.search("No matching distribution|ResolutionImpossible", ended.stderr), (
            ended.stderr
        )
        return None
    report = json.loads((cwd / "report.json").read_text())
    found = [entry["metadata"] for entry in report["install"]]
    return {facts_lib.plain(m["name"]): (m["version"], m.get("requires_dist", [])) for m in found}


@pytest.fixture
def index(tmp_path):
    """`resolved`, if there is a package index to ask."""
    if not resolved("3.12", "--no-deps", "six", cwd=tmp_path):
        pytest.skip("no package index is reached")
    return lambda python, *wanted: resolved(python, *wanted, cwd=tmp_path)


def packages_of(line):
    """What a line of pip's asks for, apart from this package."""
    return [word for word in shlex.split(line)[2:] if word not in ("-e", ".", "--no-deps")]


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_lines_for_a_tpu_resolve_to_the_pins(index, python):
    """A wheel is chosen, not tried: with libtpu 0.0.52 they resolve too, and the import aborts."""
    first = index(python, *packages_of(rules.TPU_LINES[0]))
    keras = index(python, "--no-deps", *packages_of(rules.TPU_LINES[1]))
    versions = {name: version for name, (version, _) in {**first, **keras}.items()}
    assert rules.TPU_PINS.items() <= versions.items()
    assert "tensorflow" not in versions
    bounds = dict(
        re.findall(r"^([\w-]+?)([<>=!~][^;]*)$", "\n".join(first["tensorflow-tpu"][1]), re.M)
    )
    for name, wanted in bounds.items():
        assert rules.meets(versions[facts_lib.plain(name)], wanted), name
    assert index(python, *packages_of(rules.TPU_LINES[2])) is not None


@pytest.mark.slow
def test_what_the_index_does_not_have(index):
    assert index("3.11", "--no-deps", *packages_of(rules.ADDONS_LINE))["tensorflow-addons"]
    assert index("3.12", "--no-deps", "tensorflow-addons==0.23.0") is None
    assert index("3.14", "--no-deps", "tensorflow>=2.15.1,<2.22") is None
    assert index("3.10", "tensorflow-tpu==2.18.0") is None, "its libtpu is on Google's page only"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["kaggle_tpu_2026", "kaggle_gpu", "tpu_vm_2_18"])
def test_recorded_bounds_are_those_of_the_wheels(index, place, monkeypatch):
    facts = json.loads((RECORDED / f"{place}.json").read_text())
    python = ".".join(facts["python"]["version"].split(".")[:2])
    for name, bounds in facts["bounds"].items():
        (_, wants) = index(python, "--no-deps", f"{name}=={facts['packages'][name]}")[name]
        monkeypatch.setattr(facts_lib.metadata, "requires", lambda _, wants=wants: wants)
        published = facts_lib.bounds(name)
        assert {key: published[key] for key in bounds} == bounds
