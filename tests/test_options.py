"""What a knob is, and the knobs of a run: limits, choices, contradictions, and the way to flags."""

import dataclasses
import json
from typing import ClassVar

import pytest
from absl import flags as absl_flags

from flowers_tpu import options
from flowers_tpu.commands import flags
from flowers_tpu.options import Options, knob
from flowers_tpu.runs.spec import FIELDS, PARTS, Spec
from flowers_tpu.system.errors import RequestError


@dataclasses.dataclass(frozen=True)
class OvenOptions(Options):
    """Not a flower in it."""

    topic: ClassVar[str] = "Oven"

    degrees: float = knob(180.0, "How hot.", unit="degrees", above=0, most=300)
    trays: int = knob(1, "How many.", least=1)
    spare: int = knob(0, "Trays beside it.", least=0)
    fan: str = knob("off", "Whether it blows.", choices=("on", "off"), free=True)
    lambda_: float = knob(0.5, "A word that Python keeps for itself.", below=1)

    def contradictions(self):
        if self.spare > self.trays:
            yield f"--spare={self.spare} is more than --trays={self.trays}"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("degrees", 0.0, "--degrees=0.0: must be above 0 and at most 300"),
        ("degrees", 300.5, "--degrees=300.5: must be above 0 and at most 300"),
        ("degrees", float("nan"), "--degrees=nan: must be a finite number"),
        ("degrees", float("-inf"), "--degrees=-inf: must be a finite number"),
        ("trays", 0, "--trays=0: must be at least 1"),
        ("spare", -1, "--spare=-1: must not be negative"),
        ("fan", "ON", "--fan=ON: must be one of on, off"),
        ("lambda_", 1.0, "--lambda=1.0: must be below 1"),
        ("spare", 2, "--spare=2 is more than --trays=1"),
    ],
)
def test_a_message_says_the_flag_the_value_and_what_is_expected(name, value, message):
    with pytest.raises(RequestError) as caught:
        OvenOptions(**{name: value})
    assert str(caught.value) == message


def test_the_limits_themselves_are_allowed():
    OvenOptions(degrees=300.0, trays=1, spare=0, lambda_=-5.0)
    OvenOptions(degrees=1e-9, spare=2, trays=2, fan="on")


def test_options_take_their_own_values_by_name():
    assert OvenOptions.of({"trays": 3, "seed": 7}) == OvenOptions(trays=3)
    assert OvenOptions.of({}) == OvenOptions()


def test_a_flag_has_the_name_of_its_field():
    fields = options.fields_of([OvenOptions])
    assert list(map(options.flag_name, fields)) == ["degrees", "trays", "spare", "fan", "lambda"]


def test_every_knob_of_a_run_says_what_it_is():
    assert len(FIELDS) == sum(len(dataclasses.fields(kind)) for kind in PARTS.values()), "twice"
    for name, field in FIELDS.items():
        assert field.metadata["help"].endswith("."), name
        assert type(field.default) is field.type, name
        assert options.problem(field, field.default) is None, name
        if field.metadata["unit"]:
            assert field.type in (int, float), name


# The knobs of a run

# A value for each flag that is not its default.
OTHERS = {
    "tpu": "grpc://10.0.0.2:8470",
    "require_tpu": True,
    "replicas": 4,
    "precision": "bfloat16",
    "workers_seconds": 60.0,
    "jit": "on",
    "memory_growth": True,
    "deterministic": True,
    "steps_per_loop": 7,
    "data_dir": "gs://bucket/a folder=x#1",
    "image_size": 331,
    "classes": "names, all.txt",
    "batch_size_per_replica": 3,
    "global_batch_size": 96,
    "shuffle_buffer": 1,
    "eval_image_size": 400,
    "preprocessing": "torch",
    "accumulate_steps": 2,
    "mixup": 0.2,
    "cutmix": 1.0,
    "mix_probability": 0.5,
    "track": "wandb",
    "flip_left_right": False,
    "flip_up_down": False,
    "saturation_lower": 0.1,
    "saturation_upper": 1.7,
    "crop_min": 1.0,
    "cache": "pixels",
    "augment_on": "device",
    "brightness": 0.1,
    "contrast": 0.2,
    "hue": 0.5,
    "rotation": 15.0,
    "zoom": 0.3,
    "translation": 0.25,
    "random_erasing": 1.0,
    "backbone": "efficientnet_b0",
    "alpha": 0.35,
    "weights": "none",
    "dropout": 0.2,
    "batch_norm": "frozen",
    "warmup_epochs": 0,
    "warmup_learning_rate": 1 / 3,
    "epochs": 1,
    "learning_rate": 1e-20,
    "lr_schedule": "cosine",
    "lr_granularity": "step",
    "lr_start": 0.0,
    "lr_min": 1.1e-7,
    "lr_rampup_epochs": 0.5,
    "lr_sustain_epochs": 2.5,
    "lr_decay": 0.9,
    "optimizer": "lamb",
    "momentum": 0.0,
    "weight_decay": 1e-4,
    "l2": 1e-5,
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "on_nan": "skip",
    "early_stopping_patience": 0,
    "seed": 2**31 - 1,
    "run_dir": "runs/name",
    "overwrite": True,
    "checkpoint_every_steps": 50,
    "bad_records": "skip",
    "checkpoint_every_minutes": 2.5,
    "summary": True,
    "report": False,
    "report_images": "files",
    "tensorboard": False,
    "profile_steps": "20,25",
    "backbone_rate": 0.1,
    "train_from": "conv",
    "ema_decay": 0.999,
    "monitor": "val_accuracy",
    "from_run": "runs/another@latest",
    "max_hours": 8.5,
    "folds": 5,
    "fold": 3,
    "fold_seed": 1,
    "extra_data_dirs": "more,others",
    "allow_near_copies": True,
}
# They do not go with --overwrite, --rotation, --warmup_epochs=0, --folds and --replicas.
NOT_WITH_OTHERS = {"finish", "trivial_augment", "warmup_on", "train_splits", "workers"}
NOT_WITH_OTHERS |= {"worker_index"}


def test_other_values_cover_every_flag():
    assert OTHERS.keys() | NOT_WITH_OTHERS == FIELDS.keys()
    assert not [name for name, value in OTHERS.items() if value == FIELDS[name].default]


def test_defaults_are_those_that_users_rely_on():
    default = Spec.of().flat()
    promised = {
        **{"tpu": "", "require_tpu": False, "replicas": 0, "precision": "auto"},
        **{"data_dir": "example", "image_size": 192, "classes": "", "batch_size_per_replica": 16},
        **{"backbone": "vgg16", "weights": "imagenet", "seed": 0, "steps_per_loop": 0},
        **{"warmup_epochs": 3, "warmup_learning_rate": 1e-4, "epochs": 20, "learning_rate": 3e-5},
        **{"lr_start": 1e-8, "lr_min": 1e-6, "lr_rampup_epochs": 3, "lr_sustain_epochs": 0},
        **{"lr_decay": 0.8, "lr_schedule": "ramp_decay", "lr_granularity": "epoch"},
        **{"early_stopping_patience": 5, "run_dir": "", "deterministic": False},
    }
    assert {name: default[name] for name in promised} == promised


def parsed(*arguments):
    """What absl makes of a command's flags."""
    values = absl_flags.FlagValues()
    flags.define(PARTS.values(), values)
    assert values(["train.py", *arguments]) == ["train.py"]
    return Spec.of(**flags.read(PARTS.values(), values))


@pytest.mark.parametrize("given", [Spec.of(), Spec.of(**OTHERS)], ids=["defaults", "others"])
def test_a_flagfile_gives_the_same_run_again(tmp_path, given):
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text(given.to_flagfile())
    assert parsed(f"--flagfile={flagfile}") == given


def test_a_spec_survives_json():
    given = Spec.of(**OTHERS)
    assert Spec.of(**json.loads(json.dumps(given.flat()))) == given


def test_flags_are_flat_and_parts_are_not():
    spec = Spec.of(**OTHERS)
    assert spec.flat() == OTHERS | {name: FIELDS[name].default for name in NOT_WITH_OTHERS}
    assert spec.augmentation.crop_min == 1.0
    assert spec.schedule.lr_decay == 0.9
    assert spec.run.run_dir == "runs/name"


def test_what_is_changed_comes_before_what_was_given():
    spec = parsed("--seed=3", "--epochs=2")
    assert spec == Spec.of(seed=3, epochs=2)
    assert spec.changed(seed=4) == Spec.of(seed=4, epochs=2)
    with pytest.raises(RequestError, match="--epochs=-1: must not be negative"):
        spec.changed(epochs=-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("image_size", "batch_size_per_replica", "shuffle_buffer")),
        *((name, -1) for name in ("replicas", "steps_per_loop", "global_batch_size", "seed")),
        *((name, -1) for name in ("warmup_epochs", "epochs", "early_stopping_patience")),
        *((name, -1) for name in ("checkpoint_every_steps",)),
        *((name, -1e-9) for name in ("warmup_learning_rate", "learning_rate", "lr_start")),
        *((name, -1e-9) for name in ("checkpoint_every_minutes",)),
        *((name, -1e-9) for name in ("lr_min", "lr_rampup_epochs", "lr_sustain_epochs")),
        *((name, -1e-9) for name in ("weight_decay", "l2", "clip_norm", "saturation_lower")),
        *((name, -1e-9) for name in ("dropout", "label_smoothing", "momentum")),
        *((name, 1.0) for name in ("dropout", "label_smoothing", "momentum")),
        *((name, 0.0) for name in ("crop_min", "lr_decay", "alpha")),
        *((name, 1.01) for name in ("crop_min", "lr_decay")),
        *((name, -1e-9) for name in ("brightness", "contrast", "hue", "rotation", "zoom")),
        *((name, -1e-9) for name in ("translation", "random_erasing")),
        *((name, 1.01) for name in ("brightness", "translation", "random_erasing")),
        *((name, 1.0) for name in ("contrast", "zoom")),
        *(("hue", 0.51), ("rotation", 180.1), ("cache", "x"), ("augment_on", "x")),
        *((name, float("nan")) for name in ("learning_rate", "l2", "saturation_upper")),
        *((name, float("inf")) for name in ("clip_norm", "lr_sustain_epochs")),
        ("seed", 2**31),
        *((name, "x") for name in ("precision", "batch_norm", "lr_schedule", "lr_granularity")),
        *((name, "x") for name in ("optimizer", "class_weights", "on_nan")),
        *(("backbone_rate", 0.0), ("ema_decay", -1e-9), ("ema_decay", 1.0), ("max_hours", -1e-9)),
        ("monitor", "loss"),
        *(("profile_steps", text) for text in ("5", "5,", "5,5", "6,5", "-1,5", "5,6,7", "a,b")),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(RequestError) as caught:
        Spec.of(**{name: value})
    assert str(caught.value).startswith(f"--{name}={value}: must ")


@pytest.mark.parametrize(
    "flags_given",
    [
        {"saturation_lower": 1.5, "saturation_upper": 0.5},
        {"warmup_epochs": 0, "epochs": 0},
        {"weight_decay": 0.1, "optimizer": "adam"},
        {"weight_decay": 0.1, "optimizer": "sgd"},
        {"require_tpu": True, "tpu": ""},
        {"finish": True, "overwrite": True},
    ],
)
def test_contradictions_are_refused_naming_both_flags(flags_given):
    with pytest.raises(RequestError) as caught:
        Spec.of(**flags_given)
    for name in flags_given:
        assert f"--{name}" in str(caught.value)


@pytest.mark.parametrize(
    "flags_given",
    [
        {"saturation_lower": 1.0, "saturation_upper": 1.0},
        {"warmup_epochs": 0, "epochs": 1},
        {"warmup_epochs": 1, "epochs": 0},
        {"weight_decay": 0.1, "optimizer": "adamw"},
        {"crop_min": 1.0, "lr_decay": 1.0, "dropout": 0.0, "learning_rate": 0.0},
        {"require_tpu": True, "tpu": "local"},
        {"profile_steps": "0,1"},
    ],
)
def test_the_ends_of_ranges_are_allowed(flags_given):
    Spec.of(**flags_given)


def test_only_flags_that_change_results_count_as_differing():
    free = {"tpu", "require_tpu", "replicas", "steps_per_loop", "cache", "jit", "memory_growth"}
    free |= {"workers_seconds"}
    free |= {
        "run_dir",
        "overwrite",
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "summary",
        "report",
        "report_images",
        "tensorboard",
        "track",
        "profile_steps",
        "on_nan",
        "monitor",
        "early_stopping_patience",
        "max_hours",
    }
    others = Spec.of(**OTHERS)
    assert set(Spec.of().differing(others)) == OTHERS.keys() - free
    assert Spec.of(seed=1).differing(Spec.of(seed=2, replicas=2)) == ["seed"]
    assert others.differing(Spec.of(**OTHERS)) == []
    assert Spec.of(finish=True).differing(Spec.of()) == []


@pytest.mark.parametrize(
    ("schedule", "differing"), [("ramp_decay", []), ("constant", []), ("cosine", ["epochs"])]
)
def test_epochs_may_differ_if_no_rate_depends_on_them(schedule, differing):
    few, many = (Spec.of(epochs=epochs, lr_schedule=schedule) for epochs in (3, 9))
    assert few.differing(many) == differing


def test_a_spec_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spec.of().seed = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spec.of().training.seed = 1
