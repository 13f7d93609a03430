import numpy as np
import pandas as pd
import pytest

from flowers_tpu.reports import compare


def make_run(name, losses, *, scores=None, **flags):
    count = len(losses)
    history = pd.DataFrame(
        {
            "epoch": np.arange(1, count + 1),
            "stage": (["warmup"] + ["finetune"] * count)[:count],
            "val_loss": losses,
            "val_accuracy": np.arange(count) / 10,
            "val_macro_f1": np.arange(count) / 20,
        }
    )
    timing = pd.DataFrame({"train_seconds": [60.0] * count, "val_seconds": [30.0] * count})
    flags = {"warmup_epochs": 1, "epochs": 3, "seed": 0, "run_dir": name, **flags}
    return compare.Run(name, flags, history if count else pd.DataFrame(), timing, scores)


SCORES = {
    "val": {"loss": 0.25, "accuracy": 0.75, "macro_f1": 0.5},
    "train": {"loss": 0.1, "accuracy": 1.0, "macro_f1": 0.875},
}
FINISHED = make_run("a", [0.1, 0.9, 0.3, 0.4], scores=SCORES)
STOPPED = make_run("b", [0.2, 0.7, 0.6], seed=3)
BEGUN = make_run("c", [])


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b/"], ["a", "b"]),
        (["x/one/run", "y/one/run", "y/two/other"], ["x/one/run", "y/one/run", "y/two/other"]),
        (["gs://x/1/run", "gs://x/2/run"], ["1/run", "2/run"]),
        (["run", "old/run"], ["run", "old/run"]),
        (["/run", "run"], ["/run", "run"]),
    ],
)
def test_names_are_short_and_differ(paths, names):
    assert compare.names(paths) == names


def test_the_table_by_hand():
    table = compare.table([FINISHED, STOPPED, BEGUN])
    assert list(table.index) == ["a", "b", "c"]
    assert list(table["state"]) == ["finished", "unfinished (3 of 4)", "unfinished (0 of 4)"]
    assert list(table["epochs"]) == [4, 3, 0]
    assert list(table["best"]) == [3, 3, "–"]  # by validation loss, the warm-up aside
    assert list(table["minutes"]) == [6, 4.5, 0]
    scores = table[["val loss", "val acc", "val F1", "train F1"]].astype(float)
    nan = float("nan")
    expected = [[0.25, 0.75, 0.5, 0.875], [0.6, 0.2, 0.1, nan], [nan] * 4]
    np.testing.assert_allclose(scores, expected)


def test_only_flags_that_differ_are_shown():
    other = make_run("d", [0.1], learning_rate=1e-3)
    flags = compare.differing_flags([FINISHED, STOPPED, other], ignored=["run_dir"])
    assert flags.to_dict("index") == {
        "--learning_rate": {"a": "–", "b": "–", "d": "0.001"},
        "--seed": {"a": "0", "b": "3", "d": "0"},
    }
    assert compare.differing_flags([FINISHED, FINISHED], ["run_dir"]).empty


def test_the_curves_of_all_runs_are_drawn():
    figure = compare.validation_curves([FINISHED, BEGUN, STOPPED])
    for axes, column in zip(figure.axes, ("val_loss", "val_macro_f1"), strict=True):
        lines = [line for line in axes.lines if line.get_marker() == "."]
        stars = [line for line in axes.lines if line.get_marker() == "*"]
        for run, line, star in zip((FINISHED, STOPPED), lines, stars, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), run.history[column])
            assert list(star.get_xdata()) == [3]
            assert list(star.get_ydata()) == [run.history[column][2]]
            assert star.get_color() == line.get_color()
        assert lines[0].get_color() != lines[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_every_one_of_many_runs_looks_different():
    runs = [make_run(str(number), [0.5, 0.4]) for number in range(24)]
    lines = [
        line for line in compare.validation_curves(runs).axes[0].lines if line.get_marker() == "."
    ]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 24


def test_nothing_to_draw_yet():
    figure = compare.validation_curves([BEGUN, BEGUN])
    assert not any(axes.lines for axes in figure.axes)
