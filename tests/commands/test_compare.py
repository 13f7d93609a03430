import pytest

from flowers_tpu.commands import compare
from flowers_tpu.reports.options import CompareOptions
from flowers_tpu.system.errors import RequestError
from tests import finished_runs
from tests.calling import call
from tests.photos import write_data_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs of one name, the second of them not finished."""
    folder = tmp_path_factory.mktemp("compare")
    data = write_data_set(folder / "data")
    finished_runs.write_run(folder / "old" / "run", data)
    finished_runs.write_run(folder / "new" / "run", data, learning_rate=1e-3, replicas=2, seed=7)
    (folder / "new" / "run" / "scores.json").unlink()
    return folder


def test_the_command(folder, tmp_path, capsys):
    output = tmp_path / "plots" / "curves.png"
    paths = [f"{folder}/old/run", f"{folder}/new/run/"]
    assert call("compare", *paths, f"--output={output}") == 0
    out, err = capsys.readouterr()
    assert not err
    scores, *flags = out.split("\n--")
    rows = {line.split()[0]: line.split()[1:] for line in scores.splitlines()[:4] if line.strip()}
    assert rows["old/run"][:3] == ["finished", "4", "3"]
    assert rows["new/run"] == [
        *("unfinished", "(4", "of", "4)", "4", "3"),
        *("1.2500", "0.7500", "0.6250", "–", "4.0"),
    ]
    assert [flag.split()[:3] for flag in flags] == [
        ["replicas", "0", "2"],
        ["learning_rate", "3e-05", "0.001"],
        ["seed", "0", "7"],
    ]
    before = output.read_bytes()
    assert before.startswith(b"\x89PNG")
    output.write_bytes(b"mine")
    assert call("compare", *paths, f"--output={output}") == 2
    assert f"compare: --output={output}: exists" in capsys.readouterr().err
    assert output.read_bytes() == b"mine"
    assert call("compare", *paths, f"--output={output}", "--overwrite") == 0
    assert output.read_bytes() == before


@pytest.mark.parametrize("output", ["file/c.png", "file/below/c.png"])
def test_an_output_that_cannot_be_written_is_named_first(folder, tmp_path, capsys, output):
    (tmp_path / "file").write_text("mine")
    paths = [f"{folder}/old/run", f"{folder}/new/run"]
    with pytest.raises(RequestError, match=f"--output={tmp_path}/{output}: .*cannot be "):
        compare.compare(CompareOptions(str(tmp_path / output)), paths)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("names", "output", "message"),
    [
        (["old/run"], "c.png", "expected at least two runs"),
        (["old/run", "old/run/"], "c.png", "old/run: is given twice"),
        (["old/run", "data"], "c.png", r"data: no run there \(it has no config.json\)"),
        (["old/run", "new/run"], "c.pdf", "c.pdf: expected the name of a PNG file"),
    ],
)
def test_wrong_requests(folder, tmp_path, names, output, message):
    paths = [f"{folder}/{name}" for name in names]
    with pytest.raises(RequestError, match=message):
        compare.compare(CompareOptions(str(tmp_path / output)), paths)
    assert not list(tmp_path.iterdir())
