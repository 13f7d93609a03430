"""From options to absl flags and back, and the help they read as."""

import dataclasses
import re
import textwrap
from collections.abc import Iterable
from typing import Any

from absl import flags

from flowers_tpu.options import Options, fields_of, flag_name

_INDENT = "      "


def define(kinds: Iterable[type[Options]], values: flags.FlagValues) -> None:
    """Defines a flag for every field of several kinds of options."""
    for field in fields_of(kinds):
        default: Any = field.default
        name, text = flag_name(field), field.metadata["help"]
        if choices := field.metadata["choices"]:
            flags.DEFINE_enum(name, default, list(choices), text, flag_values=values)
        else:
            define_one: Any = {
                bool: flags.DEFINE_bool,
                int: flags.DEFINE_integer,
                float: flags.DEFINE_float,
                str: flags.DEFINE_string,
            }[field.type]
            define_one(name, default, text, flag_values=values)


# What absl says of a value, and what is meant.
_MEANINGS = (
    (r"invalid literal for int.*", "expected a whole number"),
    (r"could not convert string to float.*", "expected a number"),
    (r"\('Non-boolean argument to boolean flag'.*", "expected true or false"),
)


def explain(error: Exception) -> str:
    """Returns what is wrong with flags, of what absl says."""
    text = str(error).removeprefix("ERROR:: ")
    if match := re.fullmatch(r"(--no(\w+)=.*) does not take an argument", text):
        return f"{match[1]}: takes no value; write --no{match[2]}, or --{match[2]}=false"
    for saying, meaning in _MEANINGS:
        text = re.sub(saying, meaning, text)
    return text


def read(kinds: Iterable[type[Options]], values: flags.FlagValues) -> dict[str, Any]:
    """Returns the values of parsed flags, by the names of the fields."""
    return {field.name: values[flag_name(field)].value for field in fields_of(kinds)}


def given(kinds: Iterable[type[Options]], values: flags.FlagValues) -> dict[str, Any]:
    """Returns the values of those flags that the command line or its flagfile sets."""
    present = {field.name for field in fields_of(kinds) if values[flag_name(field)].present}
    return {name: value for name, value in read(kinds, values).items() if name in present}


def help_text(description: str, kinds: Iterable[type[Options]]) -> str:
    """Returns the description of a command and all its flags, by topic."""
    lines = [description.strip(), ""]
    for kind in kinds:
        lines.append(f"{kind.topic}:")
        for field in dataclasses.fields(kind):
            lines.append(f"  {_heading(field)}")
            lines.append(
                textwrap.fill(
                    field.metadata["help"], 96, initial_indent=_INDENT, subsequent_indent=_INDENT
                )
            )
        lines.append("")
    lines.append("Also:")
    lines.append("  --flagfile=FILE reads flags from a file.")
    lines.append("  --verbosity=N: -2 errors and results, -1 (default) also warnings and progress,")
    lines.append("      0 also information, 1 also each compiled call of the training.")
    return "\n".join(lines)


def _heading(field: dataclasses.Field) -> str:
    """`--image_size=int  (default 192 pixels)`."""
    kind: Any = field.type
    values = "|".join(field.metadata["choices"]) or kind.__name__
    default = repr(field.default) if field.type is str else str(field.default)
    if field.metadata["unit"]:
        default += f" {field.metadata['unit']}"
    if field.metadata["free"]:
        default += "; may change on the same run"
    name = flag_name(field)
    name = f"--[no]{name}" if field.type is bool else f"--{name}={values}"
    return f"{name}  (default {default})"
