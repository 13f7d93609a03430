"""The same training by `model.compile` and `model.fit`: the only place of the package that does so.

The model is Keras' own, dropout layers included, as a person would build it.
"""

import time

import tensorflow as tf

from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.models import backbones
from flowers_tpu.models.classifier import precision_policy
from flowers_tpu.runs.feed import Augment, Batches
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.training import optimizers

# With which values of flags the training is the same; others are ignored.
FOLLOWS = {
    "batch_norm": ("per_replica", "frozen"),
    "l2": (0.0,),
    "clip_norm": (0.0,),
    "label_smoothing": (0.0,),
    "class_weights": ("none",),
}


def side(
    name: str, model: tf.keras.Model, photos_per_step: int, dataset: Batches,
    steps_per_execution: int = 1,
) -> Side:  # fmt: skip
    """Calls `fit` for two epochs of the steps of a turn, and times the second.

    So neither its preparations nor the first filling of the dataset's buffers are in the time.
    """

    def run(steps: int) -> float:
        timer = _Timer()
        model.fit(dataset, epochs=2, steps_per_epoch=steps, verbose=0, callbacks=[timer])
        return timer.seconds

    return Side(name, photos_per_step, lambda: run, multiple=steps_per_execution, run_in=0)


def build(
    recipe: Recipe, num_classes: int,
    *, augment: Augment | None = None, steps_per_execution: int = 1,
) -> tf.keras.Model:  # fmt: skip
    """Builds and compiles the model of a recipe, for this project's own batches.

    Args:
        recipe: of the run that is measured.
        num_classes: number of logits.
        augment: see `Feed.augment_on_device`.
        steps_per_execution: see `tf.keras.Model.compile`.
    """
    with recipe.strategy.scope(), precision_policy(recipe.resolved.arithmetic):
        images = tf.keras.Input((recipe.spec.data.image_size,) * 2 + (3,), dtype=tf.uint8)
        mode = backbones.preprocessing_of(recipe.spec.model)
        logits = _logits(recipe, backbones.preprocess(images, mode), num_classes)
        model = _FromBatches(images, logits)
        model.augment = augment
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        _compile(model, recipe, loss, steps_per_execution)
    return model


def build_notebook(recipe: Recipe, num_classes: int) -> tf.keras.Model:
    """Builds and compiles the model as the notebook does, for its batches of floats in [0, 1]."""
    with recipe.strategy.scope(), precision_policy(recipe.resolved.arithmetic):
        images = tf.keras.Input((recipe.spec.data.image_size,) * 2 + (3,))
        model = tf.keras.Model(images, tf.nn.softmax(_logits(recipe, images, num_classes)))
        loss = tf.keras.losses.SparseCategoricalCrossentropy()
        _compile(model, recipe, loss, steps_per_execution=1)
    return model


class _FromBatches(tf.keras.Model):
    """Takes this project's batches, dicts, for the pairs that Keras wants."""

    augment: Augment | None = None

    def train_step(self, data: dict) -> dict:
        images = data["image"]
        if self.augment:
            images = self.augment(images, data["draws"])
        return super().train_step((images, data["label"]))


class _Timer(tf.keras.callbacks.Callback):
    """Times each epoch; its end waits for the numbers of the last step. The last one stays."""

    seconds = float("nan")

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self._begin


def _logits(recipe: Recipe, pixels: tf.Tensor, num_classes: int) -> tf.Tensor:
    options = recipe.spec.model
    network = backbones.build_backbone(
        options.backbone, image_size=pixels.shape[1], alpha=options.alpha
    )
    if options.batch_norm == "frozen":
        for layer in network.layers:
            layer.trainable = not isinstance(layer, tf.keras.layers.BatchNormalization)
    x = tf.keras.layers.GlobalAveragePooling2D(dtype="float32")(network(pixels))
    if options.dropout:
        x = tf.keras.layers.Dropout(options.dropout, dtype="float32")(x)
    return tf.keras.layers.Dense(num_classes, dtype="float32")(x)


def _compile(model: tf.keras.Model, recipe: Recipe, loss, steps_per_execution: int) -> None:
    rate = tf.constant(recipe.spec.schedule.learning_rate)
    optimizer = optimizers.make_optimizer(
        recipe.spec.training, lambda: rate, model.trainable_variables
    )
    model.compile(optimizer, loss, ["accuracy"], steps_per_execution=steps_per_execution)
