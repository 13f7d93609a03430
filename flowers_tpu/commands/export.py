"""Makes of a trained run a model for elsewhere, with a card that says what it is.

    python scripts/export.py runs/quickstart --format=savedmodel
    python scripts/export.py runs/quickstart --format=tflite --output_dir=phone

savedmodel goes from JPEG files of any size to names and probabilities, keras opens in plain
tf.keras (Keras 2), tflite makes three files (float32, float16, 8-bit integers), onnx needs the
extra `export`. All are in float32 and for any number of photos (tflite: one at a time). What was
written is opened again and compared with the run's own model on all validation photos, so these
have to be at hand, and for tflite the training photos too. MODEL_CARD.md beside it says how they
agree, how good the model is, what it is made of, and how to load it. The weights are those of the
best epoch, or with --checkpoint=latest the last ones. With --calibrated the temperature that was
fitted when the run was scored is part of the model, so that all its probabilities are calibrated.
"""

import dataclasses
import os

from flowers_tpu.models.export import onnx_file
from flowers_tpu.reports.report_sections import SPLITS
from flowers_tpu.runs import calibrating
from flowers_tpu.runs import export as exporting
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.runs.model_card import FILE, model_card
from flowers_tpu.runs.opening import check_evaluation_flags, open_trained
from flowers_tpu.runs.options import ExportOptions
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import folders, publish, terminal
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.signals import Signals


def export(given: Spec, options: ExportOptions) -> None:
    """Writes the model of a run in a format, checks it, and describes it."""
    if options.format == "onnx":
        onnx_file.check_installed()
    folder = RunFolder(given.run.run_dir)
    output = options.output_dir or folder.file("export", options.format)
    check_evaluation_flags(folder, given)
    if "://" in output:
        raise RequestError(f"--output_dir={output}: must be local; copy the export to a bucket")
    folders.check_usable(output, "output_dir", folders.EXPORT)
    with (
        Signals() as signals,
        publish.published(output, "output_dir", folders.EXPORT, overwrite=True) as part,
    ):
        trained = open_trained(
            *(folder, RunFolder(part), exporting.on_one_device(given), options),
            exporting.splits_for(options.format, given),
        )
        size = trained.feed.recipe.spec.data.evaluation_size
        temperature = _temperature(folder, options, size)
        with trained.feed.recipe.naming_bad_records(trained.data):
            checked, probabilities = exporting.write(trained, options, part, signals, temperature)
        card = model_card(trained, options, checked, probabilities, temperature)
        with open(os.path.join(part, FILE), "w", encoding="utf-8") as file:
            file.write(card)
        about: dict[str, object] = {
            "run": folder.path,
            "format": options.format,
            "checkpoint": options.checkpoint,
        }
        about |= {"image_size": size, "temperature": temperature, "views": trained.views}
        about["checked"] = [dataclasses.asdict(one) for one in checked]
        publish.mark(part, folders.EXPORT, about)
    print_checked(checked, exporting.compared_on(trained).name)
    if options.format == "keras":
        terminal.say("\nIt is of Keras 2: plain tf.keras opens it with TF_USE_LEGACY_KERAS=1 set.")
    terminal.say(f"\nexport: {output} ({FILE} says what it is, and how to load it)")


def _temperature(folder: RunFolder, options: ExportOptions, size: int) -> float:
    if not options.calibrated:
        return 1.0
    made = calibrating.made_by(options.checkpoint, size, options.kinds_of_views)
    with_views = f" --views={options.views}" if options.views else ""
    if (found := calibrating.read((folder,), made)) is None:
        raise RequestError(
            f"--calibrated: {folder.file(calibrating.FILE)} has no temperature of these weights "
            f"({options.checkpoint}) at {size} px{with_views}; scripts/evaluate.py "
            f"--run_dir={folder.path} --checkpoint={options.checkpoint} "
            f"--eval_image_size={size}{with_views} fits one"
        )
    return found


def print_checked(checked: list[exporting.Checked], split: str) -> None:
    """Prints how the files of an export do on the photos of a split."""
    for one in checked:
        terminal.say(
            f"{one.kind:<10} {one.size / 1e6:8.2f} MB   "
            f"{SPLITS[split]} accuracy {one.accuracy:.4f}   "
            f"probabilities within {one.difference:.1e} of the run's own model"
        )
