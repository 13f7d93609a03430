"""From a resolved Config to the parts of a run: devices, data, plan, model and state.

Whatever trains, measures or compiles the real thing takes its parts from here.
"""

import contextlib
import dataclasses
import functools

import numpy as np
import tensorflow as tf
from absl import logging

from flowers_tpu import distribution, files, progress, quiet
from flowers_tpu.config import Config
from flowers_tpu.data import check, classes, example, records
from flowers_tpu.distribution import Devices
from flowers_tpu.errors import RequestError
from flowers_tpu.evaluation import submission
from flowers_tpu.models.classifier import Classifier, build_classifier
from flowers_tpu.training import loop, losses, metrics, optimizers, schedule, steps
from flowers_tpu.training.state import Progress, TrainState, step_counter


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, read and checked.

    Attributes:
        folder: holds `train/`, `val/` and `test/`.
        class_names: by label.
        splits: by name.
    """

    folder: str
    class_names: tuple[str, ...]
    splits: dict[str, records.Split]


def choose_devices(config: Config) -> Devices:
    """Chooses what to run on."""
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    with quiet.without_chatter():
        return distribution.choose_devices(
            tpu=config.tpu, replicas=config.replicas, require_tpu=config.require_tpu
        )


def resolve(config: Config, devices: Devices) -> Config:
    """Replaces what a configuration leaves open by what it comes to on these devices.

    Raises:
        RequestError: the replicas do not divide the global batch.
    """
    batch = config.global_batch_size or config.batch_size_per_replica * devices.replicas
    if batch % devices.replicas:
        raise RequestError(
            f"--global_batch_size={batch}: is not divisible by {devices.replicas} replicas; use a "
            "multiple of them, or another number of replicas"
        )
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if devices.kind == "TPU" else "float32"
    augment_on = config.augment_on
    if augment_on == "auto":
        augment_on = "host" if devices.kind == "CPU" else "device"
    return dataclasses.replace(
        config,
        global_batch_size=batch,
        batch_size_per_replica=batch // devices.replicas,
        precision=precision,
        augment_on=augment_on,
    )


def load_data(config: Config, splits: tuple[str, ...] = records.SPLITS) -> Data:
    """Finds and checks a data set, drawing the example first where that is asked for."""
    folder = data_folder(config)
    names = class_names(config, folder)
    read = functools.partial(records.read_split, folder, bad_records=config.bad_records)
    data = Data(folder, names, {s: read(s, config.image_size, len(names)) for s in splits})
    for split in data.splits.values():
        if split.left_out:
            progress.say(f"{split.name}: {split.left_out:,} bad records are left out")
    if "test" in splits:
        try:
            submission.check_ids(folder, data.splits["test"].ids)
        except RequestError as error:
            if not data.splits["test"].left_out:
                raise
            logging.warning("%s; without the records left out the submission is incomplete", error)
    return data


def naming_bad_records(config: Config, data: Data) -> contextlib.AbstractContextManager[None]:
    """Turns the error of a photo that cannot be decoded into one that says which it is."""
    return check.naming_bad_records(
        data.folder, data.splits.values(), config.image_size, len(data.class_names)
    )


def make_plan(config: Config, data: Data) -> loop.Plan:
    """Works out every number of a run; the configuration is resolved.

    Raises:
        RequestError: there are fewer training photos than a global batch has.
    """
    split, batch = data.splits["train"], config.global_batch_size
    steps_per_epoch = split.size // batch
    if not steps_per_epoch:
        raise RequestError(
            f"the training split has {split.size} photos, fewer than the global batch of {batch}; "
            "lower --batch_size_per_replica or --global_batch_size"
        )
    weights = None
    if config.class_weights == "balanced":
        weights = losses.balanced_class_weights(split.labels, len(data.class_names))
    return loop.Plan(
        num_classes=len(data.class_names),
        global_batch_size=batch,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=config.warmup_epochs,
        epochs=config.epochs,
        rates=learning_rates(config, steps_per_epoch),
        early_stopping_patience=config.early_stopping_patience,
        seed=config.seed,
        objective=steps.Objective(
            label_smoothing=config.label_smoothing,
            class_weights=weights,
            l2=config.l2,
            clip_norm=config.clip_norm,
        ),
        steps_per_loop=config.steps_per_loop,
        checkpoint_every_steps=config.checkpoint_every_steps,
        checkpoint_every_seconds=config.checkpoint_every_minutes * 60,
        on_nan=config.on_nan,
    )


def learning_rates(config: Config, steps_per_epoch: int) -> np.ndarray:
    """Returns the rate of every step of a resolved run, warm-up first, `[steps]` float32."""
    batch = config.global_batch_size
    warmup = schedule.constant(
        schedule.scaled(config.warmup_learning_rate, batch), config.warmup_epochs * steps_per_epoch
    )
    peak = schedule.scaled(config.learning_rate, batch)
    times = schedule.times(config.epochs, steps_per_epoch, config.lr_granularity)
    ramp = {
        "peak": peak,
        "start": config.lr_start,
        "minimum": config.lr_min,
        "rampup_epochs": config.lr_rampup_epochs,
    }
    if config.lr_schedule == "ramp_decay":
        finetune = schedule.ramp_decay(
            times, **ramp, sustain_epochs=config.lr_sustain_epochs, decay=config.lr_decay
        )
    elif config.lr_schedule == "cosine":
        finetune = schedule.cosine(times, **ramp, total_epochs=config.epochs)
    else:
        finetune = schedule.constant(peak, len(times))
    return np.concatenate([warmup, finetune])


def make_classifier(config: Config, num_classes: int) -> Classifier:
    """Builds the model of a resolved configuration; call it under the strategy's scope."""
    return build_classifier(
        backbone=config.backbone,
        num_classes=num_classes,
        image_size=config.image_size,
        weights=config.weights,
        alpha=config.alpha,
        dropout=config.dropout,
        batch_norm=config.batch_norm,
        precision=config.precision,
        seed=config.seed,
    )


def make_state(config: Config, strategy: tf.distribute.Strategy, plan: loop.Plan) -> TrainState:
    """Builds the state of a run before its first step."""
    with strategy.scope():
        classifier = make_classifier(config, plan.num_classes)
        step = step_counter()
        make_optimizer = functools.partial(
            optimizers.make_optimizer,
            config.optimizer,
            lambda: tf.gather(tf.constant(plan.rates), step),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        return TrainState(
            classifier,
            warmup_optimizer=make_optimizer(classifier.head.trainable_variables),
            finetune_optimizer=make_optimizer(classifier.model.trainable_variables),
            step=step,
            progress=Progress(metrics.empty(plan.num_classes)),
        )


def data_folder(config: Config) -> str:
    """Returns the folder that holds the splits, drawing the example where that is asked for."""
    if config.data_dir == "example":
        return example.example_data_dir(config.image_size)
    return records.data_folder(config.data_dir, config.image_size)


def class_names(config: Config, folder: str) -> tuple[str, ...]:
    """Returns the names of the classes, by label."""
    if config.classes:
        return classes.read_classes(config.classes)
    path = files.join(folder, "classes.txt")
    return classes.read_classes(path) if tf.io.gfile.exists(path) else classes.FLOWERS
