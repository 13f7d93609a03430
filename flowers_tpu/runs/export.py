"""A trained run as files for elsewhere, each compared with the run's own model."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from flowers_tpu.data import decode, records
from flowers_tpu.data.any_photo import AnyPhotoDecoder
from flowers_tpu.data.splits import Split
from flowers_tpu.evaluation import scores
from flowers_tpu.models.backbones import preprocessing_of
from flowers_tpu.models.export import keras_file, onnx_file, saved_model, tflite
from flowers_tpu.models.export.plain import SeenSeveralTimes, plain_model
from flowers_tpu.reports import photos
from flowers_tpu.runs.folder import model_of, predictions_file
from flowers_tpu.runs.options import ExportOptions
from flowers_tpu.runs.results import Trained
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RunError
from flowers_tpu.system.signals import Signals

LABELS = "labels.txt"
_CALIBRATION_PHOTOS = 200
_PHOTOS_AT_ONCE = 32
# What a probability differs from that of the run's own model by at most, but for rounding in very
# deep networks; and from where on it is another function. How far the rounded files of TFLite are
# off depends on the network: for these it counts how many photos they tell.
_EXPECTED = {"savedmodel": 1e-5, "keras": 1e-5, "float": 1e-5, "onnx": 1e-4}
_WRONG = 1e-3
_ACCURACY_LOST = 0.01


@dataclasses.dataclass(frozen=True)
class Checked:
    """A file of an export, and how it does on the photos of `compared_on`.

    Attributes:
        kind: the format, or of TFLite what its numbers are.
        file: within the export; '.' for all of it.
        size: bytes.
        difference: the largest of any probability to that of the run's own model.
        accuracy: of its own.
        from_table: the largest difference of a confidence to that in the run's predictions_val.csv;
            None if that is of other photos or weights.
    """

    kind: str
    file: str
    size: int
    difference: float
    accuracy: float
    from_table: float | None


@dataclasses.dataclass(frozen=True)
class _File:
    """A file to be checked; `takes_jpegs`: as a SavedModel, else pixels."""

    kind: str
    file: str
    opened: Callable[[], Callable[[np.ndarray], np.ndarray]]
    takes_jpegs: bool = False


def splits_for(format_name: str, given: Spec) -> tuple[str, ...]:
    """Returns the splits that an export of a run to a format needs."""
    if not given.data.validates:
        return ("train",)
    return ("train", "val") if format_name == "tflite" else ("val",)


def compared_on(trained: Trained) -> Split:
    """Returns the photos on which an export is compared: of validation, if anything validates."""
    return trained.data.splits.get("val") or trained.data.splits["train"]


def on_one_device(given: Spec) -> Spec:
    """Returns the specification of a run whose model is to leave: in float32, without replicas."""
    return given.changed(replicas=0, tpu="", require_tpu=False, precision="float32")


def write(
    trained: Trained,
    options: ExportOptions,
    folder: str,
    signals: Signals,
    temperature: float = 1.0,
) -> tuple[list[Checked], np.ndarray]:
    """Writes a run's model to a folder, and compares what was written with it.

    Args:
        trained: with the splits of `splits_for`, on one device and in float32.
        options: which format, and which weights were taken.
        folder: where to.
        signals: looked at between batches.
        temperature: of a calibrated run: its logits are divided by it.

    Returns:
        The files, and the run's own probabilities of the photos of `compared_on`,
        `[examples, classes]`.

    Raises:
        RequestError: the backbone cannot be saved so.
        RunError: what was written gives other probabilities.
        StoppedError: a signal came.
    """
    split = compared_on(trained)
    # First, as bad records are named by now.
    own = np.exp(scores.log_probabilities(trained.logits(split, signals) / temperature))
    made = _write(trained, options.format, folder, temperature)
    with open(os.path.join(folder, LABELS), "w", encoding="utf-8") as file:
        file.write("".join(f"{name}\n" for name in trained.data.class_names))
    comparable = options.checkpoint == "best" and temperature == 1 and not trained.views
    confidences = _confidences(trained, split) if comparable else None
    checked = []
    for written in made:
        probabilities = _probabilities(written, trained, split, signals)
        checked.append(_compared(written, folder, probabilities, own, split, confidences))
    return checked, own


def _write(trained: Trained, format_name: str, folder: str, temperature: float) -> list[_File]:
    recipe, data = trained.feed.recipe, trained.data
    backbone = recipe.spec.model.backbone

    def make(pixels: tf.DType = tf.uint8, temperature: float = temperature) -> tf.keras.Model:
        return plain_model(
            trained.classifier,
            preprocessing_of(model_of(recipe.spec)),
            temperature=temperature,
            pixels=pixels,
        )

    if format_name == "savedmodel":
        decoder = AnyPhotoDecoder(_decoder(trained, compared_on(trained)))
        model = (
            make()
            if not trained.views
            # Each look is not calibrated by itself: the mean is.
            else (SeenSeveralTimes(make(temperature=1.0), trained.views, temperature))
        )
        saved_model.write(model, folder, data.class_names, decoder)
        return [
            _File(
                "savedmodel", ".", functools.partial(saved_model.opened, folder), takes_jpegs=True
            )
        ]
    if format_name == "keras":
        keras_file.write(make(), folder, backbone)
        return [_File("keras", keras_file.FILE, functools.partial(keras_file.opened, folder))]
    if format_name == "onnx":
        onnx_file.write(make(), folder)
        return [_File("onnx", onnx_file.FILE, functools.partial(onnx_file.opened, folder))]
    tflite.write(make, folder, _typical(trained))
    return [
        _File(kind, name, functools.partial(tflite.opened, os.path.join(folder, name)))
        for kind, name in tflite.FILES.items()
    ]


def _decoder(trained: Trained, split: Split) -> decode.Decoder:
    """The pipeline's own, for evaluation."""
    return decode.for_evaluation(split.photo_size, trained.feed.recipe.spec.data.evaluation_size)


def _typical(trained: Trained) -> list[np.ndarray]:
    """Some training photos, as the model sees them."""
    split = trained.data.splits["train"]
    generator = np.random.default_rng(trained.feed.recipe.spec.training.seed)
    count = min(_CALIBRATION_PHOTOS, split.size)
    chosen = generator.choice(split.size, count, replace=False)
    decoder = _decoder(trained, split)
    return [decoder(jpeg).numpy() for jpeg in photos.read_jpegs(split, chosen)]


def _probabilities(written: _File, trained: Trained, split: Split, signals: Signals) -> np.ndarray:
    """What a written file gives for a split, in file order."""
    jpegs = photos.serialized(split.shards, in_order=True).map(
        lambda record: records.parse(record)["image"]
    )
    decoder = _decoder(trained, split)
    inputs = jpegs if written.takes_jpegs else jpegs.map(decoder, tf.data.AUTOTUNE)
    classify, found = written.opened(), []
    with terminal.bar(split.size, f"checking {written.kind}") as bar:
        for batch in _batches(inputs):
            found.append(classify(batch))
            bar.update(len(batch))
            signals.check()
    return np.concatenate(found)


def _batches(dataset: tf.data.Dataset) -> Iterator[np.ndarray]:
    yield from dataset.batch(_PHOTOS_AT_ONCE).prefetch(1).as_numpy_iterator()


def _confidences(trained: Trained, split: Split) -> np.ndarray | None:
    """The run's own confidences in its predictions of a split, if the table is of these photos."""
    name = predictions_file(split.name)
    if not trained.folder.has(name):
        return None
    table = trained.folder.read_texts(name, dtype={"id": str})
    if list(table["id"]) != list(split.ids):
        return None
    return table[["predicted_label", "confidence"]].to_numpy()


def _compared(
    written: _File,
    folder: str,
    probabilities: np.ndarray,
    own: np.ndarray,
    split: Split,
    table: np.ndarray | None,
) -> Checked:
    difference = float(np.abs(probabilities - own).max())
    expected = _EXPECTED.get(written.kind, 1.0)
    what = "the SavedModel" if written.takes_jpegs else written.file
    message = (
        f"{what}: gives probabilities that differ by up to {difference:.2g} from those of the "
        f"run's own model, more than {expected:.0e}"
    )
    if not difference <= max(expected, _WRONG):
        raise RunError(f"{message}; nothing is exported")
    if difference > expected:
        logging.warning("%s", message)
    accuracy, own_accuracy = (
        float((given.argmax(axis=1) == split.labels).mean()) for given in (probabilities, own)
    )
    if accuracy < own_accuracy - _ACCURACY_LOST:
        logging.warning(
            "%s: accuracy on %s is %.4f, that of the run's own model %.4f",
            *(what, split.name, accuracy, own_accuracy),
        )
    from_table = None
    if table is not None:
        predicted = probabilities[np.arange(split.size), table[:, 0].astype(int)]
        from_table = float(np.abs(predicted - table[:, 1]).max())
        if from_table > expected:
            logging.warning(
                "confidences differ by up to %.2g from those in the run's %s: it was scored in "
                "another precision, or on another kind of device",
                *(from_table, predictions_file(split.name)),
            )
    path = os.path.join(folder, written.file)
    return Checked(written.kind, written.file, _size(path), difference, accuracy, from_table)


def _size(path: str) -> int:
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(os.path.join(parent, name))
        for parent, _, names in os.walk(path)
        for name in names
    )
