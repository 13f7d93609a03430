"""The compiled steps of a run on a batch that is on the devices already: no input, no transfer."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from flowers_tpu.benchmarks import flops, inputs
from flowers_tpu.benchmarks.rounds import Run, Side, timed
from flowers_tpu.data.augment import apply
from flowers_tpu.options import Config
from flowers_tpu.runs import feed, recipe
from flowers_tpu.system.errors import RunError
from flowers_tpu.training import calls, metrics, multistep, pacing, steps
from flowers_tpu.training.state import TrainState

_MOST_STEPS = 1_000_000  # of a call
_TRIALS = 8  # to find how many steps a call does


class Resident:
    """Stands in for an iterator: gives the same distributed batch at every step."""

    def __init__(self, batch: dict):
        self.batch = batch

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        return self.batch


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """A model with all that its steps need.

    Attributes:
        config: resolved.
        strategy: runs the steps.
        plan: of a run that does not end.
        state: of that run.
        photo_side: of the photos that are cut from where the device augments, pixels.
    """

    config: Config
    strategy: tf.distribute.Strategy
    plan: calls.Plan
    state: TrainState
    photo_side: int

    @functools.cached_property
    def batches(self) -> feed.Batches:
        """One and the same batch of training without end, for what takes only datasets."""
        return _repeated(self.config, self.strategy, self.plan.num_classes, self.photo_side)

    @functools.cached_property
    def resident(self) -> Resident:
        """A batch of training on the devices."""
        return Resident(_on_devices(self.batches))

    @functools.cached_property
    def inference_resident(self) -> Resident:
        """A batch of evaluation on the devices."""
        config = dataclasses.replace(self.config, augment_on="host")
        classes = self.plan.num_classes
        return Resident(_on_devices(_repeated(config, self.strategy, classes, config.image_size)))

    def start_over(self) -> None:
        """Makes the next step the first one, so that the plan's steps are enough for every turn."""
        self.state.step.assign(0)
        self.state.progress.history.clear()
        self.state.progress.sums = metrics.empty(self.plan.num_classes)

    @functools.cached_property
    def train_steps(self) -> dict[str, Callable]:
        """The compiled function of each stage; see `multistep.compile_train_steps`."""
        return {
            stage: multistep.compile_train_steps(
                self.strategy, self.state, stage, self.plan.seed, self.plan.objective,
                feed.augment_on_device(self.config), skips_bad_steps=self.plan.on_nan == "skip",
            )
            for stage in ("warmup", "finetune")
        }  # fmt: skip


def make_work(config: Config, strategy: tf.distribute.Strategy, data: recipe.Data) -> Work:
    """Builds the model and everything else of a run that does not end; weights are random.

    As its steps see one and the same batch, there may be fewer photos than that has.
    """
    config = dataclasses.replace(config, weights="none")
    plan = inputs.endless_plan(config, _enough_photos(data, config.global_batch_size))
    side = feed.train_decoder(config, data.splits["train"].photo_size).side
    return Work(config, strategy, plan, recipe.make_state(config, strategy, plan), side)


def of_one_replica(work: Work, data: recipe.Data) -> Work:
    """The work of one replica by itself, which FLOPs are counted on.

    The graph of a step over several has the operations of each of them or, on a TPU, those of one.
    """
    strategy = tf.distribute.get_strategy()
    if work.strategy is strategy:
        return work
    batch_size = work.config.batch_size_per_replica
    config = dataclasses.replace(work.config, global_batch_size=batch_size)
    return make_work(config, strategy, data)


def train_side(
    work: Work, name: str, stage: str, steps_per_call: int,
    open_iterator: Callable[[], Iterator] | None = None,
) -> Side:  # fmt: skip
    """Training steps of a stage, `warmup` or `finetune`; on the resident batch if not told else."""
    function = work.train_steps[stage]

    def train(iterator: Iterator, num_steps: int) -> None:
        def call(count: tf.Tensor, sums: metrics.Sums) -> metrics.Sums:
            outcomes, norm, finite = function(iterator, count)
            if not finite:
                raise not_finite(name, f"gradient norm {float(norm):g}")
            return metrics.added(sums, outcomes.numpy())

        _in_calls(num_steps, steps_per_call, call, metrics.empty(work.plan.num_classes))

    def open_run() -> Run:
        work.start_over()
        iterator = open_iterator() if open_iterator else work.resident
        return timed(functools.partial(train, iterator))

    return Side(name, work.plan.global_batch_size, open_run)


def not_finite(name: str, what: str) -> RunError:
    """The error of a side whose steps cannot be timed, as their updates are left out."""
    return RunError(
        f"{name}: loss or gradients are not finite ({what}); a lower --learning_rate, or "
        "--clip_norm=1"
    )


def forward_side(work: Work, name: str, steps_per_call: int, *, augmented: bool = False) -> Side:
    """Nothing but forward passes, as many in a call.

    `augmented`: of photos that the device augments before, as in a step of training.
    """
    strategy, model = work.strategy, work.state.classifier.model
    augment_batch = feed.augment_on_device(work.config) if augmented else None

    def forward_step(batch: dict) -> tf.Tensor:
        if augment_batch:
            batch = {**batch, "image": augment_batch(batch["image"], batch["draws"])}
        return steps.predict_step(model, batch)

    @tf.function
    def forward(iterator, num_steps):
        total = tf.constant(0.0)
        for _ in tf.range(num_steps):
            logits = strategy.run(forward_step, args=(next(iterator),))
            for local in strategy.experimental_local_results(logits):
                total += local[0, 0]
        return total

    def call(count: tf.Tensor, _: None) -> None:
        forward(work.resident if augmented else work.inference_resident, count).numpy()

    def run(num_steps: int) -> None:
        _in_calls(num_steps, steps_per_call, call, None)

    return Side(name, work.plan.global_batch_size, lambda: timed(run))


def eval_side(work: Work, name: str, steps_per_call: int) -> Side:
    """Evaluation steps, with their metrics added up."""
    function = multistep.compile_eval_steps(work.strategy, work.state.classifier.model)

    def call(count: tf.Tensor, sums: metrics.Sums) -> metrics.Sums:
        return metrics.added(sums, function(work.inference_resident, count).numpy())

    def run(num_steps: int) -> None:
        _in_calls(num_steps, steps_per_call, call, metrics.empty(work.plan.num_classes))

    return Side(name, work.plan.global_batch_size, lambda: timed(run))


def predict_side(work: Work, name: str) -> Side:
    """Prediction, whose logits come back after every step."""
    function = multistep.compile_predict_step(work.strategy, work.state.classifier.model)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            function(work.inference_resident).numpy()

    return Side(name, work.plan.global_batch_size, lambda: timed(run))


def train_flops(work: Work) -> float:
    """FLOPs of a photo in a step of fine-tuning, but for augmentation and update.

    Args:
        work: of one replica; see `of_one_replica`.
    """
    gradients_step, _ = multistep.replica_steps(
        work.state, "finetune", work.plan.seed, work.plan.objective
    )
    return _flops(work, gradients_step)


def forward_flops(work: Work) -> float:
    """FLOPs of a photo in a forward pass; `work` is of one replica."""
    return _flops(work, functools.partial(steps.predict_step, work.state.classifier.model))


def steps_per_call(work: Work) -> int:
    """As many steps as the loop does in one compiled call of training, its epoch being long.

    They are found as the loop finds them: from call to call, until they stay about the same.
    """
    if work.config.steps_per_loop:
        return work.config.steps_per_loop
    run, pacer = train_side(work, "trial", "finetune", _MOST_STEPS).open(), pacing.Pacer()
    for trial in range(_TRIALS):
        count = pacer.steps(_MOST_STEPS)
        with pacer.timed(count):
            run(count)
        if trial and abs(pacer.steps(_MOST_STEPS) - count) <= count / 10:
            break
    return pacer.steps(_MOST_STEPS)


def calls(num_steps: int, steps_per_call: int) -> Iterator[int]:
    """The numbers of steps of the calls that make up `num_steps`."""
    for done in range(0, num_steps, steps_per_call):
        yield min(steps_per_call, num_steps - done)


def _in_calls(num_steps: int, steps_per_call: int, call: Callable, value: Any) -> None:
    """Does `value = call(steps, value)` until all steps are done."""
    for count in calls(num_steps, steps_per_call):
        value = call(tf.constant(count, tf.int32), value)


def _enough_photos(data: recipe.Data, batch_size: int) -> recipe.Data:
    """A data set in which the photos of a small training split count as often as a batch needs."""
    split = data.splits["train"]
    if split.size >= batch_size:
        return data
    ids, labels = (np.resize(values, batch_size) for values in (split.ids, split.labels))
    split = dataclasses.replace(split, ids=ids, labels=labels)
    return dataclasses.replace(data, splits={**data.splits, "train": split})


def _flops(work: Work, step: Callable) -> float:
    batch = work.inference_resident.batch
    whole = flops.of_step(lambda values: work.strategy.run(step, args=(values,)), batch)
    return whole / work.plan.global_batch_size


def _repeated(
    config: Config, strategy: tf.distribute.Strategy, num_classes: int, photo_side: int
) -> feed.Batches:
    """Batches of random photos, the same at every step and on every replica."""
    batch_size = config.batch_size_per_replica
    side = photo_side if config.augment_on == "device" else config.image_size
    generator = np.random.default_rng(config.seed)
    batch = {
        "image": generator.integers(0, 256, (batch_size, side, side, 3), np.uint8),
        "label": generator.integers(0, num_classes, batch_size, np.int32),
        "weight": np.ones(batch_size, np.float32),
    }
    if config.augment_on == "device":
        batch["draws"] = generator.random((batch_size, apply.NUM_DRAWS), np.float32)
    return strategy.distribute_datasets_from_function(
        lambda context: tf.data.Dataset.from_tensors(batch).repeat()
    )


def _on_devices(batches: feed.Batches) -> dict:
    """The first batch. A distributed iterator puts it on its devices; of one device, we do."""
    batch = next(feed.iterate(batches))
    return {
        name: tf.identity(value) if isinstance(value, tf.Tensor) else value
        for name, value in batch.items()
    }
