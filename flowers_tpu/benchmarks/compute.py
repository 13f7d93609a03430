"""The steps of a run as sides: on a batch on the devices, in the real loop, and over a split."""

import dataclasses
from collections.abc import Callable, Iterator

import tensorflow as tf

from flowers_tpu.benchmarks.inputs import STEPS
from flowers_tpu.benchmarks.rounds import Run, Side, timed
from flowers_tpu.benchmarks.work import Work
from flowers_tpu.data.splits import Split
from flowers_tpu.evaluation import predictions
from flowers_tpu.runs.feed import Batches
from flowers_tpu.system.errors import RunError
from flowers_tpu.training import calls, multistep, steps
from flowers_tpu.training.pacing import Pacer
from flowers_tpu.training.plan import Plan

_TRIALS = 8  # to find how many steps a call does


@dataclasses.dataclass(frozen=True)
class Until:
    """Lets calls go on until a step is done; nothing comes between them.

    Attributes:
        end: the step.
        pacer: says how many steps a call does; None: the pacer of the calls.
    """

    end: int
    pacer: Pacer | None = None

    def decide(self, step: int, epoch_end: int, pacer: Pacer) -> calls.Decision:
        """See `calls.Boundary`."""
        left = min(epoch_end, self.end) - step
        return calls.Decision(
            (self.pacer or pacer).steps(left), stop="time" if step >= self.end else ""
        )


def train_side(
    work: Work, name: str, stage: str, per_call: int,
    open_iterator: Callable[[], Iterator] | None = None,
) -> Side:  # fmt: skip
    """Training steps of a stage, `warmup` or `finetune`, in calls of `per_call`.

    They are on the resident batch if nothing else is given.
    """
    plan = dataclasses.replace(work.plan, steps_per_epoch=STEPS)

    def open_run() -> Run:
        iterator = open_iterator() if open_iterator else work.resident
        return _training(work, name, plan, stage, iterator, Pacer(per_call))

    return Side(name, plan.photos_per_step, open_run)


def loop_side(work: Work, name: str, batches: Batches) -> Side:
    """The real loop without validation and checkpoints; each turn begins to read anew."""

    def open_run() -> Run:
        pacer = Pacer(work.plan.training.steps_per_loop)
        return _training(work, name, work.plan, "finetune", iter(batches), pacer)

    return Side(name, work.plan.photos_per_step, open_run)


def forward_side(work: Work, name: str, per_call: int, *, augmented: bool = False) -> Side:
    """Nothing but forward passes, as many in a call.

    `augmented`: of photos that the device augments, or mixes, before, as in a step of training.
    """
    strategy, classifier = work.recipe.strategy, work.state.classifier
    model = classifier.model if augmented else classifier.evaluated
    prepare = work.feed.prepare if augmented else None
    resident = work.resident if augmented else work.inference_resident

    def forward_step(batch: dict) -> tf.Tensor:
        if prepare:
            batch = prepare(batch)
        return steps.predict_step(model, batch)

    @tf.function
    def forward(num_steps):
        total = tf.constant(0.0)
        for _ in tf.range(num_steps):
            logits = strategy.run(forward_step, args=(next(resident),))
            for local in strategy.experimental_local_results(logits):
                total += local[0, 0]
        return total

    def run(num_steps: int) -> None:
        for done in range(0, num_steps, per_call):
            forward(tf.constant(min(per_call, num_steps - done), tf.int32)).numpy()

    return Side(name, work.plan.photos_per_step, lambda: timed(run))


def eval_side(work: Work, name: str, per_call: int) -> Side:
    """Evaluation steps on the resident batch, with their metrics added up."""
    run = _evaluation(work, Pacer(per_call), lambda: work.inference_resident)
    return Side(name, work.plan.photos_per_step, lambda: timed(run))


def predict_side(work: Work, name: str) -> Side:
    """Prediction of the resident batch, whose logits come back after every step."""
    photos = work.plan.photos_per_step
    predict = _prediction(work, lambda: work.inference_resident)
    return Side(name, photos, lambda: timed(lambda num_steps: predict(num_steps * photos)))


def split_sides(work: Work, split: Split) -> list[Side]:
    """Evaluation and prediction of a split, its photos read and decoded, as the scripts do it.

    A step of theirs is a pass over the whole split.
    """
    batches, num_steps = work.feed.eval_batches(split), work.feed.eval_steps(split)
    evaluate = _evaluation(work, None, lambda: iter(batches))
    predict = _prediction(work, lambda: iter(batches))

    def passes(run: Callable[[int], None], size: int) -> Callable[[], Run]:
        return lambda: timed(lambda count: [run(size) for _ in range(count)])

    return [
        Side("evaluation", split.size, passes(evaluate, num_steps), run_in=0),
        Side("prediction", split.size, passes(predict, split.size), run_in=0),
    ]


def steps_per_call(work: Work) -> int:
    """Returns as many steps as the loop does in a compiled call, its epoch being long.

    They are found as the loop finds them: from call to call, until they stay about the same.
    """
    if work.plan.training.steps_per_loop:
        return work.plan.training.steps_per_loop
    work.start_over()
    plan = dataclasses.replace(work.plan, steps_per_epoch=STEPS)
    trials = calls.train_epoch(
        *(work.train_steps["finetune"], work.resident, plan, work.state, Until(STEPS), Pacer())
    )
    for trial, call in enumerate(trials, start=1):
        following = call.decision.steps
        steady = trial > 1 and abs(following - call.steps) <= call.steps / 10
        if steady or trial == _TRIALS:
            break
    return following


def _training(
    work: Work, name: str, plan: Plan, stage: str, iterator: Iterator, pacer: Pacer
) -> Run:
    """Begins a turn of training with the first step.

    A step that is not finite ends the benchmark, whatever `--on_nan` says: updates that are left
    out would be timed as if they were done.
    """
    work.start_over()

    def train(num_steps: int) -> None:
        boundary = Until(int(work.state.step.numpy()) + num_steps)
        while True:
            for call in calls.train_epoch(
                work.train_steps[stage], iterator, plan, work.state, boundary, pacer
            ):
                if call.bad_steps:
                    raise RunError(
                        f"{name}: loss or gradients are not finite (step {call.bad_steps[0].step});"
                        " a lower --learning_rate, or --clip_norm=1"
                    )
                if call.decision.stop:
                    return
            work.end_epoch()

    return timed(train)


def _evaluation(
    work: Work, pacer: Pacer | None, open_iterator: Callable[[], Iterator]
) -> Callable[[int], None]:
    """Evaluates so many steps."""
    eval_steps = multistep.compile_eval_steps(work.recipe.strategy, work.state.classifier.evaluated)

    def evaluate(num_steps: int) -> None:
        boundary = Until(num_steps, pacer)
        for _ in calls.evaluate(
            eval_steps, open_iterator(), num_steps, work.plan.num_classes, boundary
        ):
            pass

    return evaluate


def _prediction(work: Work, open_iterator: Callable[[], Iterator]) -> Callable[[int], None]:
    """Predicts so many photos."""
    predict_step = multistep.compile_predict_step(
        work.recipe.strategy, work.state.classifier.evaluated
    )

    def predict(photos: int) -> None:
        for _ in predictions.predict(predict_step, open_iterator(), photos):
            pass

    return predict
