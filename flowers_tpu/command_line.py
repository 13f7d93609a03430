"""What every script does around its work: parse flags, print help, turn errors into exit codes."""

import dataclasses
import itertools
import os
import signal
import sys
import textwrap

from absl import flags, logging

from flowers_tpu import config as config_lib
from flowers_tpu import quiet
from flowers_tpu.errors import RequestError, RunError, StoppedError

_INDENT = "      "


def run(command: str, description: str, *, on_existing_run: bool = False) -> None:
    """Parses the flags, calls `experiment.<command>(config)` and exits.

    Exit codes: 0 done; 1 failed; 2 the request is wrong; 143 stopped by a signal, saved.

    Args:
        command: name of a function of `experiment`.
        description: what `--help` begins with.
        on_existing_run: flags that are not given are those of the run in `--run_dir`.
    """
    config_lib.define_flags()
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(None)  # a line for a person, not for a log collector
    try:
        config = parse(sys.argv, description)
        with quiet.without_chatter():
            from flowers_tpu import (
                experiment,
            )  # late, so that --help and wrong flags answer at once
        if on_existing_run:
            config = experiment.with_flags_of_run(config, given_flags())
        getattr(experiment, command)(config)
    except (RequestError, RunError, StoppedError) as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def parse(argv: list[str], description: str) -> config_lib.Config:
    """Returns the configuration of a command line; prints the help and exits where asked to."""
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:]):
        print(help_text(description))
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise RequestError(f"{error}; --help lists the flags") from error
    except OSError as error:
        raise RequestError(f"--flagfile: {error}") from error
    if len(rest) > 1:
        raise RequestError(f"unexpected argument {rest[1]!r}; flags are --name=value")
    run_dir = flags.FLAGS.run_dir or os.path.join("runs", _flagfile_name(argv) or "default")
    return config_lib.from_flags(flags.FLAGS, run_dir=run_dir)


def given_flags() -> set[str]:
    """Names of the flags that the command line or its flagfile sets."""
    names = (field.name for field in dataclasses.fields(config_lib.Config))
    return {name for name in names if flags.FLAGS[name].present}


def help_text(description: str) -> str:
    """The description of a script and all flags, by topic."""
    fields = dataclasses.fields(config_lib.Config)
    lines = [description.strip(), ""]
    for topic in dict.fromkeys(field.metadata["topic"] for field in fields):
        lines.append(f"{topic}:")
        for field in (field for field in fields if field.metadata["topic"] == topic):
            values = "|".join(field.metadata["choices"]) or field.type.__name__
            default = repr(field.default) if field.type is str else field.default
            name = f"--[no]{field.name}" if field.type is bool else f"--{field.name}={values}"
            lines.append(f"  {name}  (default {default})")
            lines.append(textwrap.fill(field.metadata["help"], 96, initial_indent=_INDENT,
                                       subsequent_indent=_INDENT))  # fmt: skip
        lines.append("")
    lines.append(
        "Also: --flagfile=FILE reads flags from a file; --verbosity=-1..1 (warnings..debug)"
    )
    return "\n".join(lines)


def _flagfile_name(argv: list[str]) -> str:
    """The name, without ending, of the last flagfile given, or ''."""
    name = ""
    for argument, following in itertools.pairwise([*argv[1:], ""]):
        flag, _, value = argument.lstrip("-").partition("=")
        if flag == "flagfile" and argument.startswith("-"):
            name = os.path.splitext(os.path.basename(value or following))[0]
    return name
