"""What a person watches while a run goes on: curves and pictures in TensorBoard, and a profile.

All of it goes to `tensorboard/` in the run directory.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging
from matplotlib.figure import Figure

from flowers_tpu import files, progress
from flowers_tpu.board import Board
from flowers_tpu.config import Config
from flowers_tpu.data import decode, records
from flowers_tpu.data.source import Source
from flowers_tpu.errors import first_line
from flowers_tpu.evaluation import predictions as predictions_lib
from flowers_tpu.reports import confusion, photos, predictions, style
from flowers_tpu.run_directory import RunDirectory
from flowers_tpu.training import loop
from flowers_tpu.training.state import TrainState

_FOLDER = "tensorboard"
_PHOTOS, _COLUMNS = 16, 4  # of the sheet of predictions
_SECONDS_BETWEEN_PICTURES = 60  # to draw them takes two or three, with 104 classes
_DPI = {"predictions": 72, "confusion": 150}  # with 104 classes, names 12 pixels high


class Live:
    """Shows a run as it goes on; a context, so that what it writes ends well.

    Args:
        config: resolved.
        run: where it goes.
        plan: of the run.
        state: as it begins or continues.
        pictures: what is drawn of it.
    """

    def __init__(
        self,
        config: Config,
        run: RunDirectory,
        plan: loop.Plan,
        state: TrainState,
        pictures: "Pictures",
    ):
        self._config, self._run, self._plan, self._state = config, run, plan, state
        self._pictures = pictures
        self._board: Board | None = None
        self._profile: Profile | None = None
        self._confusion: np.ndarray | None = None
        self._drawn_at = time.monotonic()
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> "Live":
        config, run, step = self._config, self._run, int(self._state.step.numpy())
        folder = run.file(_FOLDER)
        if config.tensorboard:
            self._board = self._contexts.enter_context(Board(folder, step))
            timing = run.read_table("timing.csv") if run.has("timing.csv") else pd.DataFrame()
            times = {row["epoch"]: row for row in timing.to_dict("records")}
            self._board.begin(dataclasses.asdict(config), self._state.progress.history, times)
        if config.profiled_steps:
            self._profile = Profile(folder, config.profiled_steps, step)
            self._contexts.enter_context(self._profile)
        return self

    def __exit__(self, *error: object) -> None:
        self._contexts.__exit__(*error)

    @property
    def stops(self) -> Sequence[int]:
        """Steps at which a compiled call has to end."""
        return self._config.profiled_steps or ()

    def on_steps(self, call: loop.Call) -> None:
        """Shows what a compiled call of training steps came to."""
        logging.debug(
            "step %d: loss of the epoch so far %.4f, gradient norm %.4g, %.0f images/s",
            *(call.step, call.loss, call.gradient_norm, call.images_per_second),
        )
        if self._board:
            self._board.add_call(call)
        if self._profile:
            self._profile.at(call.step)

    def on_validation(self, counts: np.ndarray) -> None:
        """Takes the confusion matrix of an epoch, `[classes, classes]`, before the epoch ends."""
        self._confusion = counts

    def on_epoch(self, history: Sequence[Mapping], times: Mapping[str, float]) -> None:
        """Shows the epoch that ended; with pictures if it is the last, or the best in a while."""
        if not self._board:
            return
        row = history[-1]
        self._board.add_epoch(row, times)
        is_best = loop.best_row(self._plan, history) is row
        waited = time.monotonic() - self._drawn_at
        if loop.finished(self._plan, history) or (is_best and waited >= _SECONDS_BETWEEN_PICTURES):
            for name, picture in self._draw().items():
                self._board.add_picture(row["step"], name, picture)
            self._drawn_at = time.monotonic()

    def _draw(self) -> dict[str, bytes]:
        """Returns the pictures as PNGs, or none: training is worth more than they are."""
        try:
            figures = self._pictures.draw(self._confusion)
            return {name: style.png(figure, _DPI[name]) for name, figure in figures.items()}
        except Exception as error:
            logging.warning(
                "pictures for TensorBoard could not be drawn (%s: %s); training goes on",
                *(type(error).__name__, first_line(error)),
            )
            logging.debug("where it went wrong", exc_info=True)
            return {}


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What is drawn of a model while it trains.

    Attributes:
        val: the validation split.
        image_size: side of what the model sees, pixels.
        class_names: by label.
        seed: of the choice of photos.
        predict: gives the logits, `[photos, classes]`, of the photos of a source.
    """

    val: records.Split
    image_size: int
    class_names: Sequence[str]
    seed: int
    predict: Callable[[Source], np.ndarray]

    def draw(self, counts: np.ndarray) -> dict[str, Figure]:
        """Returns a sheet of predictions, and the confusion matrix given, `[classes, classes]`."""
        logits = self.predict(self._photos)
        return {
            "predictions": prediction_sheet(self._photos, logits, self.class_names),
            "confusion": confusion_heatmap(counts, self.class_names),
        }

    @functools.cached_property
    def _photos(self) -> Source:
        decoder = decode.for_evaluation(self.val.photo_size, self.image_size)
        return some_photos(self.val, decoder, self.seed)


class Profile:
    """A profile of some steps for TensorBoard's profiler; a context, so that it always ends well.

    Args:
        folder: where it goes.
        steps: it begins after the first of these steps of the run and ends after the second.
        step: steps done when the run begins or continues.
    """

    def __init__(self, folder: str, steps: tuple[int, int], step: int):
        self._folder = folder
        self._begin, self._end = steps
        self._name = f"--profile_steps={self._begin},{self._end}"
        self._waits = step <= self._begin
        self._runs = False
        if not self._waits:
            progress.note(f"{self._name}: nothing is profiled, {step:,} steps are done already.")
        self.at(step)

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._waits:
            progress.note(f"{self._name}: nothing was profiled, the run did not come so far.")
        elif self._runs:
            self._stop("cut short, as the run ended before")

    def at(self, step: int) -> None:
        """Begins or ends where it is time to, between two compiled calls."""
        if self._waits and step >= self._begin:
            self._waits, self._runs = False, True
            tf.profiler.experimental.start(self._folder)
        elif self._runs and step >= self._end:
            self._stop("written")

    def _stop(self, how: str) -> None:
        self._runs = False
        tf.profiler.experimental.stop()
        progress.note(
            f"{self._name}: profile {how}: {files.join(self._folder, 'plugins', 'profile')}"
        )


def some_photos(split: records.Split, decoder: decode.Decoder, seed: int) -> Source:
    """Returns a few photos of a split by chance, kept in memory; for a seed always the same."""
    chosen = np.random.default_rng(seed).permutation(split.size)[:_PHOTOS]
    jpegs = tf.constant(photos.read_jpegs(split, chosen))
    labels = tf.constant(split.labels[chosen])
    few = dataclasses.replace(
        split,
        shards=(records.Shard("", split.photo_size, len(chosen)),),
        ids=split.ids[chosen],
        labels=split.labels[chosen],
        fingerprints=None,
        jpeg_sizes=None,
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
