"""Compares runs: their scores, the flags that differ, and their validation curves.

    python scripts/compare.py runs/quickstart runs/another …

Runs that are not finished are compared by their best epoch so far. The curves go to --output.
"""

import os

import pandas as pd
import tensorflow as tf

from flowers_tpu.options import fields_of
from flowers_tpu.reports import compare as comparison
from flowers_tpu.reports import style
from flowers_tpu.reports.options import CompareOptions
from flowers_tpu.runs.folder import HISTORY, SCORES, TIMING, run_at, several
from flowers_tpu.runs.options import RunOptions
from flowers_tpu.system import files, terminal
from flowers_tpu.system.errors import RequestError, RunError

# Where a run is, and what may be changed in the midst of one, is not what makes it differ.
_IGNORED = [field.name for field in fields_of([RunOptions])]


def compare(options: CompareOptions, paths: list[str]) -> None:
    """Prints scores and differing flags of several runs, and draws their validation curves.

    Args:
        options: where the curves go.
        paths: of the run directories, at least two.

    Raises:
        RequestError: there is just one run, one is given twice, a folder is not a run's, or
            `output` exists or cannot be written.
    """
    output = options.output
    paths = several(paths)
    if not output.endswith(".png"):
        raise RequestError(f"--output={output}: expected the name of a PNG file, like runs.png")
    if files.exists(output) and not options.overwrite:
        raise RequestError(f"--output={output}: exists; choose another name, or --overwrite")
    names = comparison.names(paths)
    runs = [read_run(path, name) for path, name in zip(paths, names, strict=True)]
    _save(comparison.validation_curves(runs), output)
    terminal.say(f"\n{_text(comparison.table(runs))}\n")
    flags = comparison.differing_flags(runs, _IGNORED)
    terminal.say(flags.to_string() if len(flags) else "No flag differs.")
    terminal.say(f"\ncurves: {output}")


def _save(drawn: style.Figure, output: str) -> None:
    try:
        if folder := os.path.dirname(output):
            files.make_dirs(folder)
        style.save(drawn, output)
    except tf.errors.OpError as error:
        raise RequestError(
            f"--output={output}: its folder cannot be made ({error.message})"
        ) from error
    except RunError as error:
        raise RequestError(f"--output={error}") from error  # which begins with the path


def read_run(path: str, name: str) -> comparison.Run:
    """Reads what a run has left so far.

    Args:
        path: of its directory.
        name: to call it by.

    Raises:
        RequestError: there is no run.
    """
    folder = run_at(path)
    spec, resolved = folder.read_specs()
    return comparison.Run(
        name=name,
        flags=spec.exactly(resolved).flat(),
        history=folder.read_table(HISTORY),
        timing=folder.read_table(TIMING),
        scores=folder.read_json(SCORES) if folder.is_scored() else None,
    )


def _text(table: pd.DataFrame) -> str:
    formats = {"minutes": "{:.1f}".format}
    return table.to_string(float_format="{:.4f}".format, formatters=formats, na_rep="–")
