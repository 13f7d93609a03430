"""Every knob of a run: its name, default and help stand here once, as a field of `Config`.

A field becomes an absl flag (`define_flags`), the flags become one frozen, validated `Config`
(`from_flags`), and the run directory keeps it as `config.json` and `flags.txt`. A script that has
knobs of its own writes them down the same way, as a dataclass of `knob`s.
"""

import dataclasses
import math
import re
from typing import Any

from absl import flags

from flowers_tpu.errors import RequestError


def knob(default: Any, topic: str, text: str, *, choices: tuple[str, ...] = (), free=False) -> Any:
    """A field that becomes a flag; `free`: a continued run may change it, as no result does."""
    metadata = {"topic": topic, "help": text, "choices": choices, "free": free}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """One run, completely. See the help of each field; units are in the help."""

    tpu: str = knob(
        "",
        "Devices",
        "TPU to run on: 'local' (on a TPU VM), a name, or grpc://HOST:PORT; empty: none. Where "
        "there is none, a warning says what runs instead.",
        free=True,
    )
    require_tpu: bool = knob(
        False, "Devices", "Fail, instead of warning, where --tpu finds no TPU.", free=True
    )
    replicas: int = knob(
        0,
        "Devices",
        "Replicas to split the CPU into (tests, experiments); 0: one replica per device found.",
        free=True,
    )
    precision: str = knob(
        "auto",
        "Devices",
        "Precision of the layers' arithmetic; auto: bfloat16 on TPU, float32 elsewhere. Weights, "
        "softmax, loss and scores are always float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    deterministic: bool = knob(
        False, "Devices", "Use only deterministic kernels; needed for bit-exactness on GPUs."
    )
    steps_per_loop: int = knob(
        0, "Devices", "Steps per compiled call; 0: as many as take about a second.", free=True
    )

    data_dir: str = knob(
        "example",
        "Data",
        "Folder or gs:// path with train/, val/ and test/, or with tfrecords-jpeg-SxS/ folders; "
        "'example': drawn flowers, made on first use.",
    )
    image_size: int = knob(192, "Data", "Side of the square the model sees, pixels.")
    classes: str = knob(
        "",
        "Data",
        "File of class names, one a line; empty: the data set's classes.txt, else the 104 flowers.",
    )
    batch_size_per_replica: int = knob(
        16, "Data", "Photos per step and replica; the global batch is this times the replicas."
    )
    global_batch_size: int = knob(
        0,
        "Data",
        "Photos per step over all replicas, which must divide it; 0: by --batch_size_per_replica.",
    )
    bad_records: str = knob(
        "fail",
        "Data",
        "What to do with damaged records: fail, naming the first; or skip: leave them out, count "
        "them, and list them in bad_records.csv.",
        choices=("fail", "skip"),
    )
    shuffle_buffer: int = knob(2048, "Data", "Photos (as JPEG bytes) to shuffle among; 1: none.")
    cache: str = knob(
        "none",
        "Data",
        "What of training and validation to keep in memory: nothing, the records (JPEG), or the "
        "decoded pixels.",
        choices=("none", "records", "pixels"),
        free=True,
    )

    augment_on: str = knob(
        "auto",
        "Augmentation",
        "Where training photos are augmented; auto: on a TPU or GPU by itself, else on the host. "
        "Rotation, zoom and translation are slow on a TPU: better on the host there.",
        choices=("auto", "host", "device"),
    )
    flip_left_right: bool = knob(True, "Augmentation", "Mirror half of the training photos.")
    flip_up_down: bool = knob(True, "Augmentation", "Turn half of the training photos upside down.")
    crop_min: float = knob(
        0.7,
        "Augmentation",
        "Least side of the random square crop, as a fraction of the photo's; 1: no crop.",
    )
    brightness: float = knob(
        0.0, "Augmentation", "Most that is added or taken away, as a fraction of full brightness."
    )
    contrast: float = knob(0.0, "Augmentation", "Most that the factor of contrast differs from 1.")
    saturation_lower: float = knob(
        0.0, "Augmentation", "Least factor of colour saturation; 1 and 1: unchanged."
    )
    saturation_upper: float = knob(2.0, "Augmentation", "Largest factor of colour saturation.")
    hue: float = knob(
        0.0, "Augmentation", "Most that the hue is turned either way, as a fraction of the circle."
    )
    rotation: float = knob(0.0, "Augmentation", "Most that a photo is turned either way, degrees.")
    zoom: float = knob(0.0, "Augmentation", "Most that the factor of enlargement differs from 1.")
    translation: float = knob(
        0.0, "Augmentation", "Most that a photo is shifted along a side, as a fraction of it."
    )
    random_erasing: float = knob(
        0.0, "Augmentation", "Probability with which a random rectangle is painted over."
    )

    backbone: str = knob(
        "vgg16", "Model", "Network below the head; an unknown name prints the known ones."
    )
    alpha: float = knob(1.0, "Model", "Width multiplier of mobilenet and mobilenet_v2.")
    weights: str = knob(
        "imagenet",
        "Model",
        "Backbone's initial weights: 'imagenet' (downloaded), 'none' (random), or a Keras HDF5 "
        "file.",
    )
    dropout: float = knob(0.0, "Model", "Fraction of the features dropped before the head.")
    batch_norm: str = knob(
        "per_replica",
        "Model",
        "Batch normalization in fine-tuning: statistics of each replica's batch, of the global "
        "batch, or the frozen pretrained ones.",
        choices=("per_replica", "synchronized", "frozen"),
    )

    warmup_epochs: int = knob(3, "Training", "Epochs of the head alone, the backbone frozen.")
    warmup_learning_rate: float = knob(
        1e-4, "Training", "Rate of the warm-up for a global batch of 16; scaled linearly with it."
    )
    epochs: int = knob(20, "Training", "Most epochs of fine-tuning all layers.")
    learning_rate: float = knob(
        3e-5, "Training", "Peak rate of fine-tuning for a global batch of 16; scaled linearly."
    )
    lr_schedule: str = knob(
        "ramp_decay",
        "Training",
        "How the rate moves: ramp_decay: ramp, sustain, exponential decay; cosine: ramp, then a "
        "half cosine to --lr_min; constant.",
        choices=("ramp_decay", "cosine", "constant"),
    )
    lr_granularity: str = knob(
        "epoch",
        "Training",
        "Whether the rate moves at each epoch (a staircase) or at each step.",
        choices=("epoch", "step"),
    )
    lr_start: float = knob(1e-8, "Training", "Rate the ramp begins with; not scaled.")
    lr_min: float = knob(1e-6, "Training", "Rate the decay tends to; not scaled.")
    lr_rampup_epochs: float = knob(3.0, "Training", "Epochs from --lr_start to the peak.")
    lr_sustain_epochs: float = knob(0.0, "Training", "Epochs at the peak (ramp_decay).")
    lr_decay: float = knob(0.8, "Training", "Factor per epoch of the decay (ramp_decay).")
    optimizer: str = knob(
        "adam",
        "Training",
        "Optimizer; lamb, radam and novograd come from TensorFlow Addons.",
        choices=("sgd", "adam", "adamw", "lamb", "radam", "novograd"),
    )
    momentum: float = knob(0.9, "Training", "Nesterov momentum of sgd.")
    weight_decay: float = knob(
        0.0, "Training", "Decoupled weight decay of adamw, lamb, radam and novograd."
    )
    l2: float = knob(
        0.0, "Training", "Factor of the squared norm of all kernels, added to the loss."
    )
    clip_norm: float = knob(
        0.0, "Training", "Largest global norm of the gradients; 0: not clipped."
    )
    label_smoothing: float = knob(
        0.0, "Training", "Part of the label spread evenly over all classes."
    )
    class_weights: str = knob(
        "none",
        "Training",
        "balanced: weigh examples inversely to the frequency of their class.",
        choices=("none", "balanced"),
    )
    on_nan: str = knob(
        "stop",
        "Training",
        "Where loss or gradients of a step are not finite: stop, or skip that step's update.",
        choices=("stop", "skip"),
    )
    early_stopping_patience: int = knob(
        5, "Training", "Epochs of fine-tuning without a better validation loss; 0: never stop."
    )
    seed: int = knob(0, "Training", "Seed of everything.")

    run_dir: str = knob(
        "",
        "Run",
        "Folder of the run; an existing one is continued. Empty: runs/<flagfile's name>.",
        free=True,
    )
    overwrite: bool = knob(
        False, "Run", "Delete an existing run in --run_dir and begin anew.", free=True
    )
    checkpoint_every_steps: int = knob(
        0, "Run", "Also save every so many steps within an epoch; 0: not by steps.", free=True
    )
    checkpoint_every_minutes: float = knob(
        10.0, "Run", "Also save when the last save is so long ago, minutes; 0: not.", free=True
    )
    summary: bool = knob(False, "Run", "Print the table of the model's layers.", free=True)
    tensorboard: bool = knob(
        True, "Run", "Write curves and pictures for TensorBoard to tensorboard/.", free=True
    )
    profile_steps: str = knob(
        "",
        "Run",
        "FROM,TO: profile the steps of the run after step FROM up to step TO, for TensorBoard's "
        "profiler; empty: none.",
        free=True,
    )
    report: bool = knob(
        True,
        "Run",
        "Draw plots/ and report.html when the run is scored; --noreport: those of earlier scores "
        "are removed.",
        free=True,
    )
    report_images: str = knob(
        "embedded",
        "Run",
        "Images of report.html: embedded, so that it is one file, or the files in plots/.",
        choices=("embedded", "files"),
        free=True,
    )

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise RequestError(problem)

    @property
    def profiled_steps(self) -> tuple[int, int] | None:
        """The two numbers of `--profile_steps`, or None."""
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", self.profile_steps)
        return (int(match[1]), int(match[2])) if match else None

    def to_flagfile(self) -> str:
        """The configuration as a flagfile that gives exactly this run, for `flags.txt`."""
        lines = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "overwrite":
                continue  # deleting the run again is no part of it
            lines.append(
                f"--{'' if value else 'no'}{field.name}"
                if field.type is bool
                else f"--{field.name}={value}"
            )
        return "\n".join(lines) + "\n"


def changed_flags(before: Config, now: Config) -> list[str]:
    """Returns the names of the flags that differ and on which the results of a run depend."""
    return [
        field.name
        for field in dataclasses.fields(Config)
        if not field.metadata["free"] and getattr(before, field.name) != getattr(now, field.name)
    ]


def flag_name(field: dataclasses.Field) -> str:
    """The flag of a field: its name, but for an underscore behind a word of Python (`class_`)."""
    return field.name.rstrip("_")


def define_flags(knobs: type = Config, values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines an absl flag for every field of `Config`, or of another dataclass of `knob`s."""
    for field in dataclasses.fields(knobs):
        name, default, text = flag_name(field), field.default, field.metadata["help"]
        if choices := field.metadata["choices"]:
            flags.DEFINE_enum(name, default, list(choices), text, flag_values=values)
        elif field.type is bool:
            flags.DEFINE_bool(name, default, text, flag_values=values)
        elif field.type is int:
            flags.DEFINE_integer(name, default, text, flag_values=values)
        elif field.type is float:
            flags.DEFINE_float(name, default, text, flag_values=values)
        else:
            flags.DEFINE_string(name, default, text, flag_values=values)


def from_flags(values: flags.FlagValues, knobs: type = Config, **replacements: Any) -> Any:
    """Returns the validated `Config`, or another dataclass of `knob`s, of parsed flags.

    Raises:
        RequestError: a value is out of its range, or two contradict each other.
    """
    given = {field.name: values[flag_name(field)].value for field in dataclasses.fields(knobs)}
    return knobs(**{**given, **replacements})


def _problems(config: Config):
    """Yields what is wrong with the values themselves, as messages."""
    at_least_one = ("image_size", "batch_size_per_replica", "shuffle_buffer")
    not_negative = (
        *("replicas", "steps_per_loop", "global_batch_size", "warmup_epochs", "epochs"),
        *("warmup_learning_rate", "learning_rate", "lr_start", "lr_min", "lr_rampup_epochs"),
        *("lr_sustain_epochs", "weight_decay", "l2", "clip_norm", "early_stopping_patience"),
        *("checkpoint_every_steps", "checkpoint_every_minutes", "saturation_lower", "seed"),
        *("brightness", "contrast", "hue", "rotation", "zoom", "translation", "random_erasing"),
    )
    most = {"brightness": 1, "hue": 0.5, "rotation": 180, "translation": 1, "random_erasing": 1}
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            yield f"--{name}={value}: must be a finite number"
        if name in at_least_one and value < 1:
            yield f"--{name}={value}: must be at least 1"
        if name in not_negative and value < 0:
            yield f"--{name}={value}: must not be negative"
        if name in most and value > most[name]:
            yield f"--{name}={value}: must be at most {most[name]}"
        choices = field.metadata["choices"]
        if choices and value not in choices:
            yield f"--{name}={value}: must be one of {', '.join(choices)}"
    for name in ("dropout", "label_smoothing", "momentum", "contrast", "zoom"):
        if not 0 <= getattr(config, name) < 1:
            yield f"--{name}={getattr(config, name)}: must be at least 0 and below 1"
    for name in ("crop_min", "lr_decay"):
        if not 0 < getattr(config, name) <= 1:
            yield f"--{name}={getattr(config, name)}: must be above 0 and at most 1"
    if config.alpha <= 0:
        yield f"--alpha={config.alpha}: must be above 0"
    if config.seed >= 2**31:
        yield f"--seed={config.seed}: must be below {2**31}"
    if config.saturation_lower > config.saturation_upper:
        yield (
            f"--saturation_lower={config.saturation_lower} is above "
            f"--saturation_upper={config.saturation_upper}"
        )
    if config.warmup_epochs + config.epochs < 1:
        yield "--warmup_epochs=0 and --epochs=0: nothing to train; use scripts/evaluate.py"
    if config.weight_decay and config.optimizer in ("sgd", "adam"):
        yield (
            f"--weight_decay={config.weight_decay} does not go with --optimizer={config.optimizer};"
            " use --l2, or --optimizer=adamw, lamb, radam or novograd"
        )
    steps = config.profiled_steps
    if config.profile_steps and not (steps and steps[0] < steps[1]):
        yield (
            f"--profile_steps={config.profile_steps}: must be two steps of the run, FROM,TO, the "
            "first below the second and at least 0, like 20,25"
        )
    if config.require_tpu and not config.tpu:
        yield "--require_tpu needs --tpu: 'local' on a TPU VM, a name, or grpc://HOST:PORT"
