"""Where a run is kept: `latest`, all of it, and `best`, the weights of the best epoch."""

import re

import tensorflow as tf
from absl import logging

from flowers_tpu.models.classifier import Classifier
from flowers_tpu.system import files, workers
from flowers_tpu.system.errors import RunError, first_line
from flowers_tpu.training.state import TrainState

# Of `latest` the newest, and the one before it in case that one is damaged. Of `best` the one that
# the history names, and one of an epoch that is saved but not yet in it.
_KEPT = 2


def _options() -> tf.train.CheckpointOptions:
    """Variables may live on a TPU that cannot see this machine's files."""
    if workers.this_cluster():  # whose machines have other names, and their own files
        return tf.train.CheckpointOptions()
    return tf.train.CheckpointOptions(experimental_io_device="/job:localhost")


class Checkpoints:
    """Saves and restores a run's state under `directory`.

    A checkpoint is written beside its place and renamed, so earlier ones stay whole whatever
    happens. On restoring, every byte of it is checked before any of it is used.
    """

    def __init__(self, directory: str, state: TrainState):
        latest, best = (files.join(directory, name) for name in ("latest", "best"))
        self._latest = _Kept(state.checkpoint(), latest)
        self._best = _Kept(_weights(state.classifier), best)

    def save_latest(self) -> None:
        """Saves all of the state.

        Raises:
            RunError: it could not be written; the earlier checkpoints are as they were.
        """
        self._latest.save()

    def save_best(self, epoch: int) -> None:
        """Saves the weights as the best ones.

        The number is the epoch's: an epoch that is done again after an interruption writes the same
        weights to the same place.

        Raises:
            RunError: they could not be written; the earlier checkpoints are as they were.
        """
        self._best.save(epoch)

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

    def has_latest(self) -> bool:
        """Returns whether there is a checkpoint of the state, sound or not."""
        return has_checkpoint(self._latest.directory)

    def drop_latest(self) -> bool:
        """Removes the newest state, as it is not sound; returns whether there is one before it."""
        numbers = _numbers(self._latest.directory)
        for number in numbers[:1]:
            _remove(self._latest.directory, number)
        return len(numbers) > 1

    def restore_best(self, epoch: int) -> None:
        """Restores the weights of the best epoch into the model; see `restore_best_weights`."""
        _restore_epoch(self._best.checkpoint, self._best.directory, epoch)


def restore_best_weights(directory: str, classifier: Classifier, epoch: int) -> None:
    """Restores the weights in a `best` folder into a model.

    Args:
        directory: the folder.
        classifier: the model.
        epoch: the best one of the history, counted from 1: the folder may also hold one that is not
            in it, of a run that was killed between the two.

    Raises:
        RunError: they are not there, damaged, or belong to another model.
    """
    _restore_epoch(_weights(classifier), directory, epoch)


def restore_latest_weights(directory: str, classifier: Classifier) -> None:
    """Restores the weights of the newest sound state in a `latest` folder into a model.

    Raises:
        RunError: there is none, all are damaged, or they belong to another model.
    """
    path = newest_sound(directory)
    if path is None:
        raise RunError(f"{directory}: has no checkpoint yet")
    _restore(_weights(classifier), path, others_too=True)


def has_checkpoint(directory: str) -> bool:
    """Returns whether there is a checkpoint in a folder, sound or not."""
    return bool(_numbers(directory))


def newest_sound(directory: str) -> str | None:
    """Returns the path of the newest checkpoint that is whole; None if there is none at all.

    Goes by the files themselves: the `checkpoint` file that names the newest may be damaged too.

    Raises:
        RunError: there are some, and all are damaged; or they cannot be reached.
    """
    damaged = []
    for number in _numbers(directory):
        path = files.join(directory, f"ckpt-{number}")
        problem = _damage(directory, number)
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


class _Kept:
    """A checkpoint with the folder it is kept in, of which only the newest `_KEPT` stay."""

    def __init__(self, checkpoint: tf.train.Checkpoint, directory: str):
        self.checkpoint, self.directory = checkpoint, directory
        self._manager: tf.train.CheckpointManager | None = None

    def save(self, number: int | None = None) -> None:
        if not workers.may_write():
            return
        manager = self._manager or _manager(self.checkpoint, self.directory)
        self._manager = manager

        def work() -> None:
            manager.save(checkpoint_number=number, options=_options())

        try:
            files.patiently(work, self.directory)
            for old in _numbers(self.directory)[_KEPT:]:
                _remove(self.directory, old)
        except (tf.errors.OpError, OSError) as error:
            raise RunError(
                f"{self.directory}: cannot save a checkpoint ({first_line(error)}). The earlier "
                "ones are intact; make room or give write access, and the same command continues"
            ) from error


def _manager(checkpoint: tf.train.Checkpoint, directory: str) -> tf.train.CheckpointManager:
    try:
        tf.train.get_checkpoint_state(directory)
    except ValueError:  # the `checkpoint` file is damaged; it only repeats what the names say
        files.remove(files.join(directory, "checkpoint"))
    # What is old is removed here, by the files that are there: the manager knows its own only.
    return tf.train.CheckpointManager(
        checkpoint, files.without_pattern(directory), max_to_keep=None
    )


def _numbers(directory: str) -> list[int]:
    """Numbers of the checkpoints in a folder, the newest first."""
    if not files.is_dir(directory):
        return []
    # A data file whose index is missing counts too: it is a trace of damage.
    found = (re.match(r"ckpt-(\d+)\.(index|data-)", name) for name in files.list_dir(directory))
    return sorted({int(match.group(1)) for match in found if match}, reverse=True)


def _remove(directory: str, number: int) -> None:
    """Removes a checkpoint, its index last: without one it is damaged, not another's."""
    names = [n for n in files.list_dir(directory) if n.startswith(f"ckpt-{number}.")]
    for name in sorted(names, key=lambda name: name.endswith(".index")):
        files.remove(files.join(directory, name))


def _damage(directory: str, number: int) -> str | None:
    """Reads every tensor of a checkpoint, checksums included; returns what is wrong with it.

    TensorFlow's reader gives one kind of error for what is damaged and what cannot be reached just
    now. So after an error the files are read once more, as bytes: only what can be read can be
    damaged.
    """

    def read() -> None:
        path = files.join(files.without_pattern(directory), f"ckpt-{number}")
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)

    try:
        files.patiently(read, directory)
    # A data file that is cut short raises IndexError, everything else some OpError or ValueError.
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        if isinstance(error, RunError):
            raise
        for name in files.list_dir(directory):
            if name.startswith(f"ckpt-{number}."):
                files.read_bytes(files.join(directory, name))
        return first_line(error)
    return None


def _restore_epoch(checkpoint: tf.train.Checkpoint, directory: str, epoch: int) -> None:
    path = files.join(directory, f"ckpt-{epoch}")
    if epoch not in _numbers(directory):
        raise RunError(
            f"{path}: is not there, but the history says that epoch {epoch} is the best; copy it "
            "back, or begin anew with --overwrite"
        )
    if problem := _damage(directory, epoch):
        raise RunError(f"{path} is damaged ({problem}); copy a sound one back")
    _restore(checkpoint, path)


def _restore(checkpoint: tf.train.Checkpoint, path: str, *, others_too: bool = False) -> None:
    """Restores every value that there is on either side, or fails.

    `others_too`: the file may hold more than is wanted.
    """
    directory, _, name = path.rpartition("/")
    try:
        status = files.patiently(
            lambda: checkpoint.restore(
                files.join(files.without_pattern(directory), name), options=_options()
            ),
            path,
        )
        status.assert_existing_objects_matched()
        if others_too:
            status.expect_partial()
        else:
            status.assert_consumed()
    except (AssertionError, ValueError) as error:
        raise RunError(
            f"{path}: this checkpoint belongs to another model or optimizer "
            f"({first_line(error)}); use the --run_dir and flags that it was made with"
        ) from error


def _weights(classifier: Classifier) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(model=classifier.model)
