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
from flowers_tpu.evaluation import predictions, scores, submission
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.folder import SUBMISSION, RunFolder, predictions_file
from flowers_tpu.runs.recipe import Data
from flowers_tpu.system import terminal
from flowers_tpu.system.signals import Signals
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
    """

    folder: RunFolder
    output: RunFolder
    data: Data
    feed: Feed
    classifier: Classifier

    @functools.cached_property
    def predict_step(self) -> Callable[[Iterator], tf.Tensor]:
        """Gives the logits of the next global batch; compiled once for all splits."""
        return multistep.compile_predict_step(self.feed.recipe.strategy, self.classifier.evaluated)

    def logits(self, split: Split, signals: Signals) -> np.ndarray:
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

    def logits_of_few(self, source: Source) -> np.ndarray:
        """Returns the logits of the photos of a source, as `logits`, but without a word."""
        return np.concatenate(list(self._batches_of_logits(source, source.split.size)))

    def _batches_of_logits(self, photos: Split | Source, count: int) -> Iterator[np.ndarray]:
        return predictions.predict(self.predict_step, iter(self.feed.eval_batches(photos)), count)


def score_splits(
    trained: Trained, signals: Signals, names: Sequence[str] = records.LABELED_SPLITS
) -> dict[str, dict[str, float]]:
    """Returns the scores of labeled splits, and writes the tables they come from."""
    result = {}
    for name in names:
        split = trained.data.splits[name]
        logits = trained.logits(split, signals)
        predicted = logits.argmax(axis=1)
        result[name] = scores.score(split.labels, logits)
        if split.left_out:
            result[name]["left_out"] = split.left_out
        classes = trained.data.class_names
        report = scores.classification_report(split.labels, predicted, classes)
        trained.output.write_table(f"classification_report_{name}.csv", report, index=True)
        matrix = scores.confusion_matrix(split.labels, predicted, len(classes))
        frame = pd.DataFrame(matrix, index=pd.Index(classes, name="true class"), columns=classes)
        trained.output.write_table(f"confusion_{name}.csv", frame, index=True)
        table = predictions.table(split.ids, logits, split.labels, classes)
        trained.output.write_table(predictions_file(name), table)
    return result


def predict_test(trained: Trained, signals: Signals) -> None:
    """Writes the predictions of the test split, and the submission made of them."""
    split = trained.data.splits["test"]
    logits = trained.logits(split, signals)
    table = predictions.table(split.ids, logits, None, trained.data.class_names)
    trained.output.write_table(predictions_file("test"), table)
    trained.output.write_table(SUBMISSION, submission.submission(table))
    lacking = f", lacks the {split.left_out:,} photos left out" if split.left_out else ""
    terminal.say(f"submission: {trained.output.file(SUBMISSION)} ({split.size:,} rows{lacking})")
