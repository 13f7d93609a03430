"""A run as it is watched: what is shown is what happened, however often it was interrupted."""

import types

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tests.test_board import shown

from flowers_tpu.commands import train
from flowers_tpu.data import decode, pipeline, records, source
from flowers_tpu.data.splits import read_split
from flowers_tpu.monitor import pictures, tensorboard
from flowers_tpu.options import Config
from flowers_tpu.runs.folder import RunDirectory
from flowers_tpu.system.errors import RequestError, StoppedError
from flowers_tpu.training import calls
from tests.photos import write_data_set
from tests.test_resume import StopAt


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=26, val=40, test=5)


@pytest.fixture(scope="module")
def val(data):
    return read_split(str(data), "val", 32, 3)


def make_config(data, run_dir, **changes):
    values = {
        "data_dir": str(data),
        "run_dir": str(run_dir),
        "image_size": 32,
        "replicas": 1,
        "backbone": "small_cnn",
        "weights": "none",
        "batch_size_per_replica": 8,
        "warmup_epochs": 0,
        "epochs": 3,
        "learning_rate": 1e-2,
        "steps_per_loop": 1,
        "report": False,
    }
    return Config(**(values | changes))


def profiles(run_dir):
    return list((run_dir / "tensorboard").rglob("*.xplane.pb"))


def test_an_interrupted_run_shows_what_its_history_says(data, tmp_path, monkeypatch):
    """Stopped in epoch 2; then the event files of a process that was killed before it wrote."""
    run_dir = tmp_path / "run"
    config = make_config(data, run_dir, profile_steps="4,6")
    monkeypatch.setattr(experiment, "Interruption", StopAt)
    monkeypatch.setattr(StopAt, "stop_at", 3 + 5 + 2)  # 3 steps, 5 batches of validation, 2 steps
    with pytest.raises(StoppedError):
        train.train(config)
    (cut_short,) = profiles(run_dir)
    cut_short.unlink()
    monkeypatch.setattr(StopAt, "stop_at", None)
    train.train(config)
    folder, history = run_dir / "tensorboard", pd.read_csv(run_dir / "history.csv")
    train, validation = shown(folder, "train"), shown(folder, "val")
    for name in ("loss", "accuracy", "top5_accuracy", "macro_f1"):
        for values, column in ((train, name), (validation, f"val_{name}")):
            expected = dict(zip(history["step"], np.float32(history[column]), strict=True))
            assert values[f"epoch/{name}"] == expected, column
    assert list(train["steps/loss"]) == list(range(1, 10))
    assert [train["steps/loss"][step] for step in (3, 6, 9)] == list(np.float32(history["loss"]))
    assert all(norm > 0 for norm in train["steps/gradient_norm"].values())
    assert list(train["configuration"]) == [0]
    assert list(validation["predictions"]) == list(validation["confusion"]) == [9]
    assert not profiles(run_dir), "step 4 was over when the run continued"


def test_pictures_and_profile_are_of_the_run(data, tmp_path, monkeypatch):
    """With one epoch the last weights are the best, so the tables of the run tell what is right."""
    drawn = {}
    real = pictures.Pictures.draw

    def draw(pictures, counts):
        drawn.update(pictures=pictures, counts=counts, logits=pictures.predict(pictures._photos))
        return real(pictures, counts)

    monkeypatch.setattr(pictures.Pictures, "draw", draw)
    run_dir = tmp_path / "run"
    # 40 photos, and 16 of them, in batches of 10: the last batch is filled up.
    config = make_config(
        data, run_dir, warmup_epochs=1, epochs=1, batch_size_per_replica=10, profile_steps="2,3"
    )
    train.train(config)
    matrix = pd.read_csv(run_dir / "confusion_val.csv", index_col=0)
    np.testing.assert_array_equal(drawn["counts"], matrix)
    table = pd.read_csv(run_dir / "predictions_val.csv").set_index("id")
    ids = drawn["pictures"]._photos.split.ids
    assert len(set(ids)) == 16
    np.testing.assert_array_equal(drawn["logits"].argmax(axis=1), table.loc[ids, "predicted_label"])
    (profile,) = profiles(run_dir)
    # Of step 3, the first of fine-tuning; the warm-up has no gradients of convolutions.
    assert b"Conv2DBackpropFilter" in profile.read_bytes()


def test_without_tensorboard_nothing_is_begun(data, tmp_path, monkeypatch):
    monkeypatch.setattr(board, "_MISSING", "No module named 'tensorboard'")
    with pytest.raises(RequestError, match="--notensorboard"):
        train.train(make_config(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_notensorboard_writes_nothing(tmp_path):
    config = Config(tensorboard=False)
    state = types.SimpleNamespace(step=tf.constant(0))
    with pictures.Live(config, RunDirectory(str(tmp_path)), None, state, None) as watched:
        watched.on_steps(calls.Call(1, 0.1, 1.0, 1.0, 1.0))
        watched.on_epoch([{"step": 1}], {})
    assert not list(tmp_path.iterdir())


# The photos that are shown


def test_some_photos_are_a_few_of_the_split_as_the_model_sees_them(val):
    decoder = decode.for_evaluation(val.photo_size, 16)
    few = pictures.some_photos(val, decoder, seed=3)
    every = {
        photo_id: (label, image.numpy())
        for photo_id, label, image in zip(
            val.ids, val.labels, _images(source.from_files(val, decoder)), strict=True
        )
    }
    assert len(set(few.split.ids)) == few.split.size == 16
    assert set(few.split.ids) != set(val.ids[:16])
    for photo_id, label, image in zip(few.split.ids, few.split.labels, _images(few), strict=True):
        assert label == every[photo_id][0]
        np.testing.assert_array_equal(image, every[photo_id][1])


def _images(examples):
    dataset = pipeline.eval_dataset(examples, global_batch_size=8, local_batch_size=8)
    images = [image for batch in dataset for image in batch["image"]]
    return images[: examples.split.size]


def test_the_choice_of_photos_is_the_seeds(val):
    decoder = decode.for_evaluation(val.photo_size, 32)
    first, again, other = (pictures.some_photos(val, decoder, seed).split.ids for seed in (0, 0, 1))
    assert list(first) == list(again) != list(other)


def test_titles_tell_right_from_wrong(val):
    few = pictures.some_photos(val, decode.for_evaluation(val.photo_size, 32), seed=0)
    names = ("rose", "tulip", "iris")
    taken_for = (few.split.labels + (np.arange(16) < 3)) % 3  # the first three are wrong
    figure = pictures.prediction_sheet(few, np.eye(3)[taken_for] * 5, names)
    titles = [text.get_text().replace("\n", " ") for text in figure.texts if text.get_text()]
    truth = [names[label] for label in few.split.labels]
    expected = [
        name if number >= 3 else f"{names[taken_for[number]]} → {name}"
        for number, name in enumerate(truth)
    ]
    assert titles == expected
    np.testing.assert_array_equal(
        figure.axes[5].images[0].get_array(), few.example(tf.constant(5))["image"]
    )


def test_the_heatmap_shows_shares_of_the_truth():
    figure = pictures.confusion_heatmap(np.array([[3.0, 1.0], [0.0, 2.0]]), ("rose", "tulip"))
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), [[0.75, 0.25], [0, 1]])


# When pictures are drawn


def test_pictures_are_of_the_best_epochs_but_not_all_the_time(monkeypatch):
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(live, "time", clock)
    monkeypatch.setattr(pictures.style, "png", lambda figure, dpi: figure)
    plan = types.SimpleNamespace(warmup_epochs=0, epochs=6, early_stopping_patience=0)
    pictures = types.SimpleNamespace(draw=lambda counts: {"confusion": counts})
    watched = pictures.Live(None, None, plan, None, pictures)
    added, epochs = [], []
    watched._board = types.SimpleNamespace(
        add_epoch=lambda row, times: epochs.append(row["step"]),
        add_picture=lambda step, name, png: added.append((step, name, png)),
    )
    history = []
    # Seconds later, and the validation loss: the best and soon, the best, not the best, the best
    # and soon, the best, the last.
    for epoch, (seconds, loss) in enumerate(
        [(50, 6.0), (10, 5.0), (90, 9.0), (0, 4.0), (10, 3.0), (1, 9.0)], 1
    ):
        clock.now += seconds
        history.append({"step": epoch, "val_loss": loss})
        watched.on_validation(epoch * 100)
        watched.on_epoch(history, {})
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert added == [(step, "confusion", step * 100) for step in (2, 4, 6)]


def test_pictures_that_cannot_be_drawn_do_not_end_the_training(data, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("Image size of 99999x9 pixels is too large")

    monkeypatch.setattr(pictures.confusion, "heatmap", fail)
    run_dir = tmp_path / "run"
    train.train(make_config(data, run_dir, epochs=1))
    assert (run_dir / "scores.json").exists()
    (message,) = [record.getMessage() for record in caplog.records if record.name == "absl"]
    assert "TensorBoard" in message and "ValueError: Image size of 99999x9" in message
    validation = shown(run_dir / "tensorboard", "val")
    assert "epoch/loss" in validation and "predictions" not in validation


def test_names_of_104_classes_can_be_read():
    """A letter of 6 points is 12 pixels high."""
    size = 6 / 72 * pictures._DPI["confusion"]
    assert size >= 12
    names = [f"class {number}" for number in range(104)]
    figure = pictures.confusion_heatmap(np.eye(104), names)
    assert {label.get_fontsize() for label in figure.axes[0].get_yticklabels()} == {6}
    width, height = figure.get_size_inches()
    assert pictures.style.fitting_dpi(width, height, pictures._DPI["confusion"]) == pictures._DPI["confusion"]


# When a profile is taken


@pytest.fixture
def profiler(monkeypatch):
    """Stands in for TensorFlow's; tells when it was started and stopped."""
    calls = []
    stand_in = types.SimpleNamespace(
        start=lambda folder: calls.append(f"start {folder}"), stop=lambda: calls.append("stop")
    )
    monkeypatch.setattr(pictures.tf.profiler, "experimental", stand_in)
    return calls


@pytest.mark.parametrize(
    ("first", "calls_end_at", "events", "said"),
    [
        (0, [2, 5, 9, 12], ["begin", 2, 5, "start f", 9, "stop", 12], "profile written: f/plugins"),
        (5, [9, 12], ["start f", "begin", 9, "stop", 12], "profile written"),
        (0, [2, 5, 7], ["begin", 2, 5, "start f", 7, "stop"], "cut short, as the run ended"),
        (7, [9, 12], ["begin", 9, 12], "nothing is profiled, 7 steps are done already"),
        (20, [], ["begin"], "nothing is profiled, 20 steps are done already"),
        (0, [2, 4], ["begin", 2, 4], "nothing was profiled, the run did not come so far"),
    ],
)
def test_a_profile_is_of_its_steps(profiler, capsys, first, calls_end_at, events, said):
    with pictures.Profile("f", (5, 9), first) as profile:
        profiler.append("begin")
        for step in calls_end_at:
            profiler.append(step)
            profile.at(step)
    assert profiler == events
    out = capsys.readouterr().out
    assert out.startswith("--profile_steps=5,9: ") and said in out and out.count("\n") == 1


def test_a_profile_ends_with_an_error(profiler):
    with pytest.raises(ValueError, match="broken"), pictures.Profile("f", (0, 9), 0):
        raise ValueError("broken")
    assert profiler == ["start f", "stop"]
