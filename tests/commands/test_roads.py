"""Roads: what may change on a run, how it ends early, how another begins from it, where it lies."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.runs import boundary
from flowers_tpu.system import folders
from tests.calling import call
from tests.photos import write_data_set

RUN = {
    "image_size": 32,
    "backbone": "tiny",
    "weights": "none",
    "batch_size_per_replica": 8,
    "warmup_epochs": 1,
    "epochs": 2,
    "learning_rate": 1e-2,
    "lr_schedule": "constant",
    "early_stopping_patience": 0,
}
QUIET = ("--notensorboard", "--noreport", "--verbosity=-2")


def flags(**values):
    return [f"--{name}={value}" for name, value in values.items()]


def train(data, run_dir, *more, code=0, **changes):
    given = {**RUN, "data_dir": data, "run_dir": run_dir, **changes}
    assert call("train", *flags(**given), *QUIET, *more) == code


def read(run_dir, name="scores.json"):
    return json.loads((run_dir / name).read_text())


def history(run_dir):
    return pd.read_csv(run_dir / "history.csv")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=26, val=9, test=5)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train(data, run_dir)
    return run_dir


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


# What a run's outputs mean


def with_names(data, folder, *names):
    copy = shutil.copytree(data, folder)
    (copy / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return copy


def test_classes_are_found_by_name(data, run, tmp_path, capsys):
    other = with_names(data, tmp_path / "d", "class 2", "class 1", "class 0")
    assert call("evaluate", *flags(run_dir=run, data_dir=other), *QUIET) == 0
    table = pd.read_csv(run / "predictions_val.csv")
    own = pd.read_csv(data / "classes.txt", header=None)[0]
    assert (table["name"] == own[table["label"]].to_numpy()).all()
    truth = pd.read_csv(run / "confusion_val.csv", index_col=0)
    assert list(truth.index) == list(own), "the run's names, in the run's order"
    before = read(run)["val"]["accuracy"]
    assert call("evaluate", *flags(run_dir=run, data_dir=data), *QUIET) == 0
    assert read(run)["val"]["accuracy"] != before


def test_a_class_the_run_does_not_know_is_refused_before_anything_is_written(
    data, run, tmp_path, capsys
):
    other = with_names(data, tmp_path / "d", "anemone", "class 1", "class 2")
    before = (run / "scores.json").read_bytes()
    assert call("evaluate", *flags(run_dir=run, data_dir=other), *QUIET) == 2
    assert "'anemone'" in capsys.readouterr().err
    assert (run / "scores.json").read_bytes() == before
    assert call("predict", *flags(run_dir=run, data_dir=other), *QUIET) == 0
    assert set(pd.read_csv(run / "predictions_test.csv")["predicted_name"]) <= {
        f"class {n}" for n in range(3)
    }, "test photos have no class: the names are the run's"


def test_a_run_goes_on_with_its_own_data_only(data, finished, tmp_path, capsys):
    run_dir = shutil.copytree(finished, tmp_path / "r")
    (run_dir / "scores.json").unlink()
    moved = shutil.copytree(data, tmp_path / "moved")
    train(f"{moved}/", run_dir)
    assert read(run_dir) == read(finished)
    (run_dir / "scores.json").unlink()
    other = with_names(data, tmp_path / "d", "class 1", "class 0", "class 2")
    train(other, run_dir, code=2)
    assert "class 0 is 'class 1', but was 'class 0'" in capsys.readouterr().err


# What may change on a run


def test_a_finished_run_may_get_more_epochs(data, finished, run, tmp_path, capsys):
    train(data, run, epochs=3)
    assert len(history(run)) == 4
    whole = tmp_path / "whole"
    train(data, whole, epochs=3)
    for name in ("history.csv", "submission.csv", "predictions_val.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert call("evaluate", *flags(run_dir=run), *QUIET) == 0, "its flags are those of now"


@pytest.mark.parametrize(
    "change",
    [
        {"on_nan": "skip"},
        {"early_stopping_patience": 7},
        {"monitor": "val_loss"},
        {"checkpoint_every_steps": 1},
    ],
)
def test_flags_that_change_nothing_may_change(data, run, change):
    train(data, run, **change)


@pytest.mark.parametrize("change", [{"learning_rate": 2e-2}, {"lr_schedule": "cosine"}])
def test_flags_that_change_results_may_not(data, run, change, capsys):
    train(data, run, code=2, epochs=3, **change)
    error = capsys.readouterr().err
    assert f"--{next(iter(change))} was" in error and "--from_run" in error


def test_epochs_may_not_change_if_the_rate_depends_on_them(data, tmp_path, capsys):
    train(data, tmp_path / "r", epochs=1, lr_schedule="cosine")
    train(data, tmp_path / "r", epochs=2, lr_schedule="cosine", code=2)
    assert "--epochs was 1, is 2" in capsys.readouterr().err


def test_another_monitor_keeps_what_is_saved_until_something_is_better(data, run):
    before = history(run)
    kept = int(before[before["kept"]]["epoch"].iloc[-1])
    train(data, run, epochs=3, monitor="val_loss")
    rows = history(run)
    last = rows.iloc[3]
    better = last["val_loss"] < rows["val_loss"][kept - 1]
    assert bool(last["kept"]) == better
    best = int(rows[rows["kept"]]["epoch"].iloc[-1])
    table = pd.read_csv(run / "predictions_val.csv")
    assert table["loss"].mean() == pytest.approx(rows["val_loss"][best - 1], rel=1e-5)


# Ending a run


def test_finish_scores_what_there_is(data, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "r"
    train(data, run_dir, "--finish", code=1)
    assert "nothing to score yet" in capsys.readouterr().err
    train(data, run_dir, epochs=1)
    train(data, run_dir, "--finish", epochs=9)
    assert len(history(run_dir)) == 2 and (run_dir / "submission.csv").exists()
    assert call("evaluate", *flags(run_dir=run_dir), *QUIET) == 0
    assert "--finish" not in (run_dir / "flags.txt").read_text()
    train(data, run_dir, epochs=3)
    assert len(history(run_dir)) == 4, "the same command without --finish goes on"


def test_max_hours_ends_in_time_scored(data, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "r"
    now = iter(np.arange(0.0, 1e6, 60.0))  # a minute at every look
    original = boundary.TrainingBoundary
    monkeypatch.setattr(
        "flowers_tpu.commands.train.TrainingBoundary",
        lambda signals, options, began_at, agree: original(
            signals, options, began_at=0.0, clock=lambda: next(now), agree=agree
        ),
    )
    train(data, run_dir, epochs=50, max_hours=0.5, steps_per_loop=1)
    epochs = len(history(run_dir))
    assert 2 <= epochs < 51
    assert read(run_dir)["val"]["examples"] == 9 and (run_dir / "submission.csv").exists()
    monkeypatch.undo()
    whole = tmp_path / "whole"
    train(data, whole, epochs=epochs)
    train(data, run_dir, epochs=epochs)
    assert (run_dir / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()


# Beginning from another run


def weights(run_dir, which):
    path = tf.train.latest_checkpoint(str(run_dir / "checkpoints" / which))
    reader = tf.train.load_checkpoint(path)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith("model/") and "OPTIMIZER_SLOT" not in name
    }


@pytest.mark.parametrize(
    ("suffix", "which"), [("", "best"), ("@best", "best"), ("@latest", "latest")]
)
def test_a_new_run_begins_with_the_weights_of_another(data, finished, tmp_path, suffix, which):
    source = shutil.copytree(finished, tmp_path / "source")
    run_dir = tmp_path / "r"
    # So small a rate leaves the weights as they are.
    train(data, run_dir, from_run=f"{source}{suffix}", warmup_epochs=0, epochs=1, learning_rate=0)
    for name, value in weights(source, which).items():
        np.testing.assert_array_equal(value, weights(run_dir, "latest")[name])
    origin = read(run_dir, "origin.json")
    assert origin["run"] == str(source) and origin["taken"] == which
    shutil.rmtree(source)
    train(data, run_dir, from_run=f"{source}{suffix}", warmup_epochs=0, epochs=2, learning_rate=0)


def test_a_new_run_begins_with_the_whole_state_of_another(data, finished, tmp_path):
    run_dir = tmp_path / "r"
    train(data, run_dir, from_run=f"{finished}@state", epochs=3)
    whole = tmp_path / "whole"
    train(data, whole, epochs=3)
    for name in ("history.csv", "submission.csv"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes()


def test_with_other_classes_all_but_the_head_is_taken(finished, tmp_path, capsys):
    """Five classes in place of three, on two replicas with averages; then a stage in 48 px."""
    other = write_data_set(tmp_path / "d", train=26, val=9, test=5, num_classes=5)
    first, second = tmp_path / "first", tmp_path / "second"
    changes = {"warmup_epochs": 0, "epochs": 1, "learning_rate": 0, "ema_decay": 0.9}
    train(other, first, from_run=finished, replicas=2, **changes)
    before, after = weights(finished, "best"), weights(first, "latest")
    heads = {name for name in before if before[name].shape != after[name].shape}
    assert {after[name].shape[-1] for name in heads} == {5} and len(before) > len(heads)
    for name in before.keys() - heads:
        np.testing.assert_array_equal(before[name], after[name])
    kernel = next(after[name] for name in heads if after[name].ndim == 2)
    assert np.ptp(kernel) > 0  # a new head, not an empty one
    train(other, tmp_path / "s", from_run=f"{finished}@state", code=2)
    assert "its state fits no model of these" in capsys.readouterr().err

    given = {**RUN, "data_dir": other, "run_dir": second, "image_size": 48, **changes}
    given["from_run"] = first
    assert call("train", *flags(**given), "--notensorboard", "--verbosity=-2") == 0
    for name, value in weights(first, "best").items():
        np.testing.assert_array_equal(value, weights(second, "latest")[name])
    origin = read(second, "origin.json")
    assert (origin["image_size"], origin["with_head"]) == (32, True)
    assert origin["before"]["run"] == str(finished) and not origin["before"]["with_head"]
    page = (second / "report.html").read_text().partition("Each run began with")[2]
    places = [page.index(f"<td>{path}</td>") for path in (finished, first, second)]
    assert places == sorted(places) and "a new head" in page


def test_what_a_new_run_cannot_begin_with_is_said(data, finished, tmp_path, capsys):
    other = with_names(data, tmp_path / "d", "a", "b", "c")
    for changes, message in (
        ({"from_run": tmp_path / "nowhere"}, "no run there"),
        ({"from_run": f"{finished}@last"}, "expected RUN, RUN@best"),
        ({"from_run": finished, "backbone": "small_cnn"}, "belongs to another model"),
        ({"from_run": f"{finished}@state", "data_dir": other}, "has other classes"),
    ):
        train(*(changes.pop("data_dir", data), tmp_path / "r"), code=2, **changes)
        assert message in capsys.readouterr().err
        shutil.rmtree(tmp_path / "r", ignore_errors=True)


def test_a_run_goes_on_without_its_file_of_weights(data, tmp_path):
    source, run_dir = tmp_path / "w.h5", tmp_path / "r"
    from flowers_tpu.models.tiny import Tiny

    Tiny(input_shape=(32, 32, 3)).save_weights(str(source))
    train(data, run_dir, weights=source, epochs=1)
    source.unlink()
    train(data, run_dir, weights=source, epochs=2)
    assert call("evaluate", *flags(run_dir=run_dir), *QUIET) == 0


# Runs that go wrong


def test_weights_beyond_all_bounds_end_with_1_and_no_submission(data, tmp_path, capsys):
    run_dir = tmp_path / "r"
    hot = {"optimizer": "sgd", "learning_rate": 1e25, "warmup_epochs": 0, "epochs": 1}
    train(data, run_dir, code=1, global_batch_size=26, **hot)
    error = capsys.readouterr().err
    assert "the validation loss is" in error and not (run_dir / "submission.csv").exists()
    assert not (run_dir / "scores.json").exists()
    train(data, run_dir, code=1, global_batch_size=26, on_nan="skip", **hot)


def test_a_checkpoint_whose_first_step_is_not_finite_is_removed(data, tmp_path, capsys):
    run_dir = tmp_path / "r"
    hot = {"optimizer": "sgd", "warmup_epochs": 0, "checkpoint_every_steps": 1}
    train(data, run_dir, code=1, learning_rate=1e25, **hot)
    assert "checkpoint of step 1, whose first step this was, is removed" in capsys.readouterr().err
    assert not list((run_dir / "checkpoints" / "latest").glob("*.index"))


def test_the_advice_after_a_bad_step_works(data, finished, tmp_path, capsys):
    """Weights that are sound, then a rate that is not: the road that is named leads on."""
    run_dir = tmp_path / "r"
    train(data, run_dir, epochs=1)
    train(data, run_dir, epochs=1, code=0)
    hot = tmp_path / "hot"
    train(data, hot, code=1, from_run=run_dir, optimizer="sgd", learning_rate=1e25, warmup_epochs=0)
    error = capsys.readouterr().err
    assert f"--run_dir=ANOTHER --from_run={hot}@latest --learning_rate=LOWER" in error
    train(data, tmp_path / "n", from_run=f"{hot}@latest", warmup_epochs=0, learning_rate=1e-4)
    train(
        *(data, hot, "--on_nan=skip"),
        **{"from_run": run_dir, "optimizer": "sgd", "learning_rate": 1e25, "warmup_epochs": 0},
        code=1,
    )


def test_a_linear_probe_is_scored_and_opened_again(data, tmp_path):
    run_dir = tmp_path / "r"
    train(data, run_dir, warmup_epochs=2, epochs=0)
    assert call("evaluate", *flags(run_dir=run_dir), *QUIET) == 0
    assert call("predict", *flags(run_dir=run_dir), *QUIET) == 0


# Where a run lies


def test_a_new_folder_is_locked_before_anything_else(data, tmp_path, capsys):
    """As by a process that is reading its data: nothing is there yet but the lock."""
    run_dir = tmp_path / "r"
    with folders.locked(str(run_dir), "run_dir"):
        train(data, run_dir, code=2)
        assert "is in use by process" in capsys.readouterr().err
        assert [path.name for path in run_dir.iterdir()] == [folders.LOCK]
    assert not run_dir.exists()


def test_every_command_takes_a_folder_with_any_name(data, tmp_path):
    name = "r[1]\\b?*"
    run_dir, out = tmp_path / name, tmp_path / f"out {name}"
    moved = shutil.copytree(data, tmp_path / f"data {name}")
    train(moved, run_dir)
    train(moved, run_dir, epochs=3)
    for command in ("evaluate", "predict"):
        assert call(command, *flags(run_dir=run_dir, output_dir=out), *QUIET) == 0
    train(moved, tmp_path / "next", from_run=run_dir, epochs=1)
    explored = flags(data_dir=moved, image_size=32, output_dir=tmp_path / f"e {name}")
    assert call("explore", *explored, "--verbosity=-2") == 0
    assert call("check_data", *flags(data_dir=moved, image_size=32)) == 0
    assert len(list((run_dir / "checkpoints" / "latest").glob("*.index"))) == 2


def test_results_of_a_run_that_cannot_be_written_go_elsewhere(
    data, run, tmp_path, monkeypatch, capsys
):
    take = folders._take

    def refuse(path, flag, wait):
        if path == str(run):
            raise folders.UnwritableError(f"--{flag}={path}: cannot be written (read-only)")
        return take(path, flag, wait)

    monkeypatch.setattr(folders, "_take", refuse)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert call("evaluate", *flags(run_dir=run), *QUIET) == 2
    assert "--output_dir=FOLDER takes the results" in capsys.readouterr().err
    for command in ("evaluate", "predict"):
        assert call(command, *flags(run_dir=run, output_dir=tmp_path / "o"), *QUIET) == 0
    assert read(tmp_path / "o") == read(run)
    assert (tmp_path / "o" / "submission.csv").read_bytes() == (run / "submission.csv").read_bytes()
    given = flags(**{**RUN, "data_dir": data, "run_dir": run})
    assert call("train", *given, "--notensorboard", "--report") == 0, "its scores are printed"
    assert "is finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_the_last_weights_are_scored_if_asked_for(run, data):
    assert call("evaluate", *flags(run_dir=run, checkpoint="latest"), *QUIET) == 0
    rows = history(run)
    loss = pd.read_csv(run / "predictions_val.csv")["loss"].mean()
    assert loss == pytest.approx(rows["val_loss"].iloc[-1], rel=1e-5)


def test_the_best_weights_are_those_the_history_names(run, data, finished):
    """Killed between the two saves of an epoch that comes out otherwise when it is done again."""
    best = run / "checkpoints" / "best"
    kept = history(run)
    number = int(kept[kept["kept"]]["epoch"].iloc[-1])
    for path in best.glob(f"ckpt-{number}.*"):
        shutil.copy(path, best / path.name.replace(f"ckpt-{number}.", "ckpt-9."))
    data_file = next(best.glob("ckpt-9.data*"))
    data_file.write_bytes(bytes(len(data_file.read_bytes())))
    assert call("evaluate", *flags(run_dir=run), *QUIET) == 0
    assert read(run) == read(finished)
