"""The compiled steps of a run on a batch that is on the devices already: no input, no transfer."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from flowers_tpu import feed, parts
from flowers_tpu.benchmarks import flops, inputs, rounds
from flowers_tpu.benchmarks.rounds import Run, Side, timed
from flowers_tpu.config import Config
from flowers_tpu.data import augment
from flowers_tpu.errors import RunError
from flowers_tpu.training import compiled, loop, metrics, pacing, steps
from flowers_tpu.training.state import TrainState


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
    plan: loop.Plan
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
        """The compiled function of each stage; see `compiled.compile_train_steps`."""
        return {
            stage: compiled.compile_train_steps(
                self.strategy, self.state, stage, self.plan.seed, self.plan.objective,
                feed.augment_on_device(self.config),
            )
            for stage in ("warmup", "finetune")
        }  # fmt: skip


def make_work(config: Config, strategy: tf.distribute.Strategy, data: parts.Data) -> Work:
    """Builds the model and everything else of a run that does not end; weights are random."""
    config = dataclasses.replace(config, weights="none")
    plan = inputs.endless_plan(config, data)
    side = feed.train_decoder(config, data.splits["train"].photo_size).side
    return Work(config, strategy, plan, parts.make_state(config, strategy, plan), side)


def train_side(
    work: Work, name: str, stage: str, steps_per_call: int,
    open_iterator: Callable[[], Iterator] | None = None,
) -> Side:  # fmt: skip
    """Training steps of a stage, `warmup` or `finetune`; on the resident batch if not told else."""
    function = work.train_steps[stage]

    def train(iterator: Iterator, num_steps: int) -> None:
        sums = metrics.empty(work.plan.num_classes)
        for count in calls(num_steps, steps_per_call):
            sums, norm, finite = function(iterator, tf.constant(count, tf.int64), sums)
            sums = {key: value.numpy() for key, value in sums.items()}
            if not finite:
                raise RunError(
                    f"{name}: loss or gradients are not finite (gradient norm {norm}); a lower "
                    "--learning_rate, or --clip_norm=1"
                )

    def open_run() -> Run:
        work.start_over()
        iterator = open_iterator() if open_iterator else work.resident
        return timed(functools.partial(train, iterator))

    return Side(name, work.plan.global_batch_size, open_run)


def forward_side(work: Work, name: str, steps_per_call: int) -> Side:
    """Nothing but forward passes, as many in a call."""
    strategy, model = work.strategy, work.state.classifier.model

    @tf.function
    def forward(iterator, num_steps):
        total = tf.constant(0.0)
        for _ in tf.range(num_steps):
            logits = strategy.run(lambda b: steps.predict_step(model, b), args=(next(iterator),))
            for local in strategy.experimental_local_results(logits):
                total += local[0, 0]
        return total

    def run(num_steps: int) -> None:
        for count in calls(num_steps, steps_per_call):
            forward(work.inference_resident, tf.constant(count, tf.int64)).numpy()

    return Side(name, work.plan.global_batch_size, lambda: timed(run))


def eval_side(work: Work, name: str, steps_per_call: int) -> Side:
    """Evaluation steps, with all sums."""
    function = compiled.compile_eval_steps(work.strategy, work.state.classifier.model)

    def run(num_steps: int) -> None:
        sums = metrics.empty(work.plan.num_classes)
        for count in calls(num_steps, steps_per_call):
            sums = function(work.inference_resident, tf.constant(count, tf.int64), sums)
            sums = {key: value.numpy() for key, value in sums.items()}

    return Side(name, work.plan.global_batch_size, lambda: timed(run))


def predict_side(work: Work, name: str) -> Side:
    """Prediction, whose logits come back after every step."""
    function = compiled.compile_predict_step(work.strategy, work.state.classifier.model)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            function(work.inference_resident).numpy()

    return Side(name, work.plan.global_batch_size, lambda: timed(run))


def train_flops(work: Work) -> float:
    """FLOPs of a photo in a step of fine-tuning, but for the update."""
    gradients_step, _ = compiled.replica_steps(
        work.state, "finetune", work.plan.seed, work.plan.objective,
        feed.augment_on_device(work.config),
    )  # fmt: skip
    return _flops(work, gradients_step, work.resident.batch)


def forward_flops(work: Work) -> float:
    """FLOPs of a photo in a forward pass."""
    forward = functools.partial(steps.predict_step, work.state.classifier.model)
    return _flops(work, forward, work.inference_resident.batch)


def steps_per_call(work: Work) -> int:
    """As many steps as the loop does in one compiled call of training."""
    return work.config.steps_per_loop or rounds.steps_that_take(
        pacing.SECONDS_PER_CALL, train_side(work, "trial", "finetune", steps_per_call=1)
    )


def calls(num_steps: int, steps_per_call: int) -> Iterator[int]:
    """The numbers of steps of the calls that make up `num_steps`."""
    for done in range(0, num_steps, steps_per_call):
        yield min(steps_per_call, num_steps - done)


def _flops(work: Work, step: Callable, batch: dict) -> float:
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
        batch["draws"] = generator.random((batch_size, augment.NUM_DRAWS), np.float32)
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
