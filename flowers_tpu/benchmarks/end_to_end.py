"""The real loop, from files to updates, for so many steps at a time."""

import contextlib
import dataclasses
from collections.abc import Iterator

from flowers_tpu import feed
from flowers_tpu.benchmarks.compute import Work
from flowers_tpu.benchmarks.rounds import Run, Side, timed
from flowers_tpu.training import loop


def side(work: Work, name: str, batches: feed.Batches) -> Side:
    """Training by `loop.fit` without validation and checkpoints, which are timed on their own.

    Each turn begins with the first step, and to read anew.
    """
    plan = dataclasses.replace(
        work.plan, early_stopping_patience=0, checkpoint_every_steps=0, checkpoint_every_seconds=0
    )

    def open_run() -> Run:
        iterator = feed.iterate(batches)
        work.start_over()
        return timed(lambda steps: _fit(work, plan, iterator, steps))

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


def _fit(work: Work, plan: loop.Plan, iterator: Iterator, steps: int) -> None:
    end = int(work.state.step.numpy()) + steps

    def on_steps(call: loop.Call) -> None:
        if call.step >= end:
            raise _DoneError

    with contextlib.suppress(_DoneError):
        loop.fit(
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
