"""A run's specification: as it was asked for, and what it comes to on its devices."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flowers_tpu.data.augment.options import Augmentation
from flowers_tpu.data.options import DataOptions
from flowers_tpu.models.options import ModelOptions
from flowers_tpu.options import Options, fields_of
from flowers_tpu.runs.options import RunOptions
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from flowers_tpu.system.options import DeviceOptions
from flowers_tpu.training.options import (
    INDEPENDENT_OF_EPOCHS,
    ScheduleOptions,
    TrainingOptions,
)

PARTS: dict[str, type[Options]] = {
    "devices": DeviceOptions,
    "data": DataOptions,
    "augmentation": Augmentation,
    "model": ModelOptions,
    "schedule": ScheduleOptions,
    "training": TrainingOptions,
    "run": RunOptions,
}
FIELDS = {field.name: field for field in fields_of(PARTS.values())}


@dataclasses.dataclass(frozen=True)
class Spec:
    """A run as it was asked for: the options of every room."""

    devices: DeviceOptions
    data: DataOptions
    augmentation: Augmentation
    model: ModelOptions
    schedule: ScheduleOptions
    training: TrainingOptions
    run: RunOptions

    @classmethod
    def of(cls, **values: Any) -> "Spec":
        """Makes the parts of the values of flags, by name; what is absent has its default.

        Raises:
            RequestError: a value is beyond its limits, or two contradict each other.
        """
        if unknown := sorted(set(values) - set(FIELDS)):
            raise TypeError(f"no such options: {', '.join(unknown)}")
        parts: dict[str, Any] = {name: kind.of(values) for name, kind in PARTS.items()}
        return cls(**parts)

    def flat(self) -> dict[str, Any]:
        """Returns the values of all flags by name."""
        parts = (dataclasses.asdict(getattr(self, name)) for name in PARTS)
        return {name: value for part in parts for name, value in part.items()}

    def changed(self, **values: Any) -> "Spec":
        """Returns the same with other values of some flags."""
        return Spec.of(**self.flat() | values)

    def differing(self, other: "Spec") -> list[str]:
        """Returns the names of the flags that differ and on which the results of a run depend."""
        mine, others = self.flat(), other.flat()
        free = {name for name, field in FIELDS.items() if field.metadata["free"]}
        if {self.schedule.lr_schedule, other.schedule.lr_schedule} <= set(INDEPENDENT_OF_EPOCHS):
            free.add("epochs")
        return [name for name in FIELDS if name not in free and mine[name] != others[name]]

    def exactly(self, resolved: "Resolved") -> "Spec":
        """Returns the same with nothing left open."""
        return self.changed(
            global_batch_size=resolved.photos_per_step,
            precision=resolved.arithmetic,
            augment_on=resolved.augments_on,
        )

    def to_flagfile(self) -> str:
        """Returns a flagfile that gives exactly this run, for `flags.txt`."""
        lines = []
        for name, value in self.flat().items():
            is_switch = FIELDS[name].type is bool
            lines.append(f"--{'' if value else 'no'}{name}" if is_switch else f"--{name}={value}")
        return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What a specification leaves open, decided for its devices; kept with the run.

    Attributes:
        photos_per_step: the global batch.
        arithmetic: of the layers: `float32`, `bfloat16` or `float16`.
        augments_on: `host` or `device`.
    """

    photos_per_step: int
    arithmetic: str
    augments_on: str


# The flags whose value matters only by what it comes to.
COMES_TO = {
    "batch_size_per_replica": "photos_per_step",
    "global_batch_size": "photos_per_step",
    "precision": "arithmetic",
    "augment_on": "augments_on",
}


def resolve(spec: Spec, facts: Facts, begun: Resolved | None = None) -> Resolved:
    """Decides what a specification leaves open.

    Args:
        spec: as asked for.
        facts: of the devices.
        begun: of a run that continues, whose numbers depend on it: kept as it is.

    Raises:
        RequestError: the replicas do not divide the global batch, or the devices cannot do what is
            asked for.
    """
    data, precision, place = spec.data, spec.devices.precision, spec.augmentation.augment_on
    parts = spec.training.accumulate_steps
    resolved = begun or Resolved(
        data.global_batch_size or data.batch_size_per_replica * facts.replicas * parts,
        facts.arithmetic if precision == "auto" else precision,
        facts.augment_on if place == "auto" else place,
    )
    if resolved.photos_per_step % facts.replicas:
        raise RequestError(
            f"--global_batch_size={resolved.photos_per_step}: is not divisible by "
            f"{facts.replicas} replicas; use a multiple of them, or another number of replicas"
        )
    if (part := resolved.photos_per_step // facts.replicas) % parts:
        raise RequestError(
            f"--accumulate_steps={parts} does not divide the {part} photos of a step that each of "
            f"{facts.replicas} replicas gets; use a --global_batch_size that is a multiple of "
            f"{parts * facts.replicas}"
        )
    if parts > 1 and spec.model.batch_norm == "synchronized":
        raise RequestError(
            f"--accumulate_steps={parts} and --batch_norm=synchronized: replicas cannot exchange "
            "statistics within a loop; use --batch_norm=per_replica or frozen"
        )
    if resolved.arithmetic == "float16" and facts.kind == "TPU":
        raise RequestError("--precision=float16: a TPU has no such arithmetic; use bfloat16")
    if spec.devices.jit == "on" and spec.model.batch_norm == "synchronized":
        raise RequestError(
            "--jit=on and --batch_norm=synchronized: replicas cannot exchange statistics within "
            "what XLA compiles; use --jit=off, or --batch_norm=per_replica or frozen"
        )
    if spec.augmentation.mixes and (part := resolved.photos_per_step // facts.replicas) % 2:
        raise RequestError(
            f"--mixup and --cutmix mix photos in pairs, but each of {facts.replicas} replicas gets "
            f"{part} photos of a step; use an even --batch_size_per_replica, or a "
            f"--global_batch_size that is a multiple of {2 * facts.replicas}"
        )
    return resolved


def compiles_passes(spec: Spec, facts: Facts) -> bool:
    """Whether XLA compiles each replica's forward and backward pass.

    It is decided anew when a run goes on: as with another number of replicas, results are the same
    within rounding.
    """
    if facts.kind == "TPU":
        return False  # its steps are compiled as a whole
    if spec.devices.jit == "auto":
        return facts.compiles_passes and spec.model.batch_norm != "synchronized"
    return spec.devices.jit == "on"


def read_saved(saved: Mapping[str, Mapping[str, Any]]) -> tuple[Spec, Resolved]:
    """Returns what a run's `config.json` holds.

    Raises:
        RequestError: it has what this version does not know.
    """
    given, resolved = saved["flags"], dict(saved["resolved"])
    if "precision" in resolved:  # version 0.1 kept all flags once more, with these replaced
        resolved = {
            COMES_TO[n]: resolved[n] for n in ("global_batch_size", "precision", "augment_on")
        }
    unknown = [f"--{name}" for name in sorted(set(given) - set(FIELDS))]
    unknown += sorted(set(resolved) - {field.name for field in dataclasses.fields(Resolved)})
    if unknown:
        raise RequestError(
            f"holds flags that this version does not know ({', '.join(unknown)}); use the version "
            "that made the run, which environment.json names"
        )
    return Spec.of(**given), Resolved(**resolved)
