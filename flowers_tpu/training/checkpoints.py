"""Where a run is kept: `latest`, all of it, and `best`, the weights with the lowest loss."""

import os

import tensorflow as tf

from flowers_tpu.errors import RunError
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.training.state import TrainState

_LATEST_KEPT = 2  # the newest, and the one before it in case that one is damaged

# Variables may live on a TPU that cannot see this machine's files.
_ON_THIS_MACHINE = "/job:localhost"


class Checkpoints:
    """Saves and restores a run's state under `directory`."""

    def __init__(self, directory: str, state: TrainState):
        self._state = state
        self._latest = tf.train.CheckpointManager(
            state.checkpoint(), os.path.join(directory, "latest"), max_to_keep=_LATEST_KEPT
        )
        self._best = tf.train.CheckpointManager(
            _weights(state.classifier), os.path.join(directory, "best"), max_to_keep=1
        )

    def save_latest(self) -> None:
        """Saves all of the state; earlier checkpoints stay until it is written."""
        self._latest.save(options=_save_options())

    def save_best(self, epoch: int) -> None:
        """Saves the weights as the best ones.

        The number is the epoch's: an epoch that is done again after an interruption writes the same
        weights to the same place.
        """
        self._best.save(checkpoint_number=epoch, options=_save_options())

    def restore_latest(self) -> bool:
        """Restores the newest state; returns whether there was one."""
        path = self._latest.latest_checkpoint
        if path is None:
            return False
        _restore(self._latest.checkpoint, path)
        return True

    def restore_best(self) -> bool:
        """Restores the best weights into the model; returns whether there were any."""
        return restore_best_weights(self._best.directory, self._state.classifier)


def restore_best_weights(directory: str, classifier: Classifier) -> bool:
    """Restores the weights in a `best` folder into a model; returns whether there were any."""
    path = tf.train.latest_checkpoint(directory)
    if path is None:
        return False
    _restore(_weights(classifier), path)
    return True


def _weights(classifier: Classifier) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(model=classifier.model)


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Restores every value there is on either side, or fails."""
    options = tf.train.CheckpointOptions(experimental_io_device=_ON_THIS_MACHINE)
    try:
        status = checkpoint.restore(path, options=options)
        status.assert_existing_objects_matched()
        status.assert_consumed()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"{path}: this checkpoint is damaged or belongs to another model ({reason})"
        ) from error


def _save_options() -> tf.train.CheckpointOptions:
    return tf.train.CheckpointOptions(experimental_io_device=_ON_THIS_MACHINE)
