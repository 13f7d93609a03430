"""What every script does around its work: parse flags, print help, turn errors into exit codes."""

import dataclasses
import importlib
import itertools
import os
import signal
import sys
import textwrap
from typing import Any, NamedTuple

from absl import flags, logging

from flowers_tpu import allocator, progress, quiet
from flowers_tpu import config as config_lib
from flowers_tpu.config import Config
from flowers_tpu.errors import RequestError, RunError, StoppedError

_INDENT = "      "


class Request(NamedTuple):
    """What a command line asks for.

    Attributes:
        config: of the run; None where a script has no use for one.
        options: values of the script's own flags, by name.
        arguments: what stands there beside flags.
    """

    config: Config | None
    options: dict[str, Any]
    arguments: list[str]


def run(
    command: str,
    description: str,
    *,
    options: type | None = None,
    takes_config: bool = True,
    arguments: str = "",
    on_existing_run: bool = False,
) -> None:
    """Parses the flags, calls a function of the package and exits.

    The function is called as `function([config], [arguments], option=value, …)`.

    Exit codes: 0 done; 1 failed; 2 the request is wrong; 143 stopped by a signal, saved.

    Args:
        command: the function, as `module.function` within the package.
        description: what `--help` begins with.
        options: a dataclass of `config.knob`s: the script's own flags.
        takes_config: whether the flags of a run are the script's too.
        arguments: what the script takes beside flags, as a word for messages; '' for nothing.
        on_existing_run: flags that are not given are those of the run in `--run_dir`.
    """
    knobs = [kind for kind in (options, Config if takes_config else None) if kind]
    for kind in knobs:
        config_lib.define_flags(kind)
    logging.use_absl_handler()
    progress.log_beside_bars()
    try:
        request = parse(sys.argv, description, knobs, arguments)
        allocator.keep_freed_memory()
        module, _, function = command.rpartition(".")
        with quiet.without_chatter():  # late, so that --help and wrong flags answer at once
            work = getattr(importlib.import_module(f"flowers_tpu.{module}"), function)
        given = [request.config, request.arguments if arguments else None]
        if on_existing_run:
            from flowers_tpu import experiment

            given[0] = experiment.with_flags_of_run(request.config, given_flags())
        work(*(value for value in given if value is not None), **request.options)
    except (RequestError, RunError, StoppedError) as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def parse(argv: list[str], description: str, knobs: list[type], arguments: str = "") -> Request:
    """Returns what a command line asks for; prints the help and exits where asked to.

    Args:
        argv: the script and what follows it.
        description: what the help begins with.
        knobs: dataclasses whose fields are defined as flags; `Config` may be one of them.
        arguments: a word for what may stand beside flags; '' where nothing may.
    """
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:]):
        print(help_text(description, knobs))
        sys.exit(0)
    try:
        _, *rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise RequestError(f"{error}; --help lists the flags") from error
    except OSError as error:
        raise RequestError(f"--flagfile: {error}") from error
    if rest and not arguments:
        raise RequestError(f"unexpected argument {rest[0]!r}; flags are --name=value")
    if arguments and not rest:
        raise RequestError(f"expected {arguments}; --help tells more")
    config, options = None, {}
    for kind in knobs:
        if kind is Config:
            run_dir = flags.FLAGS.run_dir or os.path.join("runs", _flagfile_name(argv) or "default")
            config = config_lib.from_flags(flags.FLAGS, run_dir=run_dir)
        else:
            options |= dataclasses.asdict(config_lib.from_flags(flags.FLAGS, kind))
    return Request(config, options, rest)


def given_flags() -> set[str]:
    """Names of the flags of a run that the command line or its flagfile sets."""
    names = (field.name for field in dataclasses.fields(Config))
    return {name for name in names if flags.FLAGS[name].present}


def help_text(description: str, knobs: list[type]) -> str:
    """The description of a script and all flags, by topic."""
    fields = [field for kind in knobs for field in dataclasses.fields(kind)]
    lines = [description.strip(), ""]
    for topic in dict.fromkeys(field.metadata["topic"] for field in fields):
        lines.append(f"{topic}:")
        for field in (field for field in fields if field.metadata["topic"] == topic):
            values = "|".join(field.metadata["choices"]) or field.type.__name__
            default = repr(field.default) if field.type is str else field.default
            name = config_lib.flag_name(field)
            name = f"--[no]{name}" if field.type is bool else f"--{name}={values}"
            lines.append(f"  {name}  (default {default})")
            lines.append(textwrap.fill(field.metadata["help"], 96, initial_indent=_INDENT,
                                       subsequent_indent=_INDENT))  # fmt: skip
        lines.append("")
    lines.append("Also:")
    lines.append("  --flagfile=FILE reads flags from a file.")
    lines.append("  --verbosity=N: -2 errors and results, -1 (default) also warnings and progress,")
    lines.append("      0 also information, 1 also each compiled call of the training.")
    return "\n".join(lines)


def _flagfile_name(argv: list[str]) -> str:
    """The name, without ending, of the last flagfile given, or ''."""
    name = ""
    for argument, following in itertools.pairwise([*argv[1:], ""]):
        flag, _, value = argument.lstrip("-").partition("=")
        if flag == "flagfile" and argument.startswith("-"):
            name = os.path.splitext(os.path.basename(value or following))[0]
    return name
