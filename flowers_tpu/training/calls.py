"""The compiled calls of an epoch, and of an evaluation, as generators.

Each yields after every call what it came to. Between two calls the state is whole: whoever goes
through them saves, watches, or stops there.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from flowers_tpu.training import metrics
from flowers_tpu.training.multistep import Results
from flowers_tpu.training.pacing import Pacer
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import TrainState


class Decision(NamedTuple):
    """What clocks and signals decide at the boundary of two calls.

    Attributes:
        steps: of the next call, at most.
        save: whether to save now.
        stop: why to stop now: `signal` or `time`; '' to go on.
    """

    steps: int
    save: bool = False
    stop: str = ""


class Boundary(Protocol):
    """Makes the decisions; the only one who looks at clocks and signals."""

    def decide(self, step: int, epoch_end: int, pacer: Pacer) -> Decision:
        """Decides what comes after step `step` of the run."""
        ...


class BadStep(NamedTuple):
    """A step whose loss or gradients are not finite.

    Attributes:
        step: its number in the run, from 0.
        learning_rate: its rate.
        gradient_norm: before clipping.
    """

    step: int
    learning_rate: float
    gradient_norm: float


class Call(NamedTuple):
    """What a compiled call of training steps came to.

    Attributes:
        step: steps done in the run.
        steps: of this call.
        learning_rate: of its last step.
        loss: the mean over the epoch so far.
        gradient_norm: of its last step, before clipping.
        images_per_second: NaN for the first call of a stage, which compiles.
        seconds: that it took.
        input_seconds: of them, those in which it waited for photos; see `Results.input_waits`.
        compiles: whether it is the first of a stage.
        bad_steps: those whose outcomes are in no sum. If bad steps are not skipped it is the first
            one alone: weights and outcomes are spoilt from there on, and nothing may be saved.
        decision: what to do now, and next.
    """

    step: int
    steps: int
    learning_rate: float
    loss: float
    gradient_norm: float
    images_per_second: float
    seconds: float
    input_seconds: float
    compiles: bool
    bad_steps: tuple[BadStep, ...]
    decision: Decision


class EvalCall(NamedTuple):
    """What an evaluation has come to after a compiled call.

    Attributes:
        steps: of this call.
        sums: of all examples so far.
        decision: what to do now, and next.
    """

    steps: int
    sums: metrics.Sums
    decision: Decision


def train_epoch(
    train_steps: Callable[[Iterator, tf.Tensor], Results],
    iterator: Any,
    plan: Plan,
    state: TrainState,
    boundary: Boundary,
    pacer: Pacer,
) -> Iterator[Call]:
    """Trains from where the state is to the end of its epoch, a compiled call at a time.

    Args:
        train_steps: see `multistep.compile_train_steps`.
        iterator: over the batches from the state's step on; None if no step is left.
        plan: of the run.
        state: changed in place: weights, step, sums and the list of skipped steps.
        boundary: decides how many steps a call does, and what is to be done after it.
        pacer: of the stage.
    """
    progress = state.progress
    step = int(state.step.numpy())
    epoch_end = (len(progress.history) + 1) * plan.steps_per_epoch
    decision = boundary.decide(step, epoch_end, pacer)
    while step < epoch_end:
        count = decision.steps
        with pacer.timed(count):
            results = train_steps(iterator, tf.constant(count, tf.int32))
            outcomes, norms, finite, updates, waits = (part.numpy() for part in results)
        bad = [
            BadStep(step + int(n), float(plan.rates[step + n]), float(norms[n]))
            for n in np.flatnonzero(~finite)
        ]
        if bad and not plan.objective.skips_bad_steps:
            bad = bad[:1]
            finite[bad[0].step - step :] = False
        progress.sums = metrics.added(progress.sums, _rows(outcomes[finite]))
        progress.skipped += [one.step for one in bad]
        # Gradients that the scale of the loss made too large are no trouble.
        progress.skipped += [step + int(n) for n in np.flatnonzero(finite & ~updates)]
        step += count
        decision = boundary.decide(step, epoch_end, pacer)
        yield Call(
            step,
            count,
            learning_rate=float(plan.rates[step - 1]),
            loss=metrics.scores(progress.sums)["loss"],
            gradient_norm=float(norms[-1]),
            images_per_second=plan.photos_per_step / pacer.step_seconds,
            seconds=pacer.seconds,
            input_seconds=float(waits.sum()),
            compiles=pacer.calls == 1,
            bad_steps=tuple(bad),
            decision=decision,
        )


def evaluate(
    eval_steps: Callable[[Iterator, tf.Tensor], tf.Tensor],
    iterator: Iterator,
    num_steps: int,
    num_classes: int,
    boundary: Boundary,
) -> Iterator[EvalCall]:
    """Evaluates a split, a compiled call at a time; the last one has the sums of all of it.

    Args:
        eval_steps: see `multistep.compile_eval_steps`.
        iterator: over the split, the last batch filled up with weight 0.
        num_steps: global batches of the split.
        num_classes: classes.
        boundary: see `train_epoch`.
    """
    pacer, sums, done = Pacer(), metrics.empty(num_classes), 0
    decision = boundary.decide(done, num_steps, pacer)
    while done < num_steps:
        count = decision.steps
        with pacer.timed(count):
            outcomes = eval_steps(iterator, tf.constant(count, tf.int32)).numpy()
            sums = metrics.added(sums, _rows(outcomes))
        done += count
        decision = boundary.decide(done, num_steps, pacer)
        yield EvalCall(count, sums, decision)


def _rows(of_steps: np.ndarray) -> np.ndarray:
    """`[steps, global batch, columns]` -> `[steps * global batch, columns]`."""
    return of_steps.reshape(-1, of_steps.shape[-1])
