"""Names for photos of any kind, by the model of a run; the run's data are not needed."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from flowers_tpu.convert import photo_files, photo_pixels
from flowers_tpu.data import decode
from flowers_tpu.data.decode import Decoder
from flowers_tpu.evaluation import predictions, scores
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.runs.export import on_one_device
from flowers_tpu.runs.folder import DATA, RunFolder, predictions_file
from flowers_tpu.runs.opening import check_evaluation_flags, class_names, restored_classifier
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import terminal
from flowers_tpu.system.signals import Signals

NUM_NAMES = 5
_PHOTOS_AT_ONCE = 32
_QUALITY = 95  # as of the photos of a data set


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a photo is taken for.

    Attributes:
        path: of the photo.
        names: the best ones, the best first.
        probabilities: theirs.
        is_sure: whether the best one reaches the usual confidence.
        pixels: what the model saw, `[size, size, 3]` uint8.
    """

    path: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]
    is_sure: bool
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Unread:
    """A photo that cannot be read, and why."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Namer:
    """Gives names to photos.

    Attributes:
        classifier: the model.
        class_names: by label.
        decoder: of the photos of the run's data set, for evaluation.
        usual_confidence: that 95 % of the validation photos reach; None if that is not known.
        temperature: of a calibrated run: its logits are divided by it.
    """

    classifier: Classifier
    class_names: tuple[str, ...]
    decoder: Decoder
    usual_confidence: float | None
    temperature: float = 1.0

    def __call__(self, paths: Sequence[str], signals: Signals) -> Iterator[Answer | Unread]:
        """Yields an answer for every path, in their order.

        A photo is first made into what `scripts/make_tfrecords.py` makes of it, then goes the way
        of a validation photo. A JPEG of just the size of the data set's photos is taken for one.

        Args:
            paths: of photos.
            signals: looked at between batches.

        Raises:
            StoppedError: a signal came.
        """
        logits = tf.function(
            lambda images: self.classifier.evaluated(images, training=False), reduce_retracing=True
        )
        with (
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
            terminal.bar(len(paths), "naming") as bar,
        ):
            for begin in range(0, len(paths), _PHOTOS_AT_ONCE):
                batch = paths[begin : begin + _PHOTOS_AT_ONCE]
                read = list(pool.map(self._read, batch))
                images = [image for image in read if isinstance(image, np.ndarray)]
                answers = iter(())
                if images:
                    outputs = logits(tf.constant(np.stack(images))).numpy() / self.temperature
                    answers = iter(np.exp(scores.log_probabilities(outputs)))
                for path, image in zip(batch, read, strict=True):
                    is_read = isinstance(image, np.ndarray)
                    yield self._answer(path, image, next(answers)) if is_read else image
                bar.update(len(batch))
                signals.check()

    def _read(self, path: str) -> np.ndarray | Unread:
        try:
            return self.decoder(tf.constant(self._jpeg(path))).numpy()
        except Exception as error:  # of any kind: see `photo_pixels.render`
            return Unread(path, photo_pixels.why_unreadable(path, error))

    def _jpeg(self, path: str) -> bytes:
        """The JPEG that the data set would hold of a photo."""
        size = self.decoder.photo_size
        style = photo_pixels.Style((size,), "center", _QUALITY)
        rendered = photo_pixels.render(path, style)
        if rendered.width == rendered.height == size:
            with open(path, "rb") as file:
                content = file.read()
            if content.startswith(b"\xff\xd8"):
                return content
        return rendered.jpegs[size]

    def _answer(self, path: str, pixels: np.ndarray, probabilities: np.ndarray) -> Answer:
        best = np.argsort(-probabilities, kind="stable")[:NUM_NAMES]
        usual = self.usual_confidence
        return Answer(
            path,
            tuple(self.class_names[label] for label in best),
            tuple(float(probabilities[label]) for label in best),
            usual is None or bool(probabilities[best[0]] >= usual),
            pixels,
        )


def open_namer(folder: RunFolder, given: Spec, checkpoint: str) -> Namer:
    """Opens a run to name photos.

    Args:
        folder: of the run.
        given: its flags.
        checkpoint: `best` or `latest`.

    Raises:
        RequestError: a flag differs from the run's, or it has no such weights.
    """
    check_evaluation_flags(folder, given)
    recipe = Recipe.choose(on_one_device(given))
    # A run of version 0.1 kept no names, so that its data are asked.
    names = class_names(folder) or recipe.load_data(()).class_names
    size = recipe.spec.data.evaluation_size
    known = folder.read_json(DATA)["splits"] if folder.has(DATA) else {}
    evaluated = known.get("val") or known.get("train") or {}  # nothing may validate
    photo_size = evaluated.get("photo_size", size)
    table = folder.read_table(predictions_file("val"))
    return Namer(
        restored_classifier(folder, recipe, checkpoint, len(names)),
        names,
        decode.for_evaluation(photo_size, size),
        predictions.usual_confidence(table["confidence"].to_numpy()) if len(table) else None,
    )


def photos_in(paths: Iterable[str]) -> list[str]:
    """Returns the paths of photos: those given, and of all files in folders those of photos.

    In a folder, and those in it, a photo is what has the name or the first bytes of one, and is
    neither hidden nor in a folder of the system's; by name.
    """
    found = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        for parent, folders, names in os.walk(path, followlinks=False):
            folders[:] = sorted(name for name in folders if not photo_files.is_left_out(name))
            found += [
                os.path.join(parent, name)
                for name in sorted(names)
                if not name.startswith(".") and not photo_files.no_photo(os.path.join(parent, name))
            ]
    return found
