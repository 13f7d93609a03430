"""What `scripts/compare.py` calls: reads runs, prints what differs, draws their curves."""

import dataclasses
import os

import pandas as pd
import tensorflow as tf

from flowers_tpu import progress
from flowers_tpu.config import Config
from flowers_tpu.errors import RequestError, RunError
from flowers_tpu.reports import compare, style
from flowers_tpu.run_directory import RunDirectory

# Where a run is, and what may be changed in the midst of one, is not what makes it differ.
_IGNORED = [field.name for field in dataclasses.fields(Config) if field.metadata["topic"] == "Run"]


def compare_runs(paths: list[str], output: str, overwrite: bool) -> None:
    """Prints scores and differing flags of several runs, and draws their validation curves.

    Args:
        paths: of the run directories, at least two.
        output: PNG file for the curves.
        overwrite: whether it may be there already.

    Raises:
        RequestError: there is just one run, one is given twice, a folder is not a run's, or
            `output` exists or cannot be written.
    """
    if len(paths) < 2:
        raise RequestError(f"expected at least two runs to compare, found only {paths[0]}")
    paths = [path.rstrip("/") for path in paths]
    if repeated := [path for path in paths if paths.count(path) > 1]:
        raise RequestError(f"{repeated[0]}: is given twice; give every run once")
    if not output.endswith(".png"):
        raise RequestError(f"--output={output}: expected the name of a PNG file, like runs.png")
    if tf.io.gfile.exists(output) and not overwrite:
        raise RequestError(f"--output={output}: exists; choose another name, or --overwrite")
    runs = [_read(path, name) for path, name in zip(paths, compare.names(paths), strict=True)]
    _save(compare.validation_curves(runs), output)
    progress.say(f"\n{_text(compare.table(runs))}\n")
    flags = compare.differing_flags(runs, _IGNORED)
    progress.say(flags.to_string() if len(flags) else "No flag differs.")
    progress.say(f"\ncurves: {output}")


def _save(drawn: style.Figure, output: str) -> None:
    try:
        if folder := os.path.dirname(output):
            tf.io.gfile.makedirs(folder)
        style.save(drawn, output)
    except tf.errors.OpError as error:
        raise RequestError(
            f"--output={output}: its folder cannot be made ({error.message})"
        ) from error
    except RunError as error:
        raise RequestError(f"--output={error}") from error  # which begins with the path


def _read(path: str, name: str) -> compare.Run:
    run = RunDirectory(path)
    if not run.is_run():
        raise RequestError(f"{path}: no run there (it has no config.json); expected run folders")
    _, config = run.read_configs()
    return compare.Run(
        name=name,
        flags=dataclasses.asdict(config),
        history=_table(run, "history.csv"),
        timing=_table(run, "timing.csv"),
        scores=run.read_json("scores.json") if run.has("scores.json") else None,
    )


def _table(run: RunDirectory, name: str) -> pd.DataFrame:
    return run.read_table(name) if run.has(name) else pd.DataFrame()


def _text(table: pd.DataFrame) -> str:
    formats = {"minutes": "{:.1f}".format}
    return table.to_string(float_format="{:.4f}".format, formatters=formats, na_rep="–")
