import io
import json

import pandas as pd
import pytest

from flowers_tpu.benchmarks import table
from flowers_tpu.benchmarks.results import Change, Row
from flowers_tpu.system.errors import RequestError

ROWS = [
    Row("input", "decode", "images/s", (1740.0, 1750.0, 1800.0)),
    Row("input", "a longer name", "x", (0.5, 0.25, 0.75)),
    Row("memory", "peak", "MB", (997.0,)),
]

ABOUT = {
    "environment": {
        **{"git_commit": None, "processor": "an abacus", "cores": 2, "python": "3.11.7"},
        "packages": {"tensorflow": "2.21.0", "numpy": "2.4"},
    },
    "flags": {"image_size": 96, "run_dir": "runs/a"},
    "options": {"rounds": 5, "output_dir": "runs/b"},
}


def test_the_table_has_medians_and_quartiles_under_the_groups_names():
    lines = table.lines(ROWS)
    assert [line.split() for line in lines] == [
        [],
        ["input", "median", "quartiles"],
        ["decode", "1,750", "1,745", "1,775", "images/s"],
        ["a", "longer", "name", "0.500", "0.375", "0.625", "x"],
        [],
        ["memory", "median", "quartiles"],
        ["peak", "997", "MB"],
    ]
    assert lines[2].index("images/s") == lines[3].index("x") == lines[6].index("MB")


@pytest.mark.parametrize(
    "value, text",
    [
        *((12345.6, "12,346"), (99.94, "99.9"), (2.3456, "2.346"), (0.125, "0.125")),
        *((0.00037, "0.00037"), (-0.028, "-0.028"), (0.0, "0")),
    ],
)
def test_numbers_are_as_long_as_they_mean_something(value, text):
    assert table.number(value) == text


def test_the_csv_says_the_same():
    frame = pd.read_csv(io.StringIO(table.as_csv(ROWS, ABOUT)), keep_default_na=False)
    assert list(frame.columns) == [
        *("group", "name", "unit", "median", "lower_quartile", "upper_quartile", "rounds"),
        *("commit", "processor", "tensorflow"),
    ]
    assert list(frame["median"]) == [1750.0, 0.5, 997.0]
    assert list(frame["upper_quartile"]) == [1775.0, 0.625, 997.0]
    assert list(frame["rounds"]) == [3, 3, 1]
    assert list(frame["processor"]) == ["an abacus"] * 3
    assert list(frame["tensorflow"]) == ["2.21.0"] * 3
    assert list(frame["commit"]) == [""] * 3  # not of a checkout


def test_json_gives_the_same_rows_back(tmp_path):
    path = tmp_path / "benchmark.json"
    path.write_text(table.as_json(ROWS, ABOUT))
    rows, about = table.read_json(str(path))
    assert rows == ROWS
    assert about == {"made_by": table.MADE_BY, **ABOUT}
    assert json.loads(path.read_text())["environment"] == ABOUT["environment"]


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"made_by": "another"}'])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "benchmark.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RequestError, match=r"--compare_to=.*benchmark\.json.*expected"):
        table.read_json(str(path))


def test_a_comparison_marks_what_got_slower():
    before = Row("input", "decode", "images/s", (2000.0, 2100.0, 1900.0))
    slower, same = table.comparison_lines([Change(ROWS[0], before), Change(before, before)])[1:]
    assert slower.split()[:5] == ["input:", "decode", "2,000", "1,750", "0.875"]
    assert "SLOWER" in slower and "SLOWER" not in same
    assert table.comparison_lines([]) == ["It has nothing that was measured now."]


def test_what_differs_from_an_earlier_benchmark_is_told():
    assert table.difference_lines(ABOUT, ABOUT) == []
    now = {
        "environment": {
            **{"git_commit": "abc", "processor": "an Intel Xeon", "cores": 2, "python": "3.11.7"},
            "packages": {"tensorflow": "2.20.0", "numpy": "2.4", "torch": "2.5.0"},
        },
        "flags": {"image_size": 512, "run_dir": "runs/other", "dropout": 0.2},
        "options": {"rounds": 9, "output_dir": "runs/other"},
    }
    assert table.difference_lines(ABOUT, now) == [
        "--image_size was 96, is 512",
        "--rounds was 5, is 9",
        "git_commit was None, is abc",
        "processor was an abacus, is an Intel Xeon",
        "tensorflow was 2.21.0, is 2.20.0",
        "--dropout was None, is 0.2",
        "torch was None, is 2.5.0",
    ]
    assert "processor was None, is an abacus" in table.difference_lines({}, ABOUT)
