"""Pictures of a model while it trains: some of its predictions, and its confusion matrix."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf
from matplotlib.figure import Figure

from flowers_tpu.data import decode
from flowers_tpu.data.shards import Shard
from flowers_tpu.data.source import Source
from flowers_tpu.data.splits import Split
from flowers_tpu.evaluation import predictions as predictions_lib
from flowers_tpu.monitor.tensorboard import Board
from flowers_tpu.monitor.watchers import Epoch, Watcher
from flowers_tpu.reports import confusion, photos, predictions, style

_PHOTOS, _COLUMNS = 16, 4  # of the sheet of predictions
_SECONDS_BETWEEN_PICTURES = 60  # to draw them takes two or three, with 104 classes
_DPI = {"predictions": 72, "confusion": 150}  # with 104 classes, names 12 pixels high


class Pictures(Watcher):
    """Draws a model for TensorBoard, after the last epoch, or the best in a while.

    Args:
        board: where the pictures go.
        val: the validation split.
        image_size: side of what the model sees, pixels.
        class_names: by label.
        seed: of the choice of photos.
        predict: gives the logits, `[photos, classes]`, of the photos of a source.
    """

    def __init__(
        self,
        board: Board,
        val: Split,
        image_size: int,
        class_names: Sequence[str],
        seed: int,
        predict: Callable[[Source], np.ndarray],
    ):
        self._board, self._val, self._image_size = board, val, image_size
        self._class_names, self._seed, self._predict = class_names, seed, predict
        self._drawn_at = time.monotonic()

    def on_epoch(self, epoch: Epoch) -> None:
        """Draws, if it is time to."""
        if not self._board.is_open or epoch.confusion is None:
            return
        waited = time.monotonic() - self._drawn_at
        if epoch.is_last or (epoch.is_best and waited >= _SECONDS_BETWEEN_PICTURES):
            for name, figure in self.draw(epoch.confusion).items():
                self._board.add_picture(epoch.row["step"], name, style.png(figure, _DPI[name]))
            self._drawn_at = time.monotonic()

    def draw(self, counts: np.ndarray) -> dict[str, Figure]:
        """Returns a sheet of predictions, and the confusion matrix given, `[classes, classes]`."""
        logits = self._predict(self._photos)
        return {
            "predictions": prediction_sheet(self._photos, logits, self._class_names),
            "confusion": confusion_heatmap(counts, self._class_names),
        }

    @functools.cached_property
    def _photos(self) -> Source:
        decoder = decode.for_evaluation(self._val.photo_size, self._image_size)
        return some_photos(self._val, decoder, self._seed)


def some_photos(split: Split, decoder: decode.Decoder, seed: int) -> Source:
    """Returns a few photos of a split by chance, kept in memory; for a seed always the same."""
    chosen = np.random.default_rng(seed).permutation(split.size)[:_PHOTOS]
    jpegs = tf.constant(photos.read_jpegs(split, chosen))
    labels = tf.constant(split.known_labels[chosen])
    few = dataclasses.replace(
        split,
        shards=(Shard("", split.photo_size, len(chosen)),),
        ids=split.ids[chosen],
        labels=split.known_labels[chosen],
        fingerprints=split.fingerprints[chosen],
        jpeg_sizes=split.jpeg_sizes[chosen],
    )
    return Source(
        few,
        decoder.side,
        elements=lambda shard: tf.data.Dataset.range(len(chosen)),
        example=lambda number: {"image": decoder(jpegs[number]), "label": labels[number]},
    )


def prediction_sheet(source: Source, logits: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Returns the photos of a source as the model sees them, with what it takes them for."""
    pixels = [source.example(number)["image"].numpy() for number in range(source.split.size)]
    split = source.split
    table = predictions_lib.table(split.ids, logits, split.labels, tuple(class_names))
    texts, colors = predictions.titles(table)
    return photos.sheet(pixels, texts, columns=_COLUMNS, colors=colors)


def confusion_heatmap(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Returns a confusion matrix, `[classes, classes]` with the truth down, as a heatmap."""
    matrix = pd.DataFrame(counts, index=class_names, columns=class_names)
    return confusion.heatmap(confusion.shares(matrix), "validation: shares of each class")
