"""What a person reads on the terminal while a run goes on: lines, and bars that move."""

import math
from collections.abc import Sequence

import numpy as np
from absl import logging

from flowers_tpu.models.classifier import Classifier, parameter_counts
from flowers_tpu.monitor.watchers import Epoch, Watcher
from flowers_tpu.system import terminal
from flowers_tpu.system.terminal import note, say
from flowers_tpu.training.calls import Call, EvalCall
from flowers_tpu.training.history import Row
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import TrainState


class Lines(Watcher):
    """Prints a line for each epoch, and with `--verbosity=1` one for each compiled call."""

    def __init__(self, plan: Plan):
        self._plan = plan

    def on_call(self, call: Call) -> None:
        """Logs a call."""
        logging.debug(
            "step %d: loss of the epoch so far %.4f, gradient norm %.4g, %.0f images/s",
            *(call.step, call.loss, call.gradient_norm, call.images_per_second),
        )

    def on_epoch(self, epoch: Epoch) -> None:
        """Prints an epoch."""
        row, times = epoch.row, epoch.times
        best = "  best so far" if epoch.is_best and self._plan.validates else ""
        speed = times["train_images_per_second"]
        note(
            f"epoch {row['epoch']:>3}/{self._plan.schedule.total_epochs} {row['stage']:<8}  "
            f"rate {row['learning_rate']:.2e}  "
            f"train loss {row['loss']:.4f} acc {row['accuracy']:.4f} F1 {row['macro_f1']:.4f}  "
            f"{_validation(row) if self._plan.validates else 'no validation'}  "
            f"{times['train_seconds'] + times['val_seconds']:.0f} s, "
            f"{'–' if math.isnan(speed) else f'{speed:.0f}'} images/s{best}"
        )


class Bars(Watcher):
    """Shows how far an epoch is, then its validation; from before the first call, which compiles.

    Args:
        plan: of the run.
        val_photos: examples of the validation split.
        step: steps done when the run begins or continues.
        history: a row per finished epoch.
    """

    def __init__(self, plan: Plan, val_photos: int, step: int, history: Sequence[Row]):
        self._plan, self._val_photos = plan, val_photos
        self._step, self._history = step, history
        self._bar: terminal.Bar | None = None

    def __enter__(self) -> "Bars":
        if not self._plan.finished(self._history):
            self._open(len(self._history), self._step)
        return self

    def on_call(self, call: Call) -> None:
        """Moves the bar of the epoch on."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{call.loss:.4f}")
            self._bar.update(call.steps * self._plan.photos_per_step)
        if call.step % self._plan.steps_per_epoch == 0:
            self.close()
            self._open((call.step - 1) // self._plan.steps_per_epoch, call.step)

    def on_validation(self, call: EvalCall) -> None:
        """Moves the bar of the validation on."""
        parts = self._plan.training.accumulate_steps
        if self._bar is not None:
            self._bar.update(call.steps * self._plan.photos_per_step // parts)

    def on_epoch(self, epoch: Epoch) -> None:
        """Begins the next epoch."""
        self.close()
        if not epoch.is_last:
            self._open(epoch.row["epoch"], epoch.row["step"])

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _open(self, epoch: int, step: int) -> None:
        """Shows where an epoch is, counted from 0, after a step of the run."""
        plan, photos = self._plan, self._plan.photos_per_step
        done = step - epoch * plan.steps_per_epoch
        if done == plan.steps_per_epoch:
            if plan.validates:
                self._bar = terminal.bar(self._val_photos, "validation")
            return
        self._bar = terminal.bar(
            plan.steps_per_epoch * photos,
            f"epoch {epoch + 1}/{plan.schedule.total_epochs} {plan.schedule.stage(epoch)}",
            initial=done * photos,
        )


def print_plan(
    *,
    devices: str,
    arithmetic: str,
    data: str,
    photos: dict[str, int],
    photos_per_replica: int,
    model: str,
    run: str,
    plan: Plan,
    classifier: Classifier,
) -> None:
    """Prints the numbers of a run before it begins."""
    counts = parameter_counts(classifier)
    total = counts.features_total + counts.head_total
    parts = plan.training.accumulate_steps
    in_parts = f" in {parts} parts" if parts > 1 else ""
    rows = [
        ("devices", f"{devices}, global batch {plan.photos_per_step}, {arithmetic}"),
        ("data", data),
        ("photos", ", ".join(f"{size:,} {name}" for name, size in photos.items())),
        (
            "batch",
            f"{photos_per_replica} photos per replica{in_parts}, "
            f"{plan.steps_per_epoch:,} steps per epoch",
        ),
        ("model", f"{model}, {total:,} parameters"),
    ]
    for stage, epochs, trainable in (
        ("warm-up", plan.schedule.warmup_epochs, counts.head_trainable),
        ("fine-tuning", plan.schedule.epochs, counts.features_trainable + counts.head_trainable),
    ):
        if epochs:
            text = (
                f"{epochs} epochs, {_rates(plan, stage)}, {trainable:,} parameters trainable, "
                f"{total - trainable:,} frozen"
            )
            rows.append((stage, text))
    for name, text in [*rows, ("run", run)]:
        note(f"{name:>12}  {text}")


def print_layers(classifier: Classifier) -> None:
    """Prints the table of the model's layers."""
    for part in (classifier.features, classifier.head):
        part.summary(print_fn=say, expand_nested=True)


def print_resumed(plan: Plan, state: TrainState) -> None:
    """Prints where a run continues."""
    step, epochs = int(state.step.numpy()), len(state.progress.history)
    if plan.finished(state.progress.history):
        note(f"Training had ended after epoch {epochs}, step {step:,}.")
    else:
        note(f"Continuing in epoch {epochs + 1}, after step {step:,}.")


def print_scores(scores: dict[str, dict], folder: str, names: Sequence[str]) -> None:
    """Prints the scores of a run, and where its results are.

    Args:
        scores: by split.
        folder: of the results.
        names: of the files and folders in it.
    """
    say()
    say(f"{'':>8}{'photos':>9}{'loss':>9}{'accuracy':>10}{'top 5':>8}{'macro F1':>10}  95 % of it")
    for split, values in scores.items():
        numbers = (values[name] for name in ("loss", "accuracy", "top5_accuracy", "macro_f1"))
        shown = [math.nan if number is None else number for number in numbers]  # null in JSON
        bounds = [values.get(f"macro_f1_{bound}") for bound in ("low", "high")]
        interval = "" if None in bounds else f"  {bounds[0]:.3f} to {bounds[1]:.3f}"
        say(
            f"{split:>8}{values['examples']:>9,}{shown[0]:>9.4f}{shown[1]:>10.4f}"
            f"{shown[2]:>8.4f}{shown[3]:>10.4f}{interval}"
        )
    results = (
        "scores.json",
        "scores_test.json",
        "history.csv",
        "submission.csv",
        "plots",
        "report.html",
    )
    there = [name for name in results if name in names]
    tables = "classification_report_*.csv, confusion_*.csv, predictions_*.csv"
    say(f"\nIn {folder}: {', '.join(there)},\n{tables}")


def _validation(row: Row) -> str:
    return (
        f"val loss {row['val_loss']:.4f} acc {row['val_accuracy']:.4f} F1 {row['val_macro_f1']:.4f}"
    )


def _rates(plan: Plan, stage: str) -> str:
    warmup_steps = plan.schedule.warmup_epochs * plan.steps_per_epoch
    rates = plan.rates[:warmup_steps] if stage == "warm-up" else plan.rates[warmup_steps:]
    if np.ptp(rates) == 0:
        return f"rate {rates[0]:.3g}"
    return f"rate {rates[0]:.3g} to {rates.max():.3g} to {rates[-1]:.3g}"
