"""Views: a classifier looks at each photo several times, and its probabilities are averaged."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from flowers_tpu.models.classifier import Classifier

_SCALES = (0.875, 1.125)  # of the size of evaluation, beside itself
_CROP = 0.875  # side of the five crops, as a part of the photo's

_LEAST = 1e-37  # the logarithm of what is 0 in float32 stays finite

View = Callable[[tf.Tensor], tf.Tensor]


class Viewed:
    """A classifier in evaluation, called as a model.

    Each example is looked at by itself, so padding and the number of replicas make no difference.

    Args:
        classifier: whose model it is.
        kinds: `flip`: also the mirror image of every other view; `scales`: also smaller
            and larger; `crops`: also the corners and the middle, enlarged.
    """

    def __init__(self, classifier: Classifier, kinds: Sequence[str]):
        self.views = looks(classifier.evaluated, classifier.at_size, kinds)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the logarithm of the mean probabilities, `[batch, classes]` float32.

        Args:
            images: `[batch, size, size, 3]` uint8.
            training: not to be.
        """
        every = [tf.nn.softmax(model(view(images), training=False)) for model, view in self.views]
        return log_mean(every)


def looks(
    model: tf.keras.Model, at_size: Callable[[int], tf.keras.Model], kinds: Sequence[str]
) -> list[tuple[tf.keras.Model, View]]:
    """Returns how a model looks at a photo: each time which model, and what it is shown.

    Args:
        model: of images of the size of evaluation.
        at_size: gives it for another size.
        kinds: see `Viewed`.
    """
    size = model.input_shape[1]
    seen: list[tuple[tf.keras.Model, View]] = [(model, tf.identity)]
    if "scales" in kinds:
        for side in (round(size * scale) for scale in _SCALES):
            seen.append((at_size(side), _resized_to(side)))
    if "crops" in kinds:
        seen += [(model, view) for view in _crops(size)]
    if "flip" in kinds:
        seen += [(model, _mirrored(view)) for model, view in seen]
    return seen


def log_mean(probabilities: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the logarithm of the mean of probabilities, each `[batch, classes]`."""
    mean = tf.add_n(list(probabilities)) / len(probabilities)
    return tf.math.log(tf.maximum(mean, _LEAST))


def _resized_to(side: int) -> View:
    def view(images: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(tf.cast(images, tf.float32), [side, side])
        return tf.cast(tf.round(resized), tf.uint8)

    return view


def _crops(size: int) -> Iterator[View]:
    side = round(size * _CROP)
    resized, rest = _resized_to(size), size - side
    corners = [*itertools.product((0, rest), repeat=2), (rest // 2, rest // 2)]
    for top, left in corners:
        yield lambda images, top=top, left=left: resized(
            images[:, top : top + side, left : left + side]
        )


def _mirrored(view: View) -> View:
    return lambda images: tf.reverse(view(images), axis=[2])
