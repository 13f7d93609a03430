"""docs/kaggle.ipynb does what it says, and holds no outputs."""

from pathlib import Path
from types import SimpleNamespace

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra test is not installed")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "kaggle.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_outputs_are_stripped():
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]


def test_parameters_stand_in_one_cell():
    tagged = [cell for cell in read().cells if "parameters" in cell.metadata.get("tags", [])]
    (names,) = ({line.split(" = ")[0] for line in c.source.splitlines() if " = " in line}
                for c in tagged)  # fmt: skip
    assert {"REPOSITORY", "INSTALL", "FLAGFILE", "MORE_FLAGS", "RUN_DIR"} == names


def test_it_trains_shows_and_submits(tmp_path):
    """From its first cell to its last, in a kernel of its own, as a person runs it."""
    from nbclient import NotebookClient

    notebook = read()
    run = tmp_path / "run"
    flags = [
        *("--backbone=tiny", "--image_size=48", "--epochs=1", "--batch_size_per_replica=64"),
        *("--lr_rampup_epochs=0", "--notensorboard"),
    ]
    source = f"INSTALL, MORE_FLAGS, RUN_DIR = False, {flags}, {str(run)!r}"
    notebook.cells.insert(2, nbformat.v4.new_code_cell(source))
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    outputs = [output for cell in notebook.cells if "outputs" in cell for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    said = "".join(output.get("text", "") for output in outputs)
    assert len(pictures) == 4
    assert "flowers_tpu doctor: " in said and "macro F1" in said
    rows = len((run / "submission.csv").read_text().splitlines()) - 1
    assert f"{rows:,} photos; the report is {run}/report.html" in said


def test_only_what_installs_is_run_by_itself(capsys):
    """The doctor may also say to reboot, or to end another process."""
    (cell,) = [cell for cell in read().cells if "installing" in cell.source]
    mends = [["sudo reboot", "python3 -m pip install -e ."], ["kill 12", "pip uninstall -y jax"]]
    troubles = [SimpleNamespace(kind="wrong", commands=commands) for commands in mends]
    ran = []
    exec(
        cell.source,
        {
            **{"troubles": troubles, "rules": SimpleNamespace(WRONG="wrong"), "INSTALL": True},
            "run": lambda *command: ran.append(command),
        },
    )
    assert ran == [
        ("bash", "-c", "python3 -m pip install -e ."),
        ("bash", "-c", "pip uninstall -y jax"),
    ]
    said = capsys.readouterr().out
    assert "agree: sudo reboot" in said and "agree: kill 12" in said
