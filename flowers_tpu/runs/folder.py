"""A run's folder: the names of its files, how they are written and read, and who may do so."""

import contextlib
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from flowers_tpu.models.options import ModelOptions
from flowers_tpu.models.own_backbone import is_file
from flowers_tpu.runs.spec import COMES_TO, Resolved, Spec, read_saved
from flowers_tpu.system import files, folders
from flowers_tpu.system.errors import RequestError
from flowers_tpu.training.history import Row, of_version_0_1
from flowers_tpu.training.plan import finished

_CONFIG = folders.RUN.marker
SCORES, HISTORY, TIMING = "scores.json", "history.csv", "timing.csv"
TEST_SCORES = "scores_test.json"
ENVIRONMENT, SUBMISSION, BAD_RECORDS = "environment.json", "submission.csv", "bad_records.csv"
_MOST_LOOKED_AT = 50  # folders in which a run is looked for
DISPUTED, FURTHER_PHOTOS = "disputed_labels.csv", "further_photos.csv"
DATA, ORIGIN, BACKBONE = "data.json", "origin.json", "backbone.h5"


def predictions_file(split: str) -> str:
    """Returns the name of the file of a split's predictions."""
    return f"predictions_{split}.csv"


def outputs_file(split: str) -> str:
    """Returns the name of the file of what the model gives for a split; see `Outputs`."""
    return f"outputs_{split}.npz"


def no_run_at(path: str) -> str:
    """Says that a folder is no run's, and which runs are one level above or below it."""
    return f"no run there (it has no {_CONFIG}){_runs_near(path)}"


def _runs_near(path: str) -> str:
    if not files.is_dir(path):
        return ""
    above = os.path.normpath(files.join(path, os.pardir))
    if "://" not in path and folders.belongs_to(above, folders.RUN):
        return f"; did you mean {above}?"
    inner = [files.join(path, name) for name in files.list_dir(path)[:_MOST_LOOKED_AT]]
    runs = [folder for folder in inner if folders.belongs_to(folder, folders.RUN)]
    return f"; did you mean {' or '.join(runs[:3])}?" if runs else ""


def run_at(path: str) -> "RunFolder":
    """Returns the folder of a run that was named as an argument.

    Raises:
        RequestError: there is no run.
    """
    folder = RunFolder(path)
    if not folder.is_run():
        raise RequestError(f"{path}: {no_run_at(path)}; expected run folders")
    return folder


def several(paths: Sequence[str]) -> list[str]:
    """Returns the paths of runs that are looked at together, without a slash at their ends.

    Raises:
        RequestError: there is just one, or one is given twice.
    """
    if len(paths) < 2:
        raise RequestError(f"expected at least two runs, found only {paths[0]}")
    paths = [path.rstrip("/") for path in paths]
    if repeated := [path for path in paths if paths.count(path) > 1]:
        raise RequestError(f"{repeated[0]}: is given twice; give every run once")
    return paths


class RunFolder:
    """A run's folder; paths in it, and its files written whole or not at all."""

    def __init__(self, path: str):
        self.path = path

    def file(self, *names: str) -> str:
        """Returns the path of a file in the folder."""
        return files.join(self.path, *names)

    @property
    def checkpoints(self) -> str:
        """Where `latest/` and `best/` are."""
        return self.file("checkpoints")

    def has(self, name: str) -> bool:
        """Returns whether a file of that name is there."""
        return files.exists(self.file(name))

    def write_table(self, name: str, table: pd.DataFrame, *, index: bool = False) -> None:
        """Writes a CSV; floats are written so that reading gives the same ones."""
        files.write_atomically(self.file(name), table.to_csv(index=index))

    def read_table(self, name: str) -> pd.DataFrame:
        """Reads a CSV that `write_table` wrote; an empty table if there is none."""
        if not self.has(name):
            return pd.DataFrame()
        return pd.read_csv(io.StringIO(files.read_text(self.file(name))))

    def read_texts(self, name: str, **how: Any) -> pd.DataFrame:
        """Reads a CSV whose texts are just texts: an id `007` or a class `nan` stays what it is.

        Args:
            name: of the file, which is there.
            how: for `pandas.read_csv`: which columns are texts.
        """
        text = io.StringIO(files.read_text(self.file(name)))
        return pd.read_csv(text, keep_default_na=False, **how)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Writes a JSON object."""
        text = json.dumps(_without_nan(value), indent=2, allow_nan=False)
        files.write_atomically(self.file(name), text + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON object."""
        return json.loads(files.read_text(self.file(name)))

    def is_run(self) -> bool:
        """Returns whether the folder holds a run, begun at least."""
        return folders.belongs_to(self.path, folders.RUN)

    def is_scored(self) -> bool:
        """Returns whether the run was scored, at its end or before."""
        return self.has(SCORES)

    def history(self) -> list[Row]:
        """Returns the rows of the run's history; none if no epoch has ended."""
        return of_version_0_1(self.read_table(HISTORY).to_dict("records"))

    def is_finished(self, spec: Spec) -> bool:
        """Returns whether the run is trained, as far as a specification asks for, and scored."""
        return self.is_scored() and finished(spec.schedule, spec.training, self.history())

    def check_usable(self) -> None:
        """Raises RequestError if the folder holds something that is not a run."""
        folders.check_usable(self.path, "run_dir", folders.RUN)
        if "://" in self.path:
            files.without_pattern(self.path)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other processes off the run; makes the folder. See `folders.locked`."""
        return folders.locked(self.path, "run_dir")

    def read_specs(self) -> tuple[Spec, Resolved]:
        """Returns the run as it was asked for, and what it came to.

        Raises:
            RequestError: the folder is not a run's, or one of a version with other flags.
        """
        if not self.is_run():
            raise RequestError(
                f"--run_dir={self.path}: {no_run_at(self.path)}; scripts/train.py makes one"
            )
        try:
            return read_saved(self.read_json(_CONFIG))
        except RequestError as error:
            raise RequestError(f"{self.file(_CONFIG)}: {error}") from error

    def begin(
        self,
        spec: Spec,
        resolved: Resolved,
        environment: dict[str, Any],
        data: dict[str, Any],
    ) -> None:
        """Writes the first files of a new run; `config.json` comes last and makes it one."""
        files.make_dirs(self.path)
        if is_file(spec.model.backbone):  # the run stays whole if the file goes
            files.write_atomically(
                self.file(BACKBONE), files.read_bytes(os.path.expanduser(spec.model.backbone))
            )
        self.write_json(ENVIRONMENT, environment)
        self.write_json(DATA, data)
        self.write_spec(spec, resolved)

    def write_spec(self, spec: Spec, resolved: Resolved) -> None:
        """Writes what is asked for: of a new run, or of one that goes on with other free flags."""
        # What concerns one command alone is no part of the run.
        spec = spec.changed(
            finish=False, max_hours=0.0, overwrite=False, workers="", worker_index=0
        )
        flagfile = spec.exactly(resolved).to_flagfile()
        files.write_atomically(self.file("flags.txt"), flagfile)
        self.write_json(_CONFIG, {"flags": spec.flat(), "resolved": dataclasses.asdict(resolved)})

    def remove(self) -> None:
        """Deletes the run, for `--overwrite`; only what is a run is ever deleted."""
        if not self.is_run():
            return
        names = files.list_dir(self.path)
        # What makes it a run goes last: if this is killed, the same command goes on.
        for name in sorted(set(names) - {folders.LOCK}, key=lambda name: name == _CONFIG):
            path = self.file(name)
            if files.is_dir(path):
                files.remove_tree(path)
            else:
                files.remove(path)

    def check_same_flags(self, spec: Spec, resolved: Resolved) -> None:
        """Refuses to continue the run with flags that change its results.

        A flag has changed if both what was given and what it comes to are different: a batch size
        of 16 on 2 replicas is that of 8 on 4, and the same flags on other devices are the same.

        Args:
            spec: as asked for now.
            resolved: what that comes to on the devices there are now.

        Raises:
            RequestError: names every flag that changed, with both values.
        """
        spec_before, resolved_before = self.read_specs()
        before, now = spec_before.flat(), spec.flat()
        # Where the data lie is no matter if they can be told by their fingerprints.
        of_no_matter = {"data_dir", "classes"} if self.has(DATA) else set()
        changes = [
            f"--{name} was {before[name]}, is {now[name]}"
            for name in spec_before.differing(spec)
            if name not in of_no_matter
            and (
                name not in COMES_TO
                or getattr(resolved_before, COMES_TO[name]) != getattr(resolved, COMES_TO[name])
            )
        ]
        if changes:
            raise RequestError(
                f"--run_dir={self.path}: holds a run with other flags: {'; '.join(changes)}. "
                "Continue it with its own, begin another --run_dir (from its weights by "
                f"--from_run={self.path}), or begin anew with --overwrite"
            )


def model_of(spec: Spec) -> ModelOptions:
    """Returns which network a run has; one from a file is the run's own copy, if there is one."""
    copy = RunFolder(spec.run.run_dir).file(BACKBONE)
    if is_file(spec.model.backbone) and not spec.run.overwrite and files.exists(copy):
        return dataclasses.replace(spec.model, backbone=copy)
    return spec.model


def _without_nan(value: Any) -> Any:
    """JSON has no word for what is not finite: it becomes null."""
    if isinstance(value, dict):
        return {name: _without_nan(of) for name, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def opened(path: str) -> Iterator[RunFolder]:
    """Gives a run's folder that no other process uses; refuses one that holds something else."""
    folder = RunFolder(path)
    folder.check_usable()
    with folder.locked():
        folder.check_usable()  # another process may have written there meanwhile
        yield folder


@contextlib.contextmanager
def results_folder(run_dir: str, output_dir: str) -> Iterator[tuple[RunFolder, RunFolder]]:
    """Gives the folder of a run that is there, and the one for results, which no other uses.

    Args:
        run_dir: of the run.
        output_dir: for the results; '': the run's.

    Raises:
        RequestError: there is no run, `output_dir` holds something else, or one cannot be written.
    """
    folder = RunFolder(run_dir)
    folder.read_specs()
    if not output_dir:
        try:
            with folder.locked():
                yield folder, folder
        except folders.UnwritableError as error:
            raise folders.UnwritableError(
                f"{error}; --output_dir=FOLDER takes the results"
            ) from error
        return
    folders.check_usable(output_dir, "output_dir", folders.RESULTS)
    with folders.locked(output_dir, "output_dir"):
        output = RunFolder(output_dir)
        output.write_json(folders.RESULTS.marker, {"run": run_dir})
        yield folder, output
