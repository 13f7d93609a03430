"""What of a run concerns its folder, and what is shown of it."""

import dataclasses
import re
from collections.abc import Iterator
from typing import ClassVar

from flowers_tpu.options import Options, knob

VIEWS = ("flip", "scales", "crops")


@dataclasses.dataclass(frozen=True)
class RunOptions(Options):
    """Where a run is kept, and what is shown of it."""

    topic: ClassVar[str] = "Run"

    run_dir: str = knob(
        "",
        "Folder of the run; an existing one is continued. Empty: runs/<flagfile's name>.",
        free=True,
    )
    overwrite: bool = knob(False, "Delete an existing run in --run_dir and begin anew.", free=True)
    from_run: str = knob(
        "",
        "Begin with the weights of another run: RUN (its best ones), RUN@latest (its last ones), "
        "or RUN@state (also its optimizer, history and step). The new run keeps them; empty: by "
        "--weights.",
    )
    finish: bool = knob(
        False, "End the training of the run now: score it with the best weights so far.", free=True
    )
    max_hours: float = knob(
        0.0,
        "End training in time, so that this command is done with its scores after so long; the "
        "same command without it goes on. 0: no limit.",
        unit="hours",
        least=0,
        free=True,
    )
    checkpoint_every_steps: int = knob(
        0,
        "Also save every so many steps within an epoch; 0: not by steps.",
        unit="steps",
        free=True,
        least=0,
    )
    checkpoint_every_minutes: float = knob(
        10.0,
        "Also save when the last save is so long ago; 0: not.",
        unit="minutes",
        free=True,
        least=0,
    )
    summary: bool = knob(False, "Print the table of the model's layers.", free=True)
    tensorboard: bool = knob(
        True, "Write curves and pictures for TensorBoard to tensorboard/.", free=True
    )
    track: str = knob(
        "none",
        "Also keep a record of the run in Weights & Biases or MLflow: pip install '.[wandb]' or "
        "'.[mlflow]'; their own variables say where, such as WANDB_MODE=offline.",
        choices=("none", "wandb", "mlflow"),
        free=True,
    )
    profile_steps: str = knob(
        "",
        "FROM,TO: profile the steps of the run after step FROM up to step TO, for TensorBoard's "
        "profiler; empty: none.",
        free=True,
    )
    report: bool = knob(
        True,
        "Draw plots/ and report.html when the run is scored; --noreport: those of earlier "
        "scores are removed.",
        free=True,
    )
    report_images: str = knob(
        "embedded",
        "Images of report.html: embedded, so that it is one file, or the files in plots/.",
        choices=("embedded", "files"),
        free=True,
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        _, which = self.origin
        if which not in ("best", "latest", "state"):
            yield f"--from_run={self.from_run}: expected RUN, RUN@best, RUN@latest or RUN@state"
        if self.finish and self.overwrite:
            yield "--finish and --overwrite: a run that begins anew has nothing to finish"
        steps = self.profiled_steps
        if self.profile_steps and not (steps and steps[0] < steps[1]):
            yield (
                f"--profile_steps={self.profile_steps}: must be two steps of the run, FROM,TO, the "
                "first below the second and at least 0, like 20,25"
            )

    @property
    def origin(self) -> tuple[str, str]:
        """The folder of `--from_run`, and what is taken of it: `best`, `latest` or `state`."""
        folder, at, which = self.from_run.rpartition("@")
        if not at or "/" in which:
            return self.from_run, "best"
        return folder, which

    @property
    def profiled_steps(self) -> tuple[int, int] | None:
        """The two numbers of `--profile_steps`, or None."""
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", self.profile_steps)
        return (int(match[1]), int(match[2])) if match else None


@dataclasses.dataclass(frozen=True)
class CheckpointOptions(Options):
    """Which weights of a run to take."""

    topic: ClassVar[str] = "Checkpoint"

    checkpoint: str = knob(
        "best",
        "Weights to take: of the best epoch by --monitor, or the last ones.",
        choices=("best", "latest"),
    )


@dataclasses.dataclass(frozen=True)
class ResultsOptions(CheckpointOptions):
    """Which weights of a run to take, and where results go."""

    topic: ClassVar[str] = "Results"

    output_dir: str = knob(
        "",
        "Folder for the results; empty: that of the run. For a run in a folder that cannot be "
        "written, or to keep the results that are there.",
    )


@dataclasses.dataclass(frozen=True)
class ViewedOptions(ResultsOptions):
    """Which weights of a run to take, how often to look at a photo, and where results go."""

    views: str = knob(
        "",
        "Look at each photo several times and average the probabilities: flip (its mirror image), "
        "scales (smaller and larger), crops (five), or several of these, as flip,scales; empty: "
        "once.",
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        if unknown := [name for name in self.kinds_of_views if name not in VIEWS]:
            yield f"--views={self.views}: there is no {unknown[0]!r}, only {', '.join(VIEWS)}"

    @property
    def kinds_of_views(self) -> tuple[str, ...]:
        """The kinds that are asked for, each once."""
        return tuple(sorted({name.strip() for name in self.views.split(",") if name.strip()}))


@dataclasses.dataclass(frozen=True)
class PredictOptions(ViewedOptions):
    """What to predict with a run, how often to look at a photo, and where results go."""

    pseudo_labels: float = knob(
        0.0,
        "Write no results, but the test photos whose confidence is at least this, calibrated if "
        "the run is, with the predicted labels to --output_dir, for --extra_data_dirs; 0: not.",
        least=0,
        most=1,
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        yield from super().contradictions()
        if self.pseudo_labels and not self.output_dir:
            yield f"--pseudo_labels={self.pseudo_labels}: needs a folder to make, --output_dir=DATA"


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(ViewedOptions):
    """Which weights of a run to score, on which photos, and where results go."""

    split: str = knob(
        "train_val",
        "Photos to score: train_val: those of training and validation; test: those of the test "
        "split, if its records have labels.",
        choices=("train_val", "test"),
    )


@dataclasses.dataclass(frozen=True)
class ExportOptions(ViewedOptions):
    """What a run becomes, and where that goes."""

    topic: ClassVar[str] = "Export"

    output_dir: str = knob(
        "",
        "Folder to make; empty: export/FORMAT in that of the run. An earlier export there is "
        "replaced, anything else is refused.",
    )
    format: str = knob(
        "savedmodel",
        "savedmodel: from JPEG files to names, for TensorFlow and TensorFlow Serving; keras: for "
        "plain tf.keras; tflite: for phones, in float32, float16 and 8-bit integers; onnx: for "
        "other runtimes, and browsers.",
        choices=("savedmodel", "keras", "tflite", "onnx"),
    )
    calibrated: bool = knob(
        False, "Divide the logits by the run's temperature, so that probabilities are calibrated."
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        yield from super().contradictions()
        if self.views and self.format != "savedmodel":
            yield (
                f"--views={self.views} and --format={self.format}: only a SavedModel holds how a "
                "photo is looked at several times; export one, or leave the views to who calls"
            )


@dataclasses.dataclass(frozen=True)
class EnsembleOptions(Options):
    """How runs are averaged, and where that goes."""

    topic: ClassVar[str] = "Ensemble"

    weights: str = knob(
        "equal",
        "equal: every run counts the same; search: weights are fitted on the validation photos, "
        "whose scores are then cross-validated.",
        choices=("equal", "search"),
    )
    output_dir: str = knob(
        "runs/ensemble",
        "Folder for the results. An earlier ensemble there is replaced, anything else is refused.",
    )
    report: bool = knob(True, "Draw plots/ and report.html; --noreport: earlier ones are removed.")
    report_images: str = knob(
        "embedded",
        "Images of report.html: embedded, so that it is one file, or the files in plots/.",
        choices=("embedded", "files"),
    )


@dataclasses.dataclass(frozen=True)
class ClassifyOptions(CheckpointOptions):
    """How names of photos are told."""

    topic: ClassVar[str] = "Naming"

    json: bool = knob(False, "Print JSON, and nothing else, in place of the table.")
    output: str = knob("", "PNG file to make: a sheet of the photos with their names; empty: none.")

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        if self.output and not self.output.endswith(".png"):
            yield f"--output={self.output}: expected the name of a PNG file, like sheet.png"
