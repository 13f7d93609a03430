"""What a person reads while a run goes on."""

import math

import numpy as np

from flowers_tpu.config import Config
from flowers_tpu.distribution import Devices, describe
from flowers_tpu.models.classifier import Classifier, parameter_counts
from flowers_tpu.progress import note, say
from flowers_tpu.run_directory import RunDirectory
from flowers_tpu.training import loop
from flowers_tpu.training.state import TrainState


def print_plan(
    config: Config, devices: Devices, photos: dict[str, int], plan: loop.Plan,
    classifier: Classifier,
) -> None:  # fmt: skip
    """Prints the resolved numbers of a run."""
    counts = parameter_counts(classifier)
    rows = [
        (
            "devices",
            f"{describe(devices)}, global batch {plan.global_batch_size}, {config.precision}",
        ),
        ("data", f"{config.data_dir}, {plan.num_classes} classes, {config.image_size} px"),
        ("photos", ", ".join(f"{size:,} {name}" for name, size in photos.items())),
        (
            "batch",
            f"{config.batch_size_per_replica} photos per replica, "
            f"{plan.steps_per_epoch:,} steps per epoch",
        ),
        (
            "model",
            f"{config.backbone}, {counts.features_total + counts.head_total:,} parameters",
        ),
    ]
    for stage, epochs, trainable in (
        ("warm-up", plan.warmup_epochs, counts.head_trainable),
        ("fine-tuning", plan.epochs, counts.features_trainable + counts.head_trainable),
    ):
        if epochs:
            frozen = counts.features_total + counts.head_total - trainable
            rows.append(
                (
                    stage,
                    f"{epochs} epochs, {_rates(plan, stage)}, {trainable:,} parameters trainable, "
                    f"{frozen:,} frozen",
                )
            )
    rows.append(("run", config.run_dir))
    for name, text in rows:
        note(f"{name:>12}  {text}")
    if config.summary:
        for part in (classifier.features, classifier.head):
            part.summary(print_fn=say, expand_nested=True)


def print_resumed(plan: loop.Plan, state: TrainState) -> None:
    """Tells where a run continues."""
    step, epochs = int(state.step.numpy()), len(state.progress.history)
    if loop.finished(plan, state.progress.history):
        note(f"Training had ended after epoch {epochs}, step {step:,}.")
    else:
        note(f"Continuing in epoch {epochs + 1}, after step {step:,}.")


def print_epoch(plan: loop.Plan, history: list[dict], times: dict[str, float]) -> None:
    """Prints a line for the epoch that ended."""
    row = history[-1]
    best = "  best so far" if loop.best_row(plan, history) is row else ""
    speed = times["train_images_per_second"]
    note(
        f"epoch {row['epoch']:>3}/{plan.warmup_epochs + plan.epochs} {row['stage']:<8}  "
        f"rate {row['learning_rate']:.2e}  "
        f"train loss {row['loss']:.4f} acc {row['accuracy']:.4f} F1 {row['macro_f1']:.4f}  "
        f"val loss {row['val_loss']:.4f} acc {row['val_accuracy']:.4f} "
        f"F1 {row['val_macro_f1']:.4f}  "
        f"{times['train_seconds'] + times['val_seconds']:.0f} s, "
        f"{'–' if math.isnan(speed) else f'{speed:.0f}'} images/s{best}"
    )


def print_scores(run: RunDirectory, scores: dict[str, dict]) -> None:
    """Prints the scores of a finished run, and where its files are."""
    say()
    say(f"{'':>8}{'photos':>9}{'loss':>9}{'accuracy':>10}{'top 5':>8}{'macro F1':>10}")
    for split, values in scores.items():
        say(
            f"{split:>8}{values['examples']:>9,}{values['loss']:>9.4f}{values['accuracy']:>10.4f}"
            f"{values['top5_accuracy']:>8.4f}{values['macro_f1']:>10.4f}"
        )
    say()
    say(f"In {run.path}: scores.json, history.csv, classification_report_*.csv, confusion_*.csv,")
    predicted = ", submission.csv" if run.has("submission.csv") else ""
    drawn = ", plots/, report.html" if run.has("report.html") else ""
    say(f"predictions_*.csv{predicted}, checkpoints/best/{drawn}")
    if not predicted:
        say(f"scripts/predict.py --run_dir={run.path} writes the submission.")


def _rates(plan: loop.Plan, stage: str) -> str:
    warmup_steps = plan.warmup_epochs * plan.steps_per_epoch
    rates = plan.rates[:warmup_steps] if stage == "warm-up" else plan.rates[warmup_steps:]
    if np.ptp(rates) == 0:
        return f"rate {rates[0]:.3g}"
    return f"rate {rates[0]:.3g} to {rates.max():.3g} to {rates[-1]:.3g}"
