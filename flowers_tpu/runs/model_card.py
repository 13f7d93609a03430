"""MODEL_CARD.md: what a model is, for whoever gets the export of a run without the run.

After Mitchell and others, 2019, Model Cards for Model Reporting,
https://doi.org/10.1145/3287560.3287596.
"""

import os

import numpy as np

import flowers_tpu
from flowers_tpu.evaluation import intervals, predictions, scores
from flowers_tpu.models.export import keras_file, onnx_file, tflite
from flowers_tpu.models.own_backbone import is_file
from flowers_tpu.reports import calibration
from flowers_tpu.reports.report_sections import SPLITS
from flowers_tpu.runs.export import LABELS, Checked, compared_on
from flowers_tpu.runs.folder import DATA, ORIGIN
from flowers_tpu.runs.options import ExportOptions
from flowers_tpu.runs.results import Trained
from flowers_tpu.runs.spec import FIELDS
from flowers_tpu.training.history import best_row

FILE = "MODEL_CARD.md"

_VGG = "Creative Commons Attribution 4.0 (Visual Geometry Group, Oxford)"
_RESNET = "MIT (Kaiming He)"
_DENSENET = "BSD 3-clause (Zhuang Liu)"
_APACHE = "Apache 2.0 (Google)"
# Of the weights that `tf.keras.applications` downloads, by what the backbone's name begins with;
# as the documentation of Keras 2 says (docs/templates/applications.md in its repository), and for
# EfficientNet github.com/tensorflow/tpu.
_LICENCES = {
    "vgg": _VGG,
    "resnet": _RESNET,
    "densenet": _DENSENET,
    "xception": "MIT (François Chollet)",
    "inception": _APACHE,
    "mobilenet": _APACHE,
    "efficientnet": _APACHE,
    "regnet": "what https://keras.io/api/applications names",
}

_PIXELS = (
    'image = ImageOps.fit(ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB"), '
    "({size}, {size}), Image.Resampling.LANCZOS)"
)
_NAME = f'print(open("{LABELS}").read().splitlines()[probabilities.argmax()], probabilities.max())'
# How each format is loaded, to the name of `photo.jpg`; `{pixels}` makes the model's pixels of it.
_LOADING = {
    "savedmodel": """\
import tensorflow as tf
model = tf.saved_model.load(".")
photos = tf.constant([open("photo.jpg", "rb").read()])
answer = model.signatures["serving_default"](jpeg_bytes=photos)
print(answer["names"][0].numpy(), answer["confidences"][0].numpy())""",
    "keras": """\
import os; os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tensorflow as tf; from PIL import Image, ImageOps
{pixels}
probabilities = tf.keras.models.load_model("{file}")(np.asarray(image)[None]).numpy()[0]
{name}""",
    "tflite": """\
import numpy as np, tensorflow as tf; from PIL import Image, ImageOps
{pixels}
classify = tf.lite.Interpreter("{file}").get_signature_runner()
probabilities = classify(images=np.asarray(image)[None])["probabilities"][0]
{name}""",
    "onnx": """\
import numpy as np, onnxruntime; from PIL import Image, ImageOps
{pixels}
session = onnxruntime.InferenceSession("{file}")
probabilities = session.run(["probabilities"], {{"images": np.asarray(image)[None]}})[0][0]
{name}""",
}
_FILES = {"keras": keras_file.FILE, "tflite": tflite.FILES["float"], "onnx": onnx_file.FILE}
_NEEDS = {
    "savedmodel": "TensorFlow. The signature `serving_default` takes the bytes of JPEG files of "
    "any size and turns them upright by EXIF; `pixels` takes uint8 `[n, {size}, {size}, 3]`. Both "
    "give `names` and `confidences` of the best classes and `probabilities` of all, by label.",
    "keras": "TensorFlow and Pillow, and with TensorFlow 2.16 or later the package `tf_keras` of "
    "the same version: it is a model of Keras 2, which `TF_USE_LEGACY_KERAS=1` chooses.",
    "tflite": "TensorFlow and Pillow; where the package `ai_edge_litert` is installed, its "
    "`ai_edge_litert.interpreter.Interpreter` does the same. All three files take uint8 "
    "`[1, {size}, {size}, 3]` and give float32 `[1, {classes}]`.",
    "onnx": "`onnxruntime` and Pillow. It takes uint8 `[n, {size}, {size}, 3]` and gives float32 "
    "`[n, {classes}]`.",
}


def model_card(
    trained: Trained,
    options: ExportOptions,
    checked: list[Checked],
    probabilities: np.ndarray,
    temperature: float = 1.0,
) -> str:
    """Returns the card of an export.

    Args:
        trained: the run that was exported.
        options: as which format, and which weights.
        checked: the files.
        probabilities: of the photos of `export.compared_on` by the run's own model,
            `[examples, classes]`.
        temperature: that they were calibrated with.
    """
    data, backbone = trained.data, trained.feed.recipe.spec.model.backbone
    sections = {
        f"Flowers: {data.num_classes} classes by {os.path.basename(backbone)}": (
            _summary(trained, options)
        ),
        "How to load it": _loading(trained, options.format),
        "Files": _files(checked, compared_on(trained).name),
        "Data": _data(trained),
        "Recipe": _recipe(trained),
        "Scores": _scores(trained, probabilities),
        "Calibration": _calibration(trained, probabilities, temperature),
        "Limits": _limits(trained, options.format),
        "Licence of the weights": _licence(trained),
    }
    texts = [
        f"{'#' if number == 0 else '##'} {title}\n\n{text}\n"
        for number, (title, text) in enumerate(sections.items())
    ]
    return "\n".join(texts)


def _loading(trained: Trained, format_name: str) -> str:
    """Returns how a format is loaded, in five lines of Python."""
    values = {
        "size": trained.feed.recipe.spec.data.evaluation_size,
        "classes": trained.data.num_classes,
    }
    code = _LOADING[format_name].format(
        pixels=_PIXELS.format(**values), name=_NAME, file=_FILES.get(format_name), **values
    )
    needs = _NEEDS[format_name].format(**values)
    return (
        f"In this folder, with a photo in it; `{LABELS}` has the names by label:\n\n"
        f"```python\n{code}\n```\n\nIt needs {needs}"
    )


def _summary(trained: Trained, options: ExportOptions) -> str:
    best = best_row(trained.folder.history())
    epoch = f"epoch {best['epoch']}, the best" if best else "the last epoch"
    which = epoch if options.checkpoint == "best" else "the last epoch"
    size = trained.feed.recipe.spec.data.evaluation_size
    looks = ""
    if trained.views:
        looks = f" It looks at each photo several times ({', '.join(trained.views)})."
    return (
        f"Names what is on a photo, of {size} × {size} pixels, out of {trained.data.num_classes} "
        f"classes. Weights of {which}, of the run `{os.path.basename(trained.folder.path)}`; "
        f"exported as {options.format} by flowers_tpu {flowers_tpu.__version__}.{looks}"
    )


def _files(checked: list[Checked], split: str) -> str:
    what = SPLITS[split]
    lines = [
        f"All were opened again and given the {what} photos. Difference: the largest of any "
        "probability, from the run's own model in float32; from the table: of a confidence, from "
        f"the run's `predictions_{split}.csv`.\n",
        f"| file | numbers | MB | {what} accuracy | difference | from the table |",
        "|---|---|---|---|---|---|",
    ]
    for one in checked:
        numbers = one.kind if one.kind in tflite.FILES else "float32"
        table = "–" if one.from_table is None else f"{one.from_table:.1e}"
        lines.append(
            f"| `{one.file}` | {numbers} | {one.size / 1e6:.2f} | {one.accuracy:.4f} | "
            f"{one.difference:.1e} | {table} |"
        )
    return "\n".join(lines)


def _data(trained: Trained) -> str:
    data_dir = trained.folder.read_specs()[0].data.data_dir
    known = trained.folder.read_json(DATA)["splits"] if trained.folder.has(DATA) else {}
    lines = [f"`{os.path.basename(data_dir.rstrip('/'))}`"]
    if data_dir == "example":
        lines[0] += ", drawn flowers that come with flowers_tpu"
    lines[0] += f", {trained.data.num_classes} classes ({_some(trained.data.class_names)})."
    for name, split in known.items():
        lines.append(f"- {name}: {split['photos']:,} photos, fingerprint `{split['content'][:16]}`")
    return "\n".join([lines[0], "", *lines[1:]] if known else lines)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _recipe(trained: Trained) -> str:
    """The flags that are not the defaults."""
    spec, resolved = trained.folder.read_specs()
    flags = [
        f"--{'' if value else 'no'}{name}" if FIELDS[name].type is bool else f"--{name}={value}"
        for name, value in spec.flat().items()
        if value != FIELDS[name].default
        and not FIELDS[name].metadata["free"]
        # Places on the machine of training are nobody else's business.
        and name not in ("data_dir", "classes", "weights", "from_run")
        and not (name == "backbone" and is_file(value))
    ]
    epochs = len(trained.folder.history())
    text = (
        f"Trained for {epochs} epochs, {resolved.photos_per_step} photos a step, in "
        f"{resolved.arithmetic}; initial weights: {_origin(trained)}."
    )
    return text + (f" Flags that are not the defaults:\n\n`{' '.join(flags)}`" if flags else "")


def _origin(trained: Trained) -> str:
    """Where training began."""
    model = trained.folder.read_specs()[0].model
    weights = model.weights
    if weights == "imagenet" and is_file(model.backbone):
        weights = model.backbone
    if trained.folder.has(ORIGIN):
        return f"the run `{os.path.basename(trained.folder.read_json(ORIGIN)['run'])}`"
    if weights in ("none", "imagenet"):
        return "random" if weights == "none" else "ImageNet (tf.keras.applications)"
    return f"the file `{os.path.basename(weights)}`"


def _scores(trained: Trained, probabilities: np.ndarray) -> str:
    if "val" not in trained.data.splits:
        return (
            "None: all labeled photos trained it (`--train_splits=train,val`), so that nothing "
            "measures it. A run by the same recipe that validates tells what to expect."
        )
    labels = trained.data.splits["val"].known_labels
    predicted = probabilities.argmax(axis=1)
    found = scores.score(labels, np.log(np.maximum(probabilities, 1e-30)))
    accuracy = intervals.accuracy_interval(labels, predicted)
    low, high = found["macro_f1_low"], found["macro_f1_high"]
    return (
        f"On {len(labels):,} validation photos, with 95 % intervals by a bootstrap over them:\n\n"
        "| score | value | interval |\n|---|---|---|\n"
        f"| macro F1 | {found['macro_f1']:.4f} | {low:.4f} to {high:.4f} |\n"
        f"| accuracy | {found['accuracy']:.4f} | {accuracy[0]:.4f} to {accuracy[1]:.4f} |\n"
        f"| top-5 accuracy | {found['top5_accuracy']:.4f} | |\n"
        f"| loss | {found['loss']:.4f} | |\n\n"
        "The same photos chose the epoch, so that on new ones it is likely to be a little worse."
    )


def _calibration(trained: Trained, probabilities: np.ndarray, temperature: float) -> str:
    if "val" not in trained.data.splits:
        return "Not measured, for the same reason."
    labels = trained.data.splits["val"].known_labels
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    error = calibration.expected_calibration_error(calibration.reliability(confidence, right))
    usual = predictions.usual_confidence(confidence)
    how = "Not calibrated" if temperature == 1 else f"Calibrated by temperature {temperature:.3f}"
    return (
        f"{how}: mean confidence {confidence.mean():.3f} at an accuracy of {right.mean():.3f}, "
        f"expected calibration error {error:.3f} ({calibration.NUM_BINS} bins). 95 % of the "
        f"validation photos reach a confidence of {usual:.3f}; below it an answer is better called "
        "“not sure”."
    )


def _limits(trained: Trained, format_name: str) -> str:
    names = trained.data.class_names
    lines = [
        f"- It knows {len(names)} classes and gives one of them to any photo, whatever is on it.",
        "- It sees the largest square in the middle of a photo: what lies beside it does not "
        "count.",
        "- Scores are of photos like those of training; other cameras, seasons and gardens were "
        "not tried.",
    ]
    if trained.folder.read_specs()[0].data.data_dir == "example":
        lines.append("- It was trained on drawings: what it says of real photos means nothing.")
    if format_name == "savedmodel":
        lines.append(
            "- Colour profiles are not applied (as of some telephones and cameras): convert such "
            "photos to sRGB for exact colours."
        )
    return "\n".join(lines)


def _licence(trained: Trained) -> str:
    spec, _ = trained.folder.read_specs()
    weights, backbone = spec.model.weights, spec.model.backbone
    if trained.folder.has(ORIGIN):
        return f"Training began with {_origin(trained)}: what holds for its weights holds here too."
    if weights == "none":
        return (
            "All weights were trained from random numbers: nobody else has a right in them. The "
            "photos may have terms of their own."
        )
    if weights == "imagenet" and not is_file(backbone):
        licence = next(text for name, text in _LICENCES.items() if backbone.startswith(name))
        return (
            f"Training began with ImageNet weights of {backbone}, released under {licence}; the "
            "photos of ImageNet are for research that is not commercial, and those of training may "
            "have terms of their own."
        )
    return (
        f"Training began with {_origin(trained)}; under which licence that is, who made it says. "
        "The photos may have terms of their own."
    )
