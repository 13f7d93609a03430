"""Where a run is kept: `latest`, all of it, and `best`, the weights with the lowest loss."""

import os
import re

import tensorflow as tf
from absl import logging

from flowers_tpu.models.classifier import Classifier
from flowers_tpu.system.errors import RunError, first_line
from flowers_tpu.training.state import TrainState

_LATEST_KEPT = 2  # the newest, and the one before it in case that one is damaged

# Variables may live on a TPU that cannot see this machine's files.
_OPTIONS = tf.train.CheckpointOptions(experimental_io_device="/job:localhost")


class Checkpoints:
    """Saves and restores a run's state under `directory`.

    A checkpoint is written beside its place and renamed, so earlier ones stay whole whatever
    happens. On restoring, every byte of it is checked before any of it is used.
    """

    def __init__(self, directory: str, state: TrainState):
        latest, best = (os.path.join(directory, name) for name in ("latest", "best"))
        self._latest = _manager(state.checkpoint(), latest, _LATEST_KEPT)
        self._best = _manager(_weights(state.classifier), best, 1)
        self._classifier = state.classifier

    def save_latest(self) -> None:
        """Saves all of the state.

        Raises:
            RunError: it could not be written; the earlier checkpoints are as they were.
        """
        _save(self._latest)

    def save_best(self, epoch: int) -> None:
        """Saves the weights as the best ones.

        The number is the epoch's: an epoch that is done again after an interruption writes the same
        weights to the same place.

        Raises:
            RunError: they could not be written; the earlier checkpoints are as they were.
        """
        _save(self._best, epoch)

    def restore_latest(self) -> bool:
        """Restores the newest sound state; returns whether there was one.

        Raises:
            RunError: all there are are damaged, or they belong to another model.
        """
        path = newest_sound(self._latest.directory)
        if path is None:
            return False
        _restore(self._latest.checkpoint, path)
        return True

    def restore_best(self) -> bool:
        """Restores the best weights into the model; returns whether there were any."""
        return restore_best_weights(self._best.directory, self._classifier)


def restore_best_weights(directory: str, classifier: Classifier) -> bool:
    """Restores the weights in a `best` folder into a model; returns whether there were any.

    Raises:
        RunError: they are damaged or belong to another model.
    """
    path = newest_sound(directory)
    if path is None:
        return False
    _restore(_weights(classifier), path)
    return True


def newest_sound(directory: str) -> str | None:
    """Returns the path of the newest checkpoint that is whole; None where there is none at all.

    Goes by the files themselves: the `checkpoint` file that names the newest may be damaged too.

    Raises:
        RunError: there are some, and all are damaged.
    """
    paths = _checkpoint_paths(directory)
    damaged = []
    for path in paths:
        problem = _damage(path)
        if problem is None:
            return path
        damaged.append(f"{path} ({problem})")
        logging.warning("%s is damaged (%s); trying the one before it", path, problem)
    if damaged:
        raise RunError(
            f"no checkpoint is sound: {'; '.join(damaged)}. Copy a sound one back, or begin anew "
            "with --overwrite"
        )
    return None


def _checkpoint_paths(directory: str) -> list[str]:
    """Paths of the checkpoints in a folder, without ending, the newest first."""
    if not tf.io.gfile.isdir(directory):
        return []
    # A data file whose index is missing counts too: it tells of damage.
    found = (
        re.match(r"ckpt-(\d+)\.(index|data-)", name) for name in tf.io.gfile.listdir(directory)
    )
    numbers = {int(match.group(1)) for match in found if match}
    return [os.path.join(directory, f"ckpt-{number}") for number in sorted(numbers, reverse=True)]


def _damage(path: str) -> str | None:
    """Reads every tensor of a checkpoint, checksums included; returns what is wrong with it."""
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # A data file that is cut short raises IndexError, everything else some OpError or ValueError.
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        return first_line(error)
    return None


def _manager(checkpoint: tf.train.Checkpoint, directory: str, keep: int):
    try:
        tf.train.get_checkpoint_state(directory)
    except ValueError:  # the `checkpoint` file is damaged; it only repeats what the names say
        tf.io.gfile.remove(os.path.join(directory, "checkpoint"))
    return tf.train.CheckpointManager(checkpoint, directory, max_to_keep=keep)


def _save(manager: tf.train.CheckpointManager, number: int | None = None) -> None:
    try:
        manager.save(checkpoint_number=number, options=_OPTIONS)
    except (tf.errors.OpError, OSError) as error:
        raise RunError(
            f"{manager.directory}: cannot save a checkpoint ({first_line(error)}). The earlier "
            "ones are intact; make room or give write access, and the same command continues"
        ) from error


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Restores every value that there is on either side, or fails."""
    try:
        status = checkpoint.restore(path, options=_OPTIONS)
        status.assert_existing_objects_matched()
        status.assert_consumed()
    except (AssertionError, ValueError) as error:
        raise RunError(
            f"{path}: this checkpoint belongs to another model or optimizer "
            f"({first_line(error)}); use the --run_dir and flags that it was made with"
        ) from error


def _weights(classifier: Classifier) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(model=classifier.model)
