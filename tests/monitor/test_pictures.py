"""Pictures of a model while it trains: what is on them, and when they are drawn."""

import types

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import decode, pipeline, source
from flowers_tpu.data.splits import read_split
from flowers_tpu.monitor import pictures
from tests.monitor.watching import epoch_of, row
from tests.photos import write_data_set


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    data = write_data_set(tmp_path_factory.mktemp("data") / "d", train=4, val=40, test=5)
    return read_split(str(data), "val", 3)


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


@pytest.fixture
def watched(monkeypatch):
    """Pictures that are drawn at once, as text; `.seconds_later(n)` moves the clock."""
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(pictures, "time", clock)
    monkeypatch.setattr(pictures.style, "png", lambda figure, dpi: f"{figure} at {dpi}")
    monkeypatch.setattr(
        pictures.Pictures, "draw", lambda self, counts: {"confusion": f"picture of {counts}"}
    )
    added = []
    board = types.SimpleNamespace(is_open=True, add_picture=lambda *values: added.append(values))
    watched = pictures.Pictures(board, None, 32, (), 0, None)
    return types.SimpleNamespace(on_epoch=watched.on_epoch, board=board, added=added, clock=clock)


def test_pictures_are_of_the_best_epochs_but_not_all_the_time(watched):
    """The best and soon, the best, not the best, the best and soon, the best, the last."""
    for epoch, (seconds, is_best, is_last) in enumerate(
        [
            (50, True, False),
            (10, True, False),
            (90, False, False),
            (0, True, False),
            (10, True, False),
            (1, False, True),
        ],
        1,
    ):
        watched.clock.now += seconds
        history = [row(number) for number in range(1, epoch + 1)]
        watched.on_epoch(epoch_of(history, is_best=is_best, is_last=is_last, confusion=epoch * 100))
    assert watched.added == [
        (10 * epoch, "confusion", f"picture of {epoch * 100} at 150") for epoch in (2, 4, 6)
    ]


def test_nothing_is_drawn_for_a_board_that_has_failed(watched):
    watched.board.is_open = False
    watched.on_epoch(epoch_of([row(1)], is_last=True))
    assert watched.added == []


def test_names_of_104_classes_can_be_read():
    """A letter of 6 points is 12 pixels high."""
    size = 6 / 72 * pictures._DPI["confusion"]
    assert size >= 12
    names = [f"class {number}" for number in range(104)]
    figure = pictures.confusion_heatmap(np.eye(104), names)
    assert {label.get_fontsize() for label in figure.axes[0].get_yticklabels()} == {6}
    width, height = figure.get_size_inches()
    assert (
        pictures.style.fitting_dpi(width, height, pictures._DPI["confusion"])
        == pictures._DPI["confusion"]
    )
