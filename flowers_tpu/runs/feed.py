"""What a model is fed: sources, caches and distributed batches of a recipe's data."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from flowers_tpu.data import decode, order, pipeline, source
from flowers_tpu.data.augment import apply, mixing
from flowers_tpu.data.augment.draws import Draws
from flowers_tpu.data.source import Source
from flowers_tpu.data.splits import Split
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.system.errors import RequestError

Batches = tf.distribute.DistributedDataset | tf.data.Dataset
Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Prepare = Callable[[pipeline.Batch], pipeline.Batch]


class Feed:
    """Gives the batches of a run.

    Caches are filled when the first batch of training or validation is asked for: what is trained
    already, and only to be scored, fills none.

    Attributes:
        recipe: of the run.
        splits: by name.
    """

    def __init__(self, recipe: Recipe, splits: Mapping[str, Split]):
        self.recipe, self.splits = recipe, splits

    @property
    def augment_on_device(self) -> Augment | None:
        """Gives `(images, draws) -> images` if the device augments, a batch at a time."""
        return self._bound(apply.on_device, "device")

    @property
    def augment_on_host(self) -> Augment | None:
        """Gives `(photo, draws) -> image` if the host augments, a photo at a time."""
        return self._bound(apply.on_host, "host")

    @property
    def prepare(self) -> Prepare | None:
        """Gives what the device makes of a batch of training before the model sees it, if anything.

        It augments if the host does not, and mixes photos.
        """
        augment, wanted = self.augment_on_device, self.recipe.spec.augmentation
        if not self.gives_draws:
            return None

        def prepared(batch: pipeline.Batch) -> pipeline.Batch:
            if augment:
                batch = {**batch, "image": augment(batch["image"], batch["draws"])}
            return mixing.mixed(batch, wanted) if wanted.mixes else batch

        return prepared

    @property
    def gives_draws(self) -> bool:
        """Whether a batch of training has draws, as the device has something to do by them."""
        return bool(self.augment_on_device) or self.recipe.spec.augmentation.mixes

    @functools.cached_property
    def train_decoder(self) -> decode.Decoder:
        """How photos are decoded that augmentation cuts from."""
        return train_decoder(self.recipe, self.splits["train"].photo_size)

    @functools.cached_property
    def train_source(self) -> Source:
        """Where training takes its photos from.

        Raises:
            RequestError: see `check_cache`.
        """
        return self._source("train", self.train_decoder)

    @functools.cached_property
    def val_source(self) -> Source:
        """Where validation takes its photos from; as `train_source`."""
        return self._source("val", self._eval_decoder(self.splits["val"]))

    def check_cache(self) -> None:
        """Raises RequestError if the cache asked for cannot be; fills nothing.

        It may not fit into memory; or several hosts read, which cannot see that of this one.
        """
        cache, hosts = self.recipe.spec.data.cache, self.recipe.facts.hosts
        if cache != "none" and hosts > 1:
            raise RequestError(
                f"--cache={cache}: keeps photos in the memory of one host, but {hosts} hosts "
                "read them; use --cache=none"
            )
        needed = 0
        for name in ("train", "val"):
            if name not in self.splits:
                continue
            split = self.splits[name]
            decoder = self.train_decoder if name == "train" else self._eval_decoder(split)
            needed += source.bytes_of(cache, split, decoder)
        source.check_memory(cache, needed)

    def train_batches(self, first_step: int, num_steps: int) -> Batches:
        """Returns the distributed batches of training, from a step of the run to its end.

        Args:
            first_step: where to begin.
            num_steps: where the run ends.
        """
        recipe, train = self.recipe, self.train_source
        if self.augment_on_host:
            apply.compile_for_host(
                train.side,
                image_size=recipe.spec.data.image_size,
                augmentation=recipe.spec.augmentation,
            )
        return self._train_batches(
            train,
            first_step,
            num_steps,
            augment_photo=self.augment_on_host,
            mixes=recipe.spec.augmentation.mixes,
        )

    def feature_batches(self, features: np.ndarray, first_step: int, num_steps: int) -> Batches:
        """Returns batches as `train_batches`, with features in place of photos.

        Args:
            features: `[examples, 2, channels]`, of the photos and of their mirror images.
            first_step: where to begin.
            num_steps: where to end.
        """
        mirrors = self.recipe.spec.augmentation.flip_left_right

        def chosen(both: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
            mirrored = mirrors & (Draws(draws[tf.newaxis]).of("flip_left_right")[0] < 0.5)
            return both[tf.cast(mirrored, tf.int32)]

        known = source.from_features(self.splits["train"], features)
        return self._train_batches(known, first_step, num_steps, augment_photo=chosen)

    def _train_batches(self, train: Source, first_step: int, num_steps: int, **how: Any) -> Batches:
        recipe = self.recipe
        dataset = functools.partial(
            pipeline.train_dataset,
            train,
            global_batch_size=recipe.resolved.photos_per_step,
            local_batch_size=recipe.photos_per_replica,
            seed=recipe.spec.training.seed,
            shuffle_buffer=recipe.spec.data.shuffle_buffer,
            first_step=first_step,
            num_steps=num_steps,
            **how,
        )
        return self._distribute(dataset)

    def eval_batches(self, split: Split | Source) -> Batches:
        """Returns the distributed batches of a split in file order, filled up with weight 0."""
        if isinstance(split, Split):
            split = source.from_files(split, self._eval_decoder(split))
        dataset = functools.partial(
            pipeline.eval_dataset,
            split,
            global_batch_size=self.recipe.photos_at_once,
            local_batch_size=self.recipe.photos_at_once // self.recipe.facts.replicas,
        )
        return self._distribute(dataset)

    def eval_steps(self, split: Split) -> int:
        """Returns the number of global batches that hold every example of a split once."""
        return pipeline.eval_steps(split.size, self.recipe.photos_at_once)

    def ids_of_step(self, step: int) -> list[str]:
        """Returns the ids of the photos that a training step sees, without reading anything."""
        split, batch = self.splits["train"], self.recipe.resolved.photos_per_step
        epoch, position = divmod(step, split.size // batch)
        indices = order.epoch_indices(
            [shard.count for shard in split.shards],
            seed=self.recipe.spec.training.seed,
            epoch=epoch,
            shuffle_buffer=self.recipe.spec.data.shuffle_buffer,
        )
        return list(split.ids[indices[position * batch : (position + 1) * batch]])

    def _source(self, name: str, decoder: decode.Decoder) -> Source:
        self.check_cache()
        return source.MAKERS[self.recipe.spec.data.cache](self.splits[name], decoder)

    def _eval_decoder(self, split: Split) -> decode.Decoder:
        return decode.for_evaluation(split.photo_size, self.recipe.spec.data.evaluation_size)

    def _distribute(self, dataset: Callable) -> Batches:
        return pipeline.distribute(
            self.recipe.strategy,
            lambda worker, workers: dataset(worker=worker, workers=workers),
            fetches_ahead=self.recipe.facts.fetches_ahead,
        )

    def _bound(self, function: Callable, place: str) -> Augment | None:
        if self.recipe.resolved.augments_on != place:
            return None
        return functools.partial(
            function,
            image_size=self.recipe.spec.data.image_size,
            augmentation=self.recipe.spec.augmentation,
        )


def train_decoder(recipe: Recipe, photo_size: int) -> decode.Decoder:
    """Returns how photos of a size are decoded that augmentation cuts from."""
    wanted = recipe.spec.augmentation
    return decode.for_training(
        photo_size, recipe.spec.data.image_size, wanted.least_side, warps=wanted.warps
    )
