"""What a trained model gives: predictions of whole splits, scores, and the submission."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from flowers_tpu.data import records
from flowers_tpu.data.source import Source
from flowers_tpu.data.splits import Split
from flowers_tpu.evaluation import disputed, predictions, scores, submission
from flowers_tpu.evaluation.outputs import Outputs
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.models.views import Viewed
from flowers_tpu.runs.boundary import AsksToStop
from flowers_tpu.runs.data import TEST_PHOTOS
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.folder import (
    DATA,
    DISPUTED,
    SUBMISSION,
    RunFolder,
    outputs_file,
    predictions_file,
)
from flowers_tpu.runs.recipe import Data
from flowers_tpu.system import files, terminal
from flowers_tpu.training import multistep


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model with its data, and where results go.

    Attributes:
        folder: of the run.
        output: where results go: that of the run, or another.
        data: the splits that are needed.
        feed: gives their batches.
        classifier: the model.
        views: how else than once it looks at a photo; see `models.views`.
    """

    folder: RunFolder
    output: RunFolder
    data: Data
    feed: Feed
    classifier: Classifier
    views: tuple[str, ...] = ()

    @functools.cached_property
    def predict_step(self) -> Callable[[Iterator], tf.Tensor]:
        """Gives the logits of the next global batch; compiled once for all splits."""
        model = Viewed(self.classifier, self.views) if self.views else self.classifier.evaluated
        return multistep.compile_predict_step(self.feed.recipe.strategy, model)

    def logits(self, split: Split, signals: AsksToStop) -> np.ndarray:
        """Returns the logits of a split in file order, `[examples, classes]` float32.

        Raises:
            StoppedError: a signal came.
        """
        batches = []
        with terminal.bar(split.size, f"predicting {split.name}") as bar:
            for logits in self._batches_of_logits(split, split.size):
                batches.append(logits)
                bar.update(len(logits))
                signals.check()
        return np.concatenate(batches)

    def outputs(self, name: str, signals: AsksToStop) -> Outputs:
        """Returns the logits of a split with what its photos are known by; see `logits`."""
        split = self.data.splits[name]
        return Outputs.of(split, self.logits(split, signals), self.data.class_names)

    def logits_of_few(self, source: Source) -> np.ndarray:
        """Returns the logits of the photos of a source, as `logits`, but without a word."""
        return np.concatenate(list(self._batches_of_logits(source, source.split.size)))

    def _batches_of_logits(self, photos: Split | Source, count: int) -> Iterator[np.ndarray]:
        return predictions.predict(self.predict_step, iter(self.feed.eval_batches(photos)), count)


def score_splits(
    trained: Trained, signals: AsksToStop, names: Sequence[str] = records.LABELED_SPLITS
) -> dict[str, dict[str, float]]:
    """Returns the scores of the labeled splits there are, and writes the tables they come from."""
    scores = {
        name: score_outputs(trained.output, name, trained.outputs(name, signals))
        for name in names
        if name in trained.data.splits
    }
    if seen := test_photos_in_training(trained.folder):
        for of_split in scores.values():
            of_split[TEST_PHOTOS] = seen
    return scores


def test_photos_in_training(folder: RunFolder) -> int:
    """Returns how many photos of the test split a run was trained on, by labels of a model."""
    return folder.read_json(DATA).get(TEST_PHOTOS, 0) if folder.has(DATA) else 0


def score_outputs(folder: RunFolder, name: str, outputs: Outputs) -> dict[str, float]:
    """Returns the scores of what a model gives for a labeled split, and writes their tables."""
    labels, logits, classes = outputs.known_labels, outputs.logits, outputs.class_names
    predicted = logits.argmax(axis=1)
    result = scores.score(labels, logits)
    if outputs.left_out:
        result["left_out"] = outputs.left_out
    report = scores.classification_report(labels, predicted, classes)
    folder.write_table(f"classification_report_{name}.csv", report, index=True)
    matrix = scores.confusion_matrix(labels, predicted, len(classes))
    frame = pd.DataFrame(matrix, index=pd.Index(classes, name="true class"), columns=classes)
    folder.write_table(f"confusion_{name}.csv", frame, index=True)
    _write_outputs(folder, name, outputs)
    if name == "val":  # what a model was trained on, it does not dispute
        found = disputed.disputed(outputs.ids, logits, labels, classes)
        folder.write_table(DISPUTED, found)
    return result


def predict_test(trained: Trained, signals: AsksToStop) -> None:
    """Writes the predictions of the test split, and the submission made of them."""
    write_submission(trained.output, trained.outputs("test", signals))


def write_submission(folder: RunFolder, outputs: Outputs) -> None:
    """Writes what a model gives for the test split, and the submission made of it."""
    table = _write_outputs(folder, "test", dataclasses.replace(outputs, labels=None))
    folder.write_table(SUBMISSION, submission.submission(table))
    lacking = f", lacks the {outputs.left_out:,} photos left out" if outputs.left_out else ""
    terminal.say(f"submission: {folder.file(SUBMISSION)} ({len(table):,} rows{lacking})")


def _write_outputs(folder: RunFolder, name: str, outputs: Outputs) -> pd.DataFrame:
    """Writes outputs and the table of predictions, which is returned."""
    files.write_atomically(folder.file(outputs_file(name)), outputs.to_bytes())
    table = predictions.table(outputs.ids, outputs.logits, outputs.labels, outputs.class_names)
    folder.write_table(predictions_file(name), table)
    return table
