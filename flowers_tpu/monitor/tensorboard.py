"""A run in TensorBoard: event files that tell the truth however often the run was interrupted."""

import collections
import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from flowers_tpu.monitor.watchers import Epoch, Watcher
from flowers_tpu.system import files
from flowers_tpu.system.errors import RequestError
from flowers_tpu.training.calls import Call
from flowers_tpu.training.history import Row

try:
    # Not `tf.summary`, which has no way to say that a run goes on from an earlier step.
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
except ImportError as error:
    _MISSING = str(error)
else:
    _MISSING = ""

_SPLITS = ("train", "val")


def check_installed() -> None:
    """Raises RequestError where TensorBoard, which TensorFlow does not bring along, is missing."""
    if _MISSING:
        raise RequestError(
            f"--tensorboard: the package tensorboard cannot be imported ({_MISSING}); "
            "pip install tensorboard, or go without by --notensorboard"
        )


class Board(Watcher):
    """A run in TensorBoard: `train/` and `val/` in a folder, the run's steps across.

    A run that continues does steps again that were shown already, those after its checkpoint: they
    are declared void. An epoch may have been saved but not shown: it is added. So each epoch is
    there once, with the values of the history, wherever the run was killed.

    Args:
        folder: of the event files.
        step: steps done when the run begins or continues.
        configuration: the flags of the run.
        history: a row per finished epoch.
        times: of these epochs by number, if they are known.
    """

    def __init__(
        self,
        folder: str,
        step: int,
        configuration: Mapping[str, Any],
        history: Sequence[Row],
        times: Mapping[int, Mapping[str, float]],
    ):
        self._folder, self._step = folder, step
        self._configuration, self._history, self._times = configuration, history, times
        self._writers: dict[str, EventFileWriter] = {}

    def __enter__(self) -> "Board":
        paths = {split: files.join(self._folder, split) for split in _SPLITS}
        shown = {split: _shown(path) for split, path in paths.items()}
        for split, path in paths.items():
            self._writers[split] = EventFileWriter(path)
            # The first of these marks a beginning, every other one makes void what comes after it.
            begin = SessionLog(status=SessionLog.START)
            self._add(split, Event(step=self._step + 1, session_log=begin))
        self._add_what_is_missing(shown)
        return self

    def close(self) -> None:
        """Closes the files."""
        writers, self._writers = self._writers, {}
        with contextlib.ExitStack() as stack:  # the second also if the first one fails
            for writer in writers.values():
                stack.callback(writer.close)

    @property
    def is_open(self) -> bool:
        """Whether it shows anything; not before it is entered, nor after it has failed."""
        return bool(self._writers)

    def on_call(self, call: Call) -> None:
        """Adds what a compiled call of training steps came to."""
        names = ("learning_rate", "loss", "gradient_norm", "images_per_second")
        self._add_scalars("train", call.step, "steps", {n: getattr(call, n) for n in names})

    def on_epoch(self, epoch: Epoch) -> None:
        """Adds a row of the history, and of its times what is known."""
        for split, values in epoch_values(epoch.row, epoch.times).items():
            self._add_scalars(split, epoch.row["step"], "epoch", values)
        self._flush()

    def add_picture(self, step: int, name: str, png: bytes) -> None:
        """Adds a picture of the validation split, as the bytes of a PNG file."""
        height, width, _ = tf.io.decode_png(png).shape
        image = Summary.Image(encoded_image_string=png, width=width, height=height)
        value = Summary.Value(tag=name, image=image)
        self._add("val", Event(step=step, summary=Summary(value=[value])))
        self._flush()

    def _add_what_is_missing(self, shown: Mapping[str, Mapping[str, set[int]]]) -> None:
        if not shown["train"]["configuration"]:
            table = text_pb("configuration", _markdown(self._configuration))
            self._add("train", Event(summary=table))
        for row in self._history:
            for split, values in epoch_values(row, self._times.get(row["epoch"], {})).items():
                # Unlike a loss, an accuracy is never NaN, which would not be shown.
                if row["step"] not in shown[split]["epoch/accuracy"]:
                    self._add_scalars(split, row["step"], "epoch", values)
        self._flush()

    def _add_scalars(self, split: str, step: int, group: str, values: Mapping[str, float]) -> None:
        scalars = [
            Summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in values.items()
            if not math.isnan(value)
        ]
        self._add(split, Event(step=step, summary=Summary(value=scalars)))

    def _add(self, split: str, event: "Event") -> None:
        event.wall_time = time.time()
        self._writers[split].add_event(event)

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()


def epoch_values(row: Row, times: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Returns what is shown of an epoch, by split and name: its scores, rate and images/s."""
    val = {name.removeprefix("val_"): row[name] for name in row if name.startswith("val_")}
    train = {name: row[name] for name in ("learning_rate", *val)}
    result = {"train": train, "val": val}
    for split, values in result.items():
        values["images_per_second"] = times.get(f"{split}_images_per_second", math.nan)
    return result


def _shown(folder: str) -> dict[str, set[int]]:
    """Returns the steps that event files show of each tag."""
    shown = collections.defaultdict(set)
    names = files.list_dir(folder) if files.is_dir(folder) else []
    for name in (name for name in names if "tfevents" in name):
        for event in EventFileLoader(files.join(folder, name)).Load():
            if event.session_log.status == SessionLog.START:
                for tag, steps in shown.items():
                    shown[tag] = {step for step in steps if step < event.step}
            for value in event.summary.value:
                shown[value.tag].add(event.step)
    return shown


def _markdown(configuration: Mapping[str, Any]) -> str:
    rows = [("flag", "value"), ("---", "---")]
    for name, value in configuration.items():
        text = str(value).replace("|", "\\|")
        rows.append((f"`--{name}`", f"`{text}`" if text else ""))
    return "\n".join(f"| {name} | {value} |" for name, value in rows)
