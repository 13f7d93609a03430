"""What every command does around its work: parse flags, print help, turn errors into exit codes.

    python -m flowers_tpu train --tpu=local …      the same as scripts/train.py

Exit codes: 0 done; 1 failed; 2 the request is wrong; 143 stopped by a signal, saved.
"""

import ast
import contextlib
import importlib
import itertools
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags as absl_flags
from absl import logging

from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.commands import flags
from flowers_tpu.convert.options import ConvertOptions
from flowers_tpu.options import Options
from flowers_tpu.reports.options import CheckOptions, CompareOptions, ExploreOptions, SweepOptions
from flowers_tpu.runs.options import (
    ClassifyOptions,
    EnsembleOptions,
    EvaluateOptions,
    ExportOptions,
    PredictOptions,
)
from flowers_tpu.runs.spec import PARTS, Spec
from flowers_tpu.system import allocator, stderr, terminal, workers
from flowers_tpu.system.errors import RequestError, RunError, StoppedError
from flowers_tpu.system.launching import LaunchOptions
from flowers_tpu.tpu.options import TpuCheckOptions


class Command(NamedTuple):
    """What a command takes.

    It is the function of its name in the module of its name, called with `[spec], [options],
    [arguments]`; its help begins with the module's docstring.

    Attributes:
        options: its own flags.
        takes_spec: whether the flags of a run are the command's too.
        arguments: what it takes besides flags, as a word for messages; '' for nothing.
        on_existing_run: flags that are not given are those of the run in `--run_dir`.
        run_first: the first argument is that folder, if the flag is not given.
    """

    options: type[Options] | None = None
    takes_spec: bool = True
    arguments: str = ""
    on_existing_run: bool = False
    run_first: bool = False


COMMANDS = {
    "train": Command(),
    "evaluate": Command(EvaluateOptions, on_existing_run=True),
    "predict": Command(PredictOptions, on_existing_run=True),
    "export": Command(ExportOptions, on_existing_run=True, run_first=True),
    "classify": Command(
        ClassifyOptions,
        arguments="photos, or folders of photos",
        on_existing_run=True,
        run_first=True,
    ),
    "explore": Command(ExploreOptions),
    "compare": Command(
        CompareOptions, takes_spec=False, arguments="the folders of two or more runs"
    ),
    "ensemble": Command(
        EnsembleOptions, takes_spec=False, arguments="the folders of two or more runs"
    ),
    "sweep": Command(SweepOptions, takes_spec=False, arguments="the file that lists the recipes"),
    "launch": Command(
        LaunchOptions, takes_spec=False, arguments="-- and then what Python is to run"
    ),
    "check_data": Command(CheckOptions),
    "make_tfrecords": Command(ConvertOptions, takes_spec=False),
    "benchmark": Command(BenchmarkOptions),
    "tpu_check": Command(TpuCheckOptions),
}

_SPEC_KINDS = list(PARTS.values())
_HELP = ("--help", "-help", "-h", "--helpfull")


def main(name: str, arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code.

    Args:
        name: in `COMMANDS`.
        arguments: flags and others; None for those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if any(argument in _HELP for argument in arguments):
        print(flags.help_text(_description(name), _kinds(name)))
        return 0
    absl_flags.FLAGS.mark_as_parsed()  # the flags are the call's own; absl's logging asks these
    logging.use_absl_handler()
    terminal.log_beside_bars()
    try:
        _run(name, arguments)
    except (RequestError, RunError, StoppedError) as error:
        print(f"{name}: {workers.label()}{error}", file=sys.stderr)
        workers.leave(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        workers.leave(128 + signal.SIGINT)
        return 128 + signal.SIGINT
    workers.leave(0)
    return 0


def spec_of(arguments: Sequence[str]) -> Spec:
    """Returns the specification that flags of `train` ask for.

    Raises:
        RequestError: a flag is unknown, or its value is not allowed.
    """
    values, rest = _parse("train", arguments)
    if rest:
        raise RequestError(f"unexpected argument {rest[0]!r}; flags are --name=value")
    return _spec(values, list(arguments))


def choose(arguments: Sequence[str]) -> int:
    """Runs the command that the first argument names; see `main`."""
    name, *rest = [*arguments, ""]
    if name not in COMMANDS:
        print(f"usage: python -m flowers_tpu COMMAND …; commands: {', '.join(COMMANDS)}, doctor")
        return 0 if name in _HELP else 2
    return main(name, rest[:-1])


def _run(name: str, arguments: list[str]) -> None:
    command = COMMANDS[name]
    values, rest = _parse(name, arguments)
    if command.run_first and not values["run_dir"].value:
        if not rest:
            raise RequestError("expected the folder of a run first; --help tells more")
        values["run_dir"].value = rest.pop(0)
    if rest and not command.arguments:
        raise RequestError(f"unexpected argument {rest[0]!r}; flags are --name=value")
    if command.arguments and not rest:
        raise RequestError(f"expected {command.arguments}; --help tells more")
    logging.set_verbosity(values.verbosity)
    handed: list[object] = []
    if command.options:
        handed.append(command.options(**flags.read([command.options], values)))
    if command.arguments:
        handed.append(rest)
    if command.takes_spec and not command.on_existing_run:
        handed.insert(0, _spec(values, arguments))
    allocator.keep_freed_memory()
    with stderr.without_chatter():
        # TensorFlow is imported from here on: --help and wrong flags have answered at once.
        from flowers_tpu.system import files

        with files.naming_trouble():
            if command.on_existing_run:
                handed.insert(0, _spec_of_run(values, arguments))
            work = getattr(importlib.import_module(f"flowers_tpu.commands.{name}"), name)
            with _naming_the_runs_own(handed, values):
                work(*handed)


def _parse(name: str, arguments: Sequence[str]) -> tuple[absl_flags.FlagValues, list[str]]:
    """The flags of a command, and what was given besides."""
    values = absl_flags.FlagValues()
    flags.define(_kinds(name), values)
    absl_flags.DEFINE_integer("verbosity", -1, "", flag_values=values)
    _refuse_null_bytes(arguments)
    try:
        _, *rest = values([name, *arguments])
    except (absl_flags.Error, ValueError) as error:
        raise RequestError(f"{flags.explain(error)}; --help lists the flags") from error
    except OSError as error:
        raise RequestError(f"--flagfile: {error}") from error
    _refuse_null_bytes(str(values[flag].value) for flag in values)  # of a flagfile
    return values, rest


def _refuse_null_bytes(texts: Iterable[str]) -> None:
    """Raises RequestError if a text is no path of any file."""
    for text in texts:
        if "\0" in text:
            raise RequestError(f"{text!r}: holds a null byte, which no path or flag can")


@contextlib.contextmanager
def _naming_the_runs_own(handed: Sequence[object], values: absl_flags.FlagValues) -> Iterator[None]:
    """Says of a folder of data that is not there that the flag is the run's, if nobody gave it."""
    try:
        yield
    except RequestError as error:
        spec = handed[0] if handed and isinstance(handed[0], Spec) else None
        own = spec and not values["data_dir"].present and f"--data_dir={spec.data.data_dir}: "
        if not own or not str(error).startswith(f"{own}no such folder"):
            raise
        raise RequestError(
            f"{error}; the flag is the run's, as it was given when the run began: give --data_dir"
        ) from error


def _kinds(name: str) -> list[type[Options]]:
    """The options of a command, and of a run."""
    command = COMMANDS[name]
    kinds = [command.options] if command.options else []
    return kinds + (_SPEC_KINDS if command.takes_spec else [])


def _spec(values: absl_flags.FlagValues, arguments: list[str]) -> Spec:
    """The specification that the flags ask for."""
    return Spec.of(**flags.read(_SPEC_KINDS, values) | {"run_dir": _run_dir(values, arguments)})


def _spec_of_run(values: absl_flags.FlagValues, arguments: list[str]) -> Spec:
    """The specification of the run in `--run_dir`, with the flags that are given in its place."""
    from flowers_tpu.runs.folder import RunFolder  # late, as it imports TensorFlow

    run_dir = _run_dir(values, arguments)
    trained, _ = RunFolder(run_dir).read_specs()
    return trained.changed(**flags.given(_SPEC_KINDS, values) | {"run_dir": run_dir})


def _run_dir(values: absl_flags.FlagValues, arguments: list[str]) -> str:
    return values["run_dir"].value or os.path.join("runs", _flagfile(arguments) or "default")


def _flagfile(arguments: list[str]) -> str:
    """The name, without ending, of the last flagfile given, or ''."""
    name = ""
    for argument, following in itertools.pairwise([*arguments, ""]):
        flag, _, value = argument.lstrip("-").partition("=")
        if flag == "flagfile" and argument.startswith("-"):
            name = os.path.splitext(os.path.basename(value or following))[0]
    return name


def _description(name: str) -> str:
    """A command's docstring, without importing the module, which would start TensorFlow."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""
