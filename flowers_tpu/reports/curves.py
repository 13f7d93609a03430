"""Curves over the epochs of a run: loss, accuracy, macro F1 and learning rate."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowers_tpu.reports import style
from flowers_tpu.training.history import best_row, of_version_0_1

# What can be drawn: the column of history.csv, the title and the axis.
METRICS = {
    "loss": ("Loss", "cross-entropy, nats"),
    "accuracy": ("Accuracy", "share of the photos"),
    "macro_f1": ("Macro F1", "mean F1 of the classes"),
    "learning_rate": ("Learning rate, at the end of each epoch", "learning rate"),
}

_STAGES = {"warmup": "warm-up", "finetune": "fine-tuning"}
_MOST_MARKERS = 40  # epochs; more would run into one another


def best_epoch(history: pd.DataFrame) -> int | None:
    """Returns the number of the epoch whose weights were kept; None if there is none."""
    best = best_row(of_version_0_1(history.to_dict("records")))
    return None if best is None else int(best["epoch"])


def curve(history: pd.DataFrame, metric: str) -> Figure:
    """Returns one metric per epoch, of training and validation, with stages and best epoch.

    Args:
        history: `history.csv`: a row per epoch.
        metric: a key of `METRICS`.
    """
    title, unit = METRICS[metric]
    drawn, axes = style.figure(4.8, 3.5)
    marker = "o" if len(history) <= _MOST_MARKERS else ""
    how = {"marker": marker, "markersize": 3, "linewidth": 1.5}
    if metric == "learning_rate":
        axes.plot(history["epoch"], history[metric], color=style.TRAIN, label="rate", **how)
    else:
        axes.plot(history["epoch"], history[metric], color=style.TRAIN, label="train", **how)
        validation = history[f"val_{metric}"]
        if validation.notna().any():
            axes.plot(history["epoch"], validation, color=style.VAL, label="validation", **how)
    _mark_stages(axes, history)
    _mark_best(axes, history, metric)
    _scale(axes, metric)
    axes.set_title(title)
    axes.set_ylabel(unit)
    drawn.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False, borderaxespad=0)
    return drawn


def epochs_axis(axes: Axes, first: float, last: float) -> None:
    """Shows the epochs from `first` to `last` along x, whole numbers only."""
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.grid(axis="y")


def _scale(axes: Axes, metric: str) -> None:
    if metric in ("accuracy", "macro_f1"):
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)


def _mark_stages(axes: Axes, history: pd.DataFrame) -> None:
    epochs_axis(axes, history["epoch"].min(), history["epoch"].max())
    stages = [stage for stage in _STAGES if (history["stage"] == stage).any()]
    if len(stages) == 1:
        axes.set_xlabel(f"epoch of {_STAGES[stages[0]]}")
        return
    last = history["epoch"][history["stage"] == "warmup"].max()
    begin, end = axes.get_xlim()
    tints = {"warmup": style.GREY, "finetune": "white"}
    for stage, low, high in (("warmup", begin, last + 0.5), ("finetune", last + 0.5, end)):
        axes.axvspan(
            low, high, facecolor=tints[stage], edgecolor=style.GREY, linewidth=0.5, alpha=0.18,
            zorder=0, label=_STAGES[stage],
        )  # fmt: skip


def _mark_best(axes: Axes, history: pd.DataFrame, metric: str) -> None:
    best = best_epoch(history)
    if best is None:
        return
    row = history[history["epoch"] == best].iloc[0]
    column = metric if metric == "learning_rate" else f"val_{metric}"
    if pd.isna(row[column]):  # nothing validates
        return
    label = f"best epoch: {best} ({row[column]:.3g})"
    axes.axvline(best, color=style.GREY, linestyle="--", linewidth=1, zorder=1)
    axes.plot(
        best, row[column], marker="*", markersize=11, linestyle="--", color=style.GREY,
        markerfacecolor=style.RIGHT, markeredgecolor="white", zorder=4, label=label,
    )  # fmt: skip
