"""The real loop, from files to updates, for so many steps at a time."""

import dataclasses
import functools
from collections.abc import Iterator

from flowers_tpu.benchmarks import compute
from flowers_tpu.benchmarks.compute import Work
from flowers_tpu.benchmarks.rounds import Run, Side, timed
from flowers_tpu.runs import feed
from flowers_tpu.system.errors import RunError
from flowers_tpu.training import calls


def side(work: Work, name: str, batches: feed.Batches) -> Side:
    """Training by `calls.fit` without validation and checkpoints, which are timed on their own.

    Each turn begins with the first step, and to read anew. A step that is not finite ends it,
    whatever `--on_nan` says: updates that are left out would be timed as if they were done.
    """
    plan = dataclasses.replace(
        work.plan,
        early_stopping_patience=0,
        checkpoint_every_steps=0,
        checkpoint_every_seconds=0,
        on_nan="stop",
    )

    def open_run() -> Run:
        iterator = feed.iterate(batches)
        work.start_over()
        return timed(functools.partial(_fit, name, work, plan, iterator))

    return Side(name, plan.global_batch_size, open_run)


class _DoneError(Exception):
    """As many steps are done as were asked for."""


class _NoCheckpoints:
    def save_latest(self) -> None:
        pass

    def save_best(self, epoch: int) -> None:
        pass


class NoInterruption:
    """Nothing interrupts what is timed; a signal ends the process as ever."""

    requested = False

    def check(self) -> None:
        """Goes on."""


def _fit(name: str, work: Work, plan: calls.Plan, iterator: Iterator, steps: int) -> None:
    end = int(work.state.step.numpy()) + steps

    def on_steps(call: calls.Call) -> None:
        if call.step >= end:
            raise _DoneError

    try:
        calls.fit(
            plan=plan,
            state=work.state,
            checkpoints=_NoCheckpoints(),
            train_steps=work.train_steps.__getitem__,
            train_iterator=lambda step: iterator,
            validate=lambda: {"loss": 0.0},
            on_steps=on_steps,
            on_epoch=lambda history, times: None,
            ids_of_step=lambda step: [],
            interruption=NoInterruption(),
            stops=(end,),
        )
    except _DoneError:
        pass
    except RunError as error:  # its advice is for runs, which have checkpoints
        raise compute.not_finite(name, f"step {int(work.state.step.numpy())}") from error
