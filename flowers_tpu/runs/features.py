"""What a frozen backbone sees of the training photos, for a warm-up that need not look at them."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from flowers_tpu.data import decode, source
from flowers_tpu.data.splits import Split
from flowers_tpu.evaluation import predictions
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.models.cloning import at_size
from flowers_tpu.runs.boundary import AsksToStop
from flowers_tpu.runs.feed import Feed
from flowers_tpu.system import memory, terminal
from flowers_tpu.system.errors import RequestError
from flowers_tpu.training import multistep


@dataclasses.dataclass(frozen=True)
class Features:
    """What a warm-up on features looks at, float32, in file order.

    Attributes:
        train: of the unaugmented training photos and of their mirror images,
            `[examples, 2, channels]`.
        val: of the validation photos, `[examples, channels]`; None if there are none.
    """

    train: np.ndarray
    val: np.ndarray | None


def work_out(feed: Feed, classifier: Classifier, signals: AsksToStop) -> Features:
    """Returns the features of photos by the weights that the warm-up leaves alone.

    Args:
        feed: of the run.
        classifier: with these weights.
        signals: may end it.

    Raises:
        RequestError: several hosts read the photos, or the features do not fit into memory.
        StoppedError: a signal came.
    """
    data, hosts, splits = feed.recipe.spec.data, feed.recipe.facts.hosts, feed.splits
    if hosts > 1:
        raise RequestError(
            f"--warmup_on=features: keeps them in the memory of one host, but {hosts} hosts read "
            "the photos; use --warmup_on=photos"
        )
    count = 2 * splits["train"].size + (splits["val"].size if "val" in splits else 0)
    needed = count * classifier.features.output_shape[-1] * np.float32().nbytes
    memory.check(needed, "--warmup_on=features", "use --warmup_on=photos")
    network = classifier.features

    def of(split: Split, model: Callable, size: int, title: str) -> np.ndarray:
        photos = source.from_files(split, decode.for_evaluation(split.photo_size, size))
        step, rows = multistep.compile_predict_step(feed.recipe.strategy, model), []
        with terminal.bar(split.size, title) as bar:
            for some in predictions.predict(step, iter(feed.eval_batches(photos)), split.size):
                rows.append(some)
                bar.update(len(some))
                signals.check()
        return np.concatenate(rows)

    train = [
        of(splits["train"], network, data.image_size, "features of train"),
        of(splits["train"], _Mirrored(network), data.image_size, "features of mirror images"),
    ]
    if "val" not in splits:
        return Features(np.stack(train, axis=1), None)
    at_evaluation = at_size(network, data.evaluation_size)
    val = of(splits["val"], at_evaluation, data.evaluation_size, "features of val")
    return Features(np.stack(train, axis=1), val)


class _Mirrored:
    """A model of images, called with their mirror images."""

    def __init__(self, model: tf.keras.Model):
        self._model = model

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        return self._model(tf.reverse(images, axis=[2]), training=training)
