"""What a knob is: a field of a frozen dataclass with its default, help, unit and limits.

Each room declares the options it takes as such a dataclass. `commands/flags.py` makes a flag of
every field; a run's folder keeps them as they were given (`runs/spec.py`).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from flowers_tpu.system.errors import RequestError

_Kind = TypeVar("_Kind", bound="Options")


def knob(
    default: Any,
    text: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    free: bool = False,
) -> Any:
    """Returns a field of `Options`.

    Args:
        default: what it is if it is not given.
        text: its help.
        unit: of its value.
        choices: the values it may have; none: any.
        least: the smallest value.
        above: what the value must be larger than.
        most: the largest value.
        below: what the value must be smaller than.
        free: a continued run may change it, as no result depends on it.
    """
    limits = {"at least": least, "above": above, "at most": most, "below": below}
    metadata = {"help": text, "unit": unit, "choices": choices, "limits": limits, "free": free}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
    """Knobs that belong together; their values are checked when they are made.

    Raises:
        RequestError: a value is beyond its limits, or two contradict each other.
    """

    topic: ClassVar[str]  # the heading in `--help`

    def __post_init__(self) -> None:
        beyond = (problem(field, getattr(self, field.name)) for field in dataclasses.fields(self))
        for found in itertools.chain(filter(None, beyond), self.contradictions()):
            raise RequestError(found)

    def contradictions(self) -> Iterator[str]:
        """Yields what is wrong with values that are each within their limits, as messages."""
        yield from ()

    @classmethod
    def of(cls: type[_Kind], values: Mapping[str, Any]) -> _Kind:
        """Picks its own fields from values by name; what is absent has its default."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


def fields_of(kinds: Iterable[type[Options]]) -> list[dataclasses.Field]:
    """Returns the fields of several kinds of options, in order."""
    return [field for kind in kinds for field in dataclasses.fields(kind)]


def flag_name(field: dataclasses.Field) -> str:
    """Returns the flag of a field: its name, without the underscore after a Python keyword."""
    return field.name.rstrip("_")


def problem(field: dataclasses.Field, value: Any) -> str | None:
    """Returns what is wrong with the value of a field, as a message; None if nothing is."""
    name, choices = flag_name(field), field.metadata["choices"]
    if choices and value not in choices:
        return f"--{name}={value}: must be one of {', '.join(choices)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"--{name}={value}: must be a finite number"
    limits = {word: limit for word, limit in field.metadata["limits"].items() if limit is not None}
    keeps = {
        "at least": lambda limit: value >= limit,
        "above": lambda limit: value > limit,
        "at most": lambda limit: value <= limit,
        "below": lambda limit: value < limit,
    }
    if all(keeps[word](limit) for word, limit in limits.items()):
        return None
    if limits == {"at least": 0}:
        return f"--{name}={value}: must not be negative"
    wanted = " and ".join(f"{word} {limit}" for word, limit in limits.items())
    return f"--{name}={value}: must be {wanted}"
