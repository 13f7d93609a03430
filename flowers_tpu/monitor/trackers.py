"""A run's record in Weights & Biases or MLflow: flags, a row an epoch, final scores, pictures.

Where a record goes, and whether there is a network at all, is said to these packages as ever: by
their own variables (`WANDB_MODE=offline`, `WANDB_PROJECT`, `MLFLOW_TRACKING_URI`,
`MLFLOW_EXPERIMENT_NAME`). A run that continues continues its record, whose id is in the run
directory.
"""

import importlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from flowers_tpu.monitor.watchers import Epoch, Results, Watcher
from flowers_tpu.system import files
from flowers_tpu.system.errors import RequestError, first_line
from flowers_tpu.training.history import Row

FILE = "tracking.json"
_PROJECT = "flowers_tpu"


def check_installed(name: str) -> None:
    """Raises RequestError if the package of `--track` is missing; imports it."""
    try:
        importlib.import_module(name)
    except Exception as error:
        raise RequestError(
            f"--track={name}: the package cannot be imported ({first_line(error)}); "
            f"pip install '.[{name}]', or go without by --track=none"
        ) from error


class Tracker(Watcher):
    """Keeps the record of a run, in which each epoch is there once.

    Args:
        folder: of the run.
        flags: of the run.
        history: a row per epoch that is finished when the run begins or continues.
    """

    name = ""

    def __init__(self, folder: str, flags: Mapping[str, Any], history: Sequence[Row]):
        self._folder, self._flags, self._history = folder, flags, history
        self._kept: dict[str, Any] = {}
        self._known: dict[str, Any] = {"id": "", "epochs": 0}

    def __enter__(self) -> "Tracker":
        """Opens the record, and adds epochs that an interrupted run has saved but not told."""
        if files.exists(path := files.join(self._folder, FILE)):
            self._kept = json.loads(files.read_text(path))
            self._known |= self._kept.get(self.name, {})
        self._known["id"] = self.open(self._known["id"], os.path.basename(self._folder))
        self._tell(self._history)
        return self

    def on_epoch(self, epoch: Epoch) -> None:
        """Adds an epoch."""
        self._tell(epoch.history)

    def on_results(self, results: Results) -> None:
        """Adds the final scores, and the pictures of the report."""
        scores = {
            f"final_{split}_{name}": value
            for split, values in results.scores.items()
            for name, value in values.items()
            if value is not None
        }
        self.finish(scores, results.pictures)

    def open(self, record: str, title: str) -> str:
        """Opens a record, or begins one if `record` is ''; returns its id."""
        raise NotImplementedError

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Adds the numbers of an epoch."""
        raise NotImplementedError

    def finish(self, scores: Mapping[str, float], pictures: Sequence[str]) -> None:
        """Adds final scores and PNG files."""
        raise NotImplementedError

    def _tell(self, history: Sequence[Row]) -> None:
        for row in history[self._known["epochs"] :]:
            numbers = {n: float(v) for n, v in row.items() if isinstance(v, int | float)}
            self.add(int(row["epoch"]), numbers)
            self._known["epochs"] = int(row["epoch"])
        text = json.dumps(self._kept | {self.name: self._known}, indent=2)
        files.write_atomically(files.join(self._folder, FILE), text + "\n")


class Wandb(Tracker):
    """A run in Weights & Biases."""

    name = "wandb"

    def open(self, record: str, title: str) -> str:
        """See `Tracker.open`."""
        import wandb

        self._wandb, record = wandb, record or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=record,
            resume="allow",
            name=title,
            dir=self._folder,
            config=dict(self._flags),
        )
        return record

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `Tracker.add`."""
        self._run.log(dict(values), step=epoch)

    def finish(self, scores: Mapping[str, float], pictures: Sequence[str]) -> None:
        """See `Tracker.finish`."""
        self._run.summary.update(dict(scores))
        names = {os.path.splitext(os.path.basename(path))[0]: path for path in pictures}
        self._run.log({name: self._wandb.Image(path) for name, path in names.items()})

    def close(self) -> None:
        """Ends the process that sends the record."""
        self._run.finish()


class MLflow(Tracker):
    """A run in MLflow."""

    name = "mlflow"

    def open(self, record: str, title: str) -> str:
        """See `Tracker.open`."""
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if record:
            self._record = record
            self._client.update_run(record, status="RUNNING")
            return record
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        self._record = self._client.create_run(experiment, run_name=title).info.run_id
        for flag, value in self._flags.items():
            self._client.log_param(self._record, flag, value)
        return self._record

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `Tracker.add`."""
        for name, value in values.items():
            self._client.log_metric(self._record, name, value, step=epoch)

    def finish(self, scores: Mapping[str, float], pictures: Sequence[str]) -> None:
        """See `Tracker.finish`."""
        for name, value in scores.items():
            self._client.log_metric(self._record, name, value)
        for path in pictures:
            self._client.log_artifact(self._record, path, "plots")

    def close(self) -> None:
        """Says that the run has ended, for now at least."""
        self._client.set_terminated(self._record)


TRACKERS: dict[str, type[Tracker]] = {kind.name: kind for kind in (Wandb, MLflow)}
