"""Recorded places: each gets the right trouble and the right command.

`recorded/*.json` say in `recorded` where their facts come from.
"""

import json
from pathlib import Path

import pytest

from flowers_tpu.doctor import rules
from flowers_tpu.doctor.page import WIDTH, page

FILES = sorted((Path(__file__).parent / "recorded").glob("*.json"))
RECORDED = {path.stem: json.loads(path.read_text()) for path in FILES}
TPU = [
    "pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'",
    "pip install --no-deps 'tf_keras==2.20.1' -e .",
    "pip install numpy pandas 'scikit-learn>=1.3' absl-py Pillow h5py tqdm 'matplotlib>=3.8' "
    "Jinja2 psutil tensorboard",
]
# The troubles in their order, and the commands of the first.
EXPECTED = {
    "kaggle_tpu_2026": (
        ["no-tpu-operations", "tpu-taken-by-packages", "keras-2", "not-installed"],
        ["pip uninstall -y tensorflow-cpu jax jaxlib torch-xla", *TPU],
    ),
    "kaggle_gpu": (["not-installed"], ["pip install -e ."]),
    "colab_tpu": (
        ["no-tensorflow", "tpu-taken-by-packages", "not-installed"],
        ["pip uninstall -y jax jaxlib torch-xla", *TPU],
    ),
    "tpu_vm_2_18": (
        ["bounds", "keras-2", "not-installed"],
        ["pip install 'ml-dtypes<0.5.0,>=0.4.0'"],
    ),
    "laptop": (["no-tensorflow", "not-installed"], ["pip install -e ."]),
    "as_the_readme_says": ([], []),
}
KINDS = {
    "kaggle_tpu_2026": "Kaggle with a TPU",
    "kaggle_gpu": "Kaggle with a GPU",
    "colab_tpu": "Colab with a TPU",
    "tpu_vm_2_18": "a machine with a TPU",
    "laptop": "a machine without a TPU or GPU",
    "as_the_readme_says": "a machine without a TPU or GPU",
}


def wrong(facts):
    return [trouble for trouble in rules.diagnose(facts) if trouble.kind == rules.WRONG]


def test_every_place_is_expected_and_says_where_its_facts_come_from():
    assert RECORDED.keys() == EXPECTED.keys() == KINDS.keys()
    for facts in RECORDED.values():
        assert (
            facts["recorded"]["sources"] and facts["recorded"]["by"] and facts["recorded"]["place"]
        )


@pytest.mark.parametrize("place", EXPECTED)
def test_the_right_trouble_and_the_right_command(place):
    facts, (names, commands) = RECORDED[place], EXPECTED[place]
    found = wrong(facts)
    assert rules.place(facts) == KINDS[place]
    assert [trouble.name for trouble in found] == names
    executable = facts["python"]["executable"]
    first = found[0].commands if found else []
    assert first == [f"{executable} -m {command}" for command in commands]


def test_on_a_tpu_vm_of_2_18_tensorflow_is_left_as_it_is():
    found = wrong(RECORDED["tpu_vm_2_18"])
    commands = "\n".join(command for trouble in found for command in trouble.commands)
    assert "'tf_keras==2.18.*' -e ." in commands
    assert "tensorflow-tpu" not in commands and "libtpu" not in commands


def test_tensorflow_addons_is_in_no_line_on_python_3_12():
    for trouble in rules.diagnose(RECORDED["kaggle_tpu_2026"]):
        assert not any("addons" in command for command in trouble.commands)
    notes = {trouble.name: trouble for trouble in rules.diagnose(RECORDED["kaggle_tpu_2026"])}
    assert "no wheel for Python 3.12" in notes["addons"].wrong


def after_the_commands(facts):
    """Facts as the first trouble's commands should leave them."""
    packages = dict(facts["packages"])
    for command in wrong(facts)[0].commands:
        words = command.partition(" -m pip ")[2].replace("'", "").split()
        if words[0] == "uninstall":
            for name in words[2:]:
                del packages[name]
            continue
        for word in words[1:]:
            name, _, version = word.partition("==")
            if word == "-e" or word == ".":
                packages["flowers-tpu"] = "0.2.0"
            elif not word.startswith("-"):
                name = name.partition(">")[0].replace("_", "-").lower()
                packages[name] = version or packages.get(name, "99")
    return {**facts, "packages": packages, "tensorflow": {"tpu_kernels": 1}, "bounds": {}}


@pytest.mark.parametrize("place", ["kaggle_tpu_2026", "colab_tpu"])
def test_the_commands_leave_nothing_wrong(place):
    assert wrong(after_the_commands(RECORDED[place])) == []


@pytest.mark.parametrize("place", EXPECTED)
def test_a_page_reads_well(place):
    facts = RECORDED[place]
    text = page(facts, rules.diagnose(facts))
    lines = text.splitlines()
    assert lines[0] == f"flowers_tpu doctor: {KINDS[place]}"
    assert len(lines) <= 60, "it is one page"
    assert text.isascii() and text.endswith("\n") and "\n\n\n" not in text
    commands = {c for trouble in rules.diagnose(facts) for c in trouble.commands}
    assert all(len(line) <= WIDTH or line.strip() in commands for line in lines)
    for command in commands:
        assert text.count(command + "\n") == 1, "shown once, on a line of its own to be copied"
    assert not any(word in text for word in ("None", "{", "}"))
    if EXPECTED[place][0]:
        assert "Wrong, most important first:" in lines and "1. " in text
    else:
        assert "Nothing is wrong." in lines


def test_what_the_page_of_kaggle_shows():
    facts = RECORDED["kaggle_tpu_2026"]
    lines = page(facts, rules.diagnose(facts)).splitlines()
    assert "TensorFlow    tensorflow-cpu 2.20.0; imports, without TPU operations" in lines
    assert "JAX, torch    jax 0.6.2, jaxlib 0.6.2, torch-xla 2.8.0" in lines
    assert "TPU           not started; --init does" in lines
    assert lines.count("   Mended by the commands of 1.") == 3
