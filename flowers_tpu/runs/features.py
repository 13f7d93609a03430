"""What a frozen backbone sees of the training photos, for a warm-up that need not look at them."""

import numpy as np
import tensorflow as tf

from flowers_tpu.data import decode, source
from flowers_tpu.evaluation import predictions
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.runs.feed import Feed
from flowers_tpu.system import memory, terminal
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.signals import Signals
from flowers_tpu.training import multistep


def training_features(feed: Feed, classifier: Classifier, signals: Signals) -> np.ndarray:
    """Returns the pooled features of the unaugmented training photos, and of their mirror images.

    Args:
        feed: of the run.
        classifier: with the weights that the warm-up leaves alone.
        signals: may end it.

    Returns:
        `[examples, 2, channels]` float32, in file order.

    Raises:
        RequestError: several hosts read the photos, or the features do not fit into memory.
        StoppedError: a signal came.
    """
    recipe, split = feed.recipe, feed.splits["train"]
    if recipe.facts.hosts > 1:
        raise RequestError(
            "--warmup_on=features: keeps them in the memory of one host, but "
            f"{recipe.facts.hosts} hosts read the photos; use --warmup_on=photos"
        )
    channels = classifier.features.output_shape[-1]
    needed = split.size * 2 * channels * np.float32().nbytes
    memory.check(needed, "--warmup_on=features", "use --warmup_on=photos")
    found = np.empty((split.size, 2, channels), np.float32)
    decoder = decode.for_evaluation(split.photo_size, recipe.spec.data.image_size)
    photos = source.from_files(split, decoder)
    for mirrored in (False, True):
        step = multistep.compile_predict_step(
            recipe.strategy, _Mirrored(classifier.features) if mirrored else classifier.features
        )
        batches, done = iter(feed.eval_batches(photos)), 0
        title = "features of mirror images" if mirrored else "features"
        with terminal.bar(split.size, title) as bar:
            for rows in predictions.predict(step, batches, split.size):
                found[done : done + len(rows), int(mirrored)] = rows
                done += len(rows)
                bar.update(len(rows))
                signals.check()
    return found


class _Mirrored:
    """A model of images, called with their mirror images."""

    def __init__(self, model: tf.keras.Model):
        self._model = model

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        return self._model(tf.reverse(images, axis=[2]), training=training)
