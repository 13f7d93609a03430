"""From a Config to a finished run: the only file that takes a Config apart.

`train`, `evaluate`, `predict` and `check_data` are what the scripts call. The parts they are made of are taken
from here by whatever else measures or compiles the real thing.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from flowers_tpu import config as config_lib
from flowers_tpu import console, distribution, files, progress, quiet, run_directory
from flowers_tpu.config import Config
from flowers_tpu.data import augment, check, classes, example, order, pipeline, records, verify
from flowers_tpu.distribution import Devices
from flowers_tpu.errors import RequestError, RunError
from flowers_tpu.evaluation import predictions, scores, submission
from flowers_tpu.interruption import Interruption
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.models.classifier import Classifier, build_classifier
from flowers_tpu.run_directory import RunDirectory
from flowers_tpu.training import compiled, loop, losses, metrics, optimizers, schedule, steps
from flowers_tpu.training.checkpoints import Checkpoints, restore_best_weights
from flowers_tpu.training.state import Progress, TrainState, step_counter

_SCORES = "scores.json"
_BAD_RECORDS = "bad_records.csv"


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


@dataclasses.dataclass(frozen=True)
class Job:
    """A model with its data on its devices, and where results go.

    Attributes:
        config: resolved.
        devices: what runs it.
        data: the splits that are needed.
        classifier: the model.
        run: the run directory.
    """

    config: Config
    devices: Devices
    data: Data
    classifier: Classifier
    run: RunDirectory

    @functools.cached_property
    def predict_step(self) -> Callable[[Iterator], tf.Tensor]:
        """Gives the logits of the next global batch; compiled once for all splits."""
        return compiled.compile_predict_step(self.devices.strategy, self.classifier.model)

    @contextlib.contextmanager
    def naming_bad_records(self) -> Iterator[None]:
        """Turns the error of a photo that cannot be decoded into one that says which it is."""
        try:
            yield
        except verify.ERRORS as error:
            data = self.data
            for split in data.splits.values():
                problems = check.new_problems(
                    data.folder, split, self.config.image_size, len(data.class_names)
                )
                if problems:
                    raise RunError(
                        f"{problems[0]} (met on the way: the start reads headers only). Repair it "
                        "and run the same command again, or begin anew with --bad_records=skip"
                    ) from error
            raise

    def logits(self, split: records.Split, interruption: Interruption) -> np.ndarray:
        """Returns the logits of a split in file order, `[examples, classes]` float32."""
        return predictions.predict(
            self.predict_step,
            iterate(eval_batches(self.config, self.devices.strategy, split)),
            split.size,
            title=f"predicting {split.name}",
            interruption=interruption,
        )


def train(given: Config) -> None:
    """Trains, or continues, the run of a configuration; then evaluates it and predicts the test."""
    run = RunDirectory(given.run_dir)
    run.check_usable()
    check_backbone(given.backbone, image_size=given.image_size, alpha=given.alpha)
    devices = choose_devices(given)
    config = resolve(given, devices)
    if run.is_run():
        run.lock()
    if run.is_run() and not given.overwrite:
        config = _as_begun(run, given, config, devices)
        if run.has(_SCORES):
            progress.say(f"{run.path} is finished; --overwrite begins anew.")
            console.print_scores(run, run.read_json(_SCORES))
            return
    data = load_data(config)
    plan = make_plan(config, data)
    state = make_state(config, devices.strategy, plan)
    if given.overwrite:
        run.remove()
    if not run.is_run():
        about = run_directory.environment(devices.kind, devices.replicas)
        run.begin(given, config, about)
    _list_bad_records(config, run, data, as_begun=True)
    checkpoints = Checkpoints(run.checkpoints, state)
    resumed = checkpoints.restore_latest()
    photos = {name: split.size for name, split in data.splits.items()}
    console.print_plan(config, devices, photos, plan, state.classifier)
    if resumed:
        console.print_resumed(plan, state)
    job = Job(config, devices, data, state.classifier, run)
    with Interruption() as interruption, job.naming_bad_records():
        _fit(job, plan, state, checkpoints, interruption)
        if not checkpoints.restore_best():
            progress.say("No epoch of fine-tuning: the last weights are evaluated.")
        predict_test(job, interruption)
        # The scores come last: they tell that a run is finished.
        run.write_json(_SCORES, score_splits(job, interruption))
    console.print_scores(run, run.read_json(_SCORES))


def evaluate(given: Config) -> None:
    """Scores the best model of a run on train and validation, and writes the tables."""
    job = _open_run(given, records.LABELED_SPLITS)
    with Interruption() as interruption, job.naming_bad_records():
        job.run.write_json(_SCORES, score_splits(job, interruption))
    console.print_scores(job.run, job.run.read_json(_SCORES))


def predict(given: Config) -> None:
    """Predicts the test split with the best model of a run, and writes the submission."""
    job = _open_run(given, ("test",))
    with Interruption() as interruption, job.naming_bad_records():
        predict_test(job, interruption)


def check_data(config: Config) -> None:
    """Checks a whole data set and lists what is wrong with it.

    Raises:
        RequestError: something is.
    """
    folder = _data_folder(config)
    report = check.check(folder, config.image_size, len(_class_names(config, folder)))
    for problem in report.problems:
        progress.say(problem)
    progress.say(f"\n{report.summary.to_string(index=False)}\n")
    if report.problems:
        raise RequestError(f"--data_dir: {folder}: problems, listed above: {len(report.problems)}")
    progress.say(f"{folder}: nothing is wrong.")


def score_splits(job: Job, interruption: Interruption) -> dict[str, dict]:
    """Returns the scores of train and validation, and writes the tables they come from."""
    result = {}
    for name in records.LABELED_SPLITS:
        split = job.data.splits[name]
        logits = job.logits(split, interruption)
        predicted = logits.argmax(axis=1)
        result[name] = scores.score(split.labels, logits)
        if split.left_out:
            result[name]["left_out"] = split.left_out
        names = job.data.class_names
        report = scores.classification_report(split.labels, predicted, names)
        job.run.write_table(f"classification_report_{name}.csv", report, index=True)
        matrix = scores.confusion_matrix(split.labels, predicted, len(names))
        frame = pd.DataFrame(matrix, index=pd.Index(names, name="true class"), columns=names)
        job.run.write_table(f"confusion_{name}.csv", frame, index=True)
        table = predictions.table(split.ids, logits, split.labels, names)
        job.run.write_table(f"predictions_{name}.csv", table)
    return result


def predict_test(job: Job, interruption: Interruption) -> None:
    """Writes the predictions of the test split, and the submission made of them."""
    split = job.data.splits["test"]
    logits = job.logits(split, interruption)
    table = predictions.table(split.ids, logits, None, job.data.class_names)
    job.run.write_table("predictions_test.csv", table)
    job.run.write_table("submission.csv", submission.submission(table))
    lacking = f", lacks the {split.left_out:,} photos left out" if split.left_out else ""
    progress.say(f"submission: {job.run.file('submission.csv')} ({split.size:,} rows{lacking})")


def with_flags_of_run(config: Config, given: set[str]) -> Config:
    """Returns the flags of the run in `config.run_dir`, with the given ones replaced."""
    trained, _ = RunDirectory(config.run_dir).read_configs()
    changes = {name: getattr(config, name) for name in given | {"run_dir"}}
    return dataclasses.replace(trained, **changes)


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
            f"--global_batch_size={batch}: is not divided by {devices.replicas} replicas; use a "
            "multiple of them, or another number of replicas"
        )
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if devices.kind == "TPU" else "float32"
    return dataclasses.replace(
        config,
        global_batch_size=batch,
        batch_size_per_replica=batch // devices.replicas,
        precision=precision,
    )


def load_data(config: Config, splits: tuple[str, ...] = records.SPLITS) -> Data:
    """Finds and checks a data set, drawing the example first where that is asked for."""
    folder = _data_folder(config)
    names = _class_names(config, folder)
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


def train_batches(
    config: Config, strategy: tf.distribute.Strategy, split: records.Split, plan: loop.Plan,
    first_step: int,
) -> tf.distribute.DistributedDataset | tf.data.Dataset:  # fmt: skip
    """The distributed training batches from a step on."""
    dataset = pipeline.train_dataset(
        split,
        image_size=config.image_size,
        global_batch_size=plan.global_batch_size,
        local_batch_size=config.batch_size_per_replica,
        augmentation=augment.Augmentation(
            flip_left_right=config.flip_left_right,
            flip_up_down=config.flip_up_down,
            saturation=(config.saturation_lower, config.saturation_upper),
            crop_min=config.crop_min,
        ),
        seed=config.seed,
        shuffle_buffer=config.shuffle_buffer,
        first_step=first_step,
        num_steps=len(plan.rates),
    )
    return pipeline.distribute(strategy, dataset)


def ids_of_step(config: Config, split: records.Split, step: int) -> list[str]:
    """Returns the ids of the photos that a training step sees, without reading anything."""
    batch = config.global_batch_size
    epoch, position = divmod(step, split.size // batch)
    indices = order.epoch_indices(
        [shard.count for shard in split.shards],
        seed=config.seed,
        epoch=epoch,
        shuffle_buffer=config.shuffle_buffer,
    )
    return list(split.ids[indices[position * batch : (position + 1) * batch]])


def eval_batches(
    config: Config, strategy: tf.distribute.Strategy, split: records.Split
) -> tf.distribute.DistributedDataset | tf.data.Dataset:
    """The distributed batches of a split in file order, filled up with weight 0."""
    dataset = pipeline.eval_dataset(
        split,
        image_size=config.image_size,
        global_batch_size=config.global_batch_size,
        local_batch_size=config.batch_size_per_replica,
    )
    return pipeline.distribute(strategy, dataset)


def iterate(batches: tf.distribute.DistributedDataset | tf.data.Dataset) -> Iterator:
    """Returns an iterator over batches."""
    with quiet.without_chatter():
        return iter(batches)


def _data_folder(config: Config) -> str:
    if config.data_dir == "example":
        return example.example_data_dir(config.image_size)
    return records.data_folder(config.data_dir, config.image_size)


def _class_names(config: Config, folder: str) -> tuple[str, ...]:
    if config.classes:
        return classes.read_classes(config.classes)
    path = files.join(folder, "classes.txt")
    return classes.read_classes(path) if tf.io.gfile.exists(path) else classes.FLOWERS


def _list_bad_records(config: Config, run: RunDirectory, data: Data, *, as_begun: bool) -> None:
    """Writes what is left out of the splits; `as_begun`: which must be what was left out before."""
    if config.bad_records == "fail":
        return
    path = run.file(_BAD_RECORDS)
    known = files.read_text(path) if run.has(_BAD_RECORDS) else ""
    table = check.bad_records(data.splits.values(), known)
    if as_begun and known not in ("", table):
        raise RequestError(
            f"{path}: lists other records than those that are bad now; with them, the order of the "
            "photos would change. Restore the data of this run, or begin anew with --overwrite"
        )
    files.write_atomically(path, table)


def _as_begun(run: RunDirectory, given: Config, config: Config, devices: Devices) -> Config:
    """Returns the configuration with the global batch and precision that a run began with."""
    run_directory.check_same_flags(run, given, config)
    _, begun = run.read_configs()
    if config.global_batch_size != begun.global_batch_size:
        progress.say(f"Keeping the global batch of {begun.global_batch_size} this run began with.")
    kept = dataclasses.replace(
        config, global_batch_size=begun.global_batch_size, precision=begun.precision
    )
    return resolve(kept, devices)


def _open_run(given: Config, splits: tuple[str, ...]) -> Job:
    """Opens a run for evaluation.

    Devices, place of the data, batch and precision may be others than in training.
    """
    run = RunDirectory(given.run_dir)
    trained, resolved = run.read_configs()
    run.lock()
    free = {"data_dir", "batch_size_per_replica", "global_batch_size", "precision"}
    if changed := set(config_lib.changed_flags(trained, given)) - free:
        raise RequestError(
            f"--{min(changed)} cannot differ from that of the run in --run_dir={run.path}; "
            f"only devices, {', '.join(sorted(f'--{name}' for name in free))} can"
        )
    if given.precision == "auto":
        given = dataclasses.replace(given, precision=resolved.precision)
    devices = choose_devices(given)
    # The checkpoint fills every weight.
    config = resolve(dataclasses.replace(given, weights="none"), devices)
    data = load_data(config, splits)
    _list_bad_records(config, run, data, as_begun=False)
    with devices.strategy.scope():
        classifier = make_classifier(config, len(data.class_names))
    if not restore_best_weights(files.join(run.checkpoints, "best"), classifier):
        raise RequestError(
            f"--run_dir={run.path}: has no best checkpoint yet; scripts/train.py continues the run"
        )
    return Job(config, devices, data, classifier, run)


def _fit(
    job: Job, plan: loop.Plan, state: TrainState, checkpoints: Checkpoints,
    interruption: Interruption,
) -> None:  # fmt: skip
    strategy, config, val = job.devices.strategy, job.config, job.data.splits["val"]
    eval_steps = compiled.compile_eval_steps(strategy, job.classifier.model)
    val_batches = eval_batches(config, strategy, val)

    def validate() -> dict[str, float]:
        with progress.bar(val.size, "validation") as bar:
            return loop.evaluate(
                eval_steps,
                iterate(val_batches),
                pipeline.eval_steps(val.size, plan.global_batch_size),
                plan.num_classes,
                on_steps=lambda n: bar.update(n * plan.global_batch_size),
                interruption=interruption,
            )

    def on_epoch(history: list[dict], times: dict[str, float]) -> None:
        job.run.write_table("history.csv", pd.DataFrame(history))
        past = job.run.read_table("timing.csv") if job.run.has("timing.csv") else pd.DataFrame()
        job.run.write_table("timing.csv", pd.concat([past, pd.DataFrame([times])]))
        console.print_epoch(plan, history, times)

    loop.fit(
        plan=plan,
        state=state,
        checkpoints=checkpoints,
        train_steps=lambda stage: compiled.compile_train_steps(
            strategy, state, stage, plan.seed, plan.objective
        ),
        train_iterator=lambda step: iterate(
            train_batches(config, strategy, job.data.splits["train"], plan, step)
        ),
        validate=validate,
        on_epoch=on_epoch,
        ids_of_step=functools.partial(ids_of_step, config, job.data.splits["train"]),
        interruption=interruption,
    )
    # A run that was killed between its last checkpoint and this table is finished all the same.
    job.run.write_table("history.csv", pd.DataFrame(state.progress.history))
