"""A run that does not end: all that its steps need, and batches that are on the devices already."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from flowers_tpu.benchmarks.inputs import STEPS
from flowers_tpu.data.augment.draws import NUM_DRAWS
from flowers_tpu.runs.feed import Batches, Feed
from flowers_tpu.runs.recipe import Data, Recipe
from flowers_tpu.training import metrics, multistep
from flowers_tpu.training.plan import Plan
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
    """A run that does not end, with all that its steps need.

    Attributes:
        feed: of the run.
        plan: of the run, all of it fine-tuning.
        state: of the run.
    """

    feed: Feed
    plan: Plan
    state: TrainState

    @property
    def recipe(self) -> Recipe:
        """What the run is made by."""
        return self.feed.recipe

    @functools.cached_property
    def batches(self) -> Batches:
        """One and the same batch of training without end, for what takes only datasets."""
        side = self.recipe.spec.data.image_size
        if self.feed.augment_on_device:
            side = self.feed.train_decoder.side
        return self._repeated(side, draws=self.feed.gives_draws)

    @functools.cached_property
    def resident(self) -> Resident:
        """A batch of training on the devices."""
        return Resident(_on_devices(self.batches))

    @functools.cached_property
    def inference_resident(self) -> Resident:
        """A batch of evaluation on the devices."""
        return Resident(_on_devices(self._repeated(self.recipe.spec.data.evaluation_size)))

    @functools.cached_property
    def train_steps(self) -> dict[str, Callable]:
        """The compiled function of each stage; see `multistep.compile_train_steps`."""
        return {
            stage: multistep.compile_train_steps(
                *(self.recipe.strategy, self.state, stage, self.plan.objective),
                self.feed.prepare,
            )
            for stage in ("warmup", "finetune")
        }

    def start_over(self) -> None:
        """Makes the next step the first one, so that the plan's steps are enough for every turn."""
        self.state.step.assign(0)
        self.state.progress.history.clear()
        self.state.progress.sums = metrics.empty(self.plan.num_classes)

    def end_epoch(self) -> None:
        """Ends an epoch as a run does, but for validation and checkpoints."""
        self.state.progress.history.append({"step": int(self.state.step.numpy())})
        self.state.progress.sums = metrics.empty(self.plan.num_classes)

    def _repeated(self, side: int, *, draws: bool = False) -> Batches:
        """Batches of random photos, the same at every step and on every replica."""
        batch_size = self.recipe.photos_per_replica
        generator = np.random.default_rng(self.plan.training.seed)
        batch = {
            "image": generator.integers(0, 256, (batch_size, side, side, 3), np.uint8),
            "label": generator.integers(0, self.plan.num_classes, batch_size, np.int32),
            "weight": np.ones(batch_size, np.float32),
        }
        if draws:
            batch["draws"] = generator.random((batch_size, NUM_DRAWS), np.float32)
        return self.recipe.strategy.distribute_datasets_from_function(
            lambda context: tf.data.Dataset.from_tensors(batch).repeat()
        )


def make_work(recipe: Recipe, data: Data) -> Work:
    """Builds the model and everything else of a run that does not end; weights are random.

    As resident steps see one and the same batch, there may be fewer photos than that has.
    """
    data = _enough_photos(data, recipe.resolved.photos_per_step)
    epochs = -(-STEPS // (data.splits["train"].size // recipe.resolved.photos_per_step))
    recipe = recipe.changed(weights="none", warmup_epochs=0, epochs=epochs)
    plan = recipe.plan(data)
    return Work(Feed(recipe, data.splits), plan, recipe.state(plan))


def _enough_photos(data: Data, batch_size: int) -> Data:
    """A data set in which the photos of a small training split count as often as a batch needs."""
    split = data.splits["train"]
    if split.size >= batch_size:
        return data
    ids, labels = (np.resize(values, batch_size) for values in (split.ids, split.known_labels))
    split = dataclasses.replace(split, ids=ids, labels=labels)
    return dataclasses.replace(data, splits={**data.splits, "train": split})


def _on_devices(batches: Batches) -> dict:
    """The first batch. A distributed iterator puts it on its devices; of one device, we do."""
    batch = next(iter(batches))
    return {
        name: tf.identity(value) if isinstance(value, tf.Tensor) else value
        for name, value in batch.items()
    }
