"""What the scripts call: `train`, `evaluate`, `predict`, `check_data`, each from top to bottom.

`parts.py` and `feed.py` build what they are made of.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import tensorflow as tf

from flowers_tpu import (
    board,
    console,
    feed,
    files,
    live,
    parts,
    progress,
    quiet,
    reporting,
    run_directory,
)
from flowers_tpu import config as config_lib
from flowers_tpu.config import Config
from flowers_tpu.data import check, pipeline, records
from flowers_tpu.data.source import Source
from flowers_tpu.distribution import Devices
from flowers_tpu.errors import RequestError
from flowers_tpu.evaluation import predictions, scores, submission
from flowers_tpu.interruption import Interruption
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.run_directory import RunDirectory
from flowers_tpu.training import compiled, loop, metrics
from flowers_tpu.training.checkpoints import Checkpoints, restore_best_weights
from flowers_tpu.training.state import TrainState

_SCORES = "scores.json"
_BAD_RECORDS = "bad_records.csv"


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
    data: parts.Data
    classifier: Classifier
    run: RunDirectory

    @functools.cached_property
    def predict_step(self) -> Callable[[Iterator], tf.Tensor]:
        """Gives the logits of the next global batch; compiled once for all splits."""
        return compiled.compile_predict_step(self.devices.strategy, self.classifier.model)

    def naming_bad_records(self) -> contextlib.AbstractContextManager[None]:
        """Turns the error of a photo that cannot be decoded into one that says which it is."""
        return parts.naming_bad_records(self.config, self.data)

    def logits(self, split: records.Split, interruption: Interruption) -> np.ndarray:
        """Returns the logits of a split in file order, `[examples, classes]` float32."""
        return predictions.predict(
            self.predict_step,
            feed.iterate(feed.eval_batches(self.config, self.devices.strategy, split)),
            split.size,
            title=f"predicting {split.name}",
            interruption=interruption,
        )

    def logits_of_few(self, source: Source) -> np.ndarray:
        """Returns the logits of the photos of a source, as `logits`, but without a word."""
        batches = feed.iterate(feed.eval_batches(self.config, self.devices.strategy, source))
        steps = pipeline.eval_steps(source.split.size, self.config.global_batch_size)
        found = [self.predict_step(batches).numpy() for _ in range(steps)]
        return np.concatenate(found)[: source.split.size]


def train(given: Config) -> None:
    """Trains, or continues, the run of a configuration; then evaluates it and predicts the test."""
    run = RunDirectory(given.run_dir)
    run.check_usable()
    if given.tensorboard:
        board.check_tensorboard()
    check_backbone(given.backbone, image_size=given.image_size, alpha=given.alpha)
    devices = parts.choose_devices(given)
    config = parts.resolve(given, devices)
    if run.is_run():
        run.lock()
    if run.is_run() and not given.overwrite:
        config = _as_begun(run, given, config, devices)
        if run.has(_SCORES):
            progress.say(f"{run.path} is finished; --overwrite begins anew.")
            # Left out before, or killed while it was drawn.
            if config.report and not run.has(reporting.REPORT):
                with Interruption() as interruption:
                    reporting.report(config, run, {}, interruption)
            console.print_scores(run, run.read_json(_SCORES))
            return
    data = parts.load_data(config)
    feed.check_cache(config, devices.strategy, data.splits["train"], data.splits["val"])
    plan = parts.make_plan(config, data)
    state = parts.make_state(config, devices.strategy, plan)
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
        # The scores come after all other results: they tell that a run is finished.
        run.write_json(_SCORES, score_splits(job, interruption))
        reporting.report(config, run, data.splits, interruption)
    console.print_scores(run, run.read_json(_SCORES))


def evaluate(given: Config) -> None:
    """Scores the best model of a run on train and validation, writes the tables and the report."""
    job = _open_run(given, records.LABELED_SPLITS, trained_only=True)
    with Interruption() as interruption, job.naming_bad_records():
        job.run.write_json(_SCORES, score_splits(job, interruption))
        reporting.report(job.config, job.run, job.data.splits, interruption)
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
    with quiet.without_chatter():
        tf.config.list_logical_devices()  # starts TensorFlow
    folder = parts.data_folder(config)
    report = check.check(folder, config.image_size, len(parts.class_names(config, folder)))
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


def _list_bad_records(
    config: Config, run: RunDirectory, data: parts.Data, *, as_begun: bool
) -> None:
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
    """Returns the configuration with what a run's numbers depend on as it began."""
    run_directory.check_same_flags(run, given, config)
    _, begun = run.read_configs()
    if config.global_batch_size != begun.global_batch_size:
        progress.say(f"Keeping the global batch of {begun.global_batch_size} this run began with.")
    kept = dataclasses.replace(
        config,
        global_batch_size=begun.global_batch_size,
        precision=begun.precision,
        augment_on=begun.augment_on,
    )
    return parts.resolve(kept, devices)


def _open_run(given: Config, splits: tuple[str, ...], *, trained_only: bool = False) -> Job:
    """Opens a run for evaluation; with `trained_only` refuses one whose training has not ended.

    Devices, place of the data, batch and precision may be others than in training.
    """
    run = RunDirectory(given.run_dir)
    trained, resolved = run.read_configs()
    run.lock()
    if trained_only:
        _check_trained(run, trained)
    free = set(reporting.EVALUATION_FLAGS)
    if changed := set(config_lib.changed_flags(trained, given)) - free:
        raise RequestError(
            f"--{min(changed)} cannot differ from that of the run in --run_dir={run.path}; "
            f"only devices, {', '.join(sorted(f'--{name}' for name in free))} can"
        )
    if given.precision == "auto":
        given = dataclasses.replace(given, precision=resolved.precision)
    devices = parts.choose_devices(given)
    config = parts.resolve(given, devices)
    data = parts.load_data(config, splits)
    _list_bad_records(config, run, data, as_begun=False)
    empty = dataclasses.replace(config, weights="none")  # the checkpoint fills every weight
    with devices.strategy.scope():
        classifier = parts.make_classifier(empty, len(data.class_names))
    if not restore_best_weights(files.join(run.checkpoints, "best"), classifier):
        raise RequestError(
            f"--run_dir={run.path}: has no best checkpoint: only epochs of fine-tuning make one. "
            "scripts/train.py continues a run that is not finished"
        )
    return Job(config, devices, data, classifier, run)


def _check_trained(run: RunDirectory, config: Config) -> None:
    """Raises RequestError where training has not ended: scores say of a run that it is finished."""
    history = run.read_table("history.csv").to_dict("records") if run.has("history.csv") else []
    if not loop.finished(config, history):  # a Config calls these numbers as a Plan does
        raise RequestError(
            f"--run_dir={run.path}: its training has not ended ({len(history)} of at most "
            f"{config.warmup_epochs + config.epochs} epochs are done); scripts/train.py with the "
            "same flags continues the run, and scores it at its end"
        )


def _fit(
    job: Job, plan: loop.Plan, state: TrainState, checkpoints: Checkpoints,
    interruption: Interruption,
) -> None:  # fmt: skip
    strategy, config = job.devices.strategy, job.config
    train, val = job.data.splits["train"], job.data.splits["val"]
    # Made when first needed: what is trained already, and only to be scored, fills no cache.
    sources = functools.cache(lambda: feed.train_and_val_sources(config, train, val))
    val_batches = functools.cache(lambda: feed.eval_batches(config, strategy, sources()[1]))
    eval_steps = compiled.compile_eval_steps(strategy, job.classifier.model)

    def validate() -> dict[str, float]:
        with progress.bar(val.size, "validation") as bar:
            sums = loop.evaluate(
                eval_steps,
                feed.iterate(val_batches()),
                pipeline.eval_steps(val.size, plan.global_batch_size),
                plan.num_classes,
                on_steps=lambda n: bar.update(n * plan.global_batch_size),
                interruption=interruption,
            )
        watched.on_validation(sums["confusion"])
        return metrics.scores(sums)

    def on_epoch(history: list[dict], times: dict[str, float]) -> None:
        times = {**times, "val_images_per_second": val.size / times["val_seconds"]}
        job.run.write_table("history.csv", pd.DataFrame(history))
        past = job.run.read_table("timing.csv") if job.run.has("timing.csv") else pd.DataFrame()
        job.run.write_table("timing.csv", pd.concat([past, pd.DataFrame([times])]))
        console.print_epoch(plan, history, times)
        watched.on_epoch(history, times)

    pictures = live.Pictures(
        val, config.image_size, job.data.class_names, config.seed, predict=job.logits_of_few
    )
    with live.Live(config, job.run, plan, state, pictures) as watched:
        loop.fit(
            plan=plan,
            state=state,
            checkpoints=checkpoints,
            train_steps=lambda stage: compiled.compile_train_steps(
                strategy,
                state,
                stage,
                plan.seed,
                plan.objective,
                feed.augment_on_device(config),
                skips_bad_steps=plan.on_nan == "skip",
            ),
            train_iterator=lambda step: feed.iterate(
                feed.train_batches(config, strategy, sources()[0], plan, step)
            ),
            validate=validate,
            on_steps=watched.on_steps,
            on_epoch=on_epoch,
            ids_of_step=functools.partial(feed.ids_of_step, config, train),
            interruption=interruption,
            stops=watched.stops,
        )
    # A run that was killed between its last checkpoint and this table is finished all the same.
    job.run.write_table("history.csv", pd.DataFrame(state.progress.history))
