"""What the labels of a data set are like, and what a recipe's learning rate does."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

from flowers_tpu.reports import style

_SIMULATIONS = 2000
_NAME_SIZE, _COUNT_SIZE = 8, 7  # points
_GUTTER, _LEAST_LINES = " " * 4, 10  # of the table of classes
_ROW = 0.155  # inches per class: what a name of 8 points wants


def class_counts(labels: Mapping[str, np.ndarray], class_names: Sequence[str]) -> pd.DataFrame:
    """Returns a row per class: `label`, `class`, and the number of photos in each labeled split.

    Args:
        labels: by the split's name, `[examples]` int each.
        class_names: by label.
    """
    table = pd.DataFrame({"label": range(len(class_names)), "class": list(class_names)})
    for split, values in labels.items():
        table[split] = np.bincount(values, minlength=len(class_names))
    return table


def counts_text(counts: pd.DataFrame, width: int = 100) -> str:
    """Returns the counts as lines of text; those of many classes in blocks side by side.

    Args:
        counts: of `class_counts`.
        width: of the lines, characters.
    """
    padded = []
    for name, values in counts.items():
        cells = [name, *map(str, values)]
        pad, longest = str.ljust if name == "class" else str.rjust, max(map(len, cells))
        padded.append([pad(cell, longest) for cell in cells])
    header, *lines = map("  ".join, zip(*padded, strict=True))
    blocks = max(1, (width + len(_GUTTER)) // (len(header) + len(_GUTTER)))
    height = max(_LEAST_LINES, -(-len(lines) // blocks))
    columns = [[header, *lines[begin : begin + height]] for begin in range(0, len(lines), height)]
    rows = itertools.zip_longest(*columns, fillvalue="")
    return "\n".join(_GUTTER.join(row).rstrip() for row in rows)


def imbalance(counts: np.ndarray) -> dict[str, float]:
    """Returns how unevenly photos are spread over classes.

    Args:
        counts: photos by label, `[classes]` int, not all 0.

    Returns:
        `largest` and `smallest` count of the classes that have photos, their `ratio`,
        `effective_classes` (the exponential of the entropy: as many classes of equal size would be
        as diverse) and `absent` (classes without photos).
    """
    present = counts[counts > 0]
    shares = present / present.sum()
    return {
        "largest": int(present.max()),
        "smallest": int(present.min()),
        "ratio": float(present.max() / present.min()),
        "effective_classes": float(np.exp(-np.sum(shares * np.log(shares)))),
        "absent": int(np.sum(counts == 0)),
    }


class Comparison(NamedTuple):
    """How far the label distributions of two splits are apart, and how far chance alone puts them.

    Attributes:
        total_variation: half the sum of the absolute differences of the classes' shares, 0 to 1.
        chance_mean: its mean where the same photos are dealt out to the two splits at random.
        chance_low: what chance stays below once in 20 times.
        chance_high: what it exceeds once in 20 times.
    """

    total_variation: float
    chance_mean: float
    chance_low: float
    chance_high: float

    def __str__(self) -> str:
        low, mean, high = (
            f"{value:.3f}" for value in (self.chance_low, self.chance_mean, self.chance_high)
        )
        chance = f"chance alone gives {mean} (9 times in 10: {low} to {high}) for so many photos"
        if self.total_variation > self.chance_high:
            verdict = "the labels are distributed differently"
        elif self.total_variation < self.chance_low:
            verdict = "more alike than by chance, as where splits are made class by class"
        else:
            verdict = "no sign of a difference"
        return (
            f"total variation distance {self.total_variation:.3f}: {self.total_variation:.1%} of "
            "the photos of one would have to change class to give the distribution of the other; "
            f"{chance}: {verdict}"
        )


def compare(first: np.ndarray, second: np.ndarray, *, seed: int) -> Comparison:
    """Compares the label distributions of two splits, by a permutation test.

    Args:
        first: photos by label, `[classes]` int, not all 0.
        second: likewise, of the other split.
        seed: of the simulation.
    """
    both = first + second
    generator = np.random.default_rng(seed)
    dealt = generator.multivariate_hypergeometric(
        both, second.sum(), size=_SIMULATIONS, method="marginals"
    )
    chance = _total_variation(both - dealt, dealt)
    low, high = np.quantile(chance, (0.05, 0.95))
    return Comparison(
        float(_total_variation(first, second)), float(chance.mean()), float(low), float(high)
    )


def _total_variation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of counts `[..., classes]`."""
    shares = (counts / counts.sum(axis=-1, keepdims=True) for counts in (first, second))
    return np.abs(np.subtract(*shares)).sum(axis=-1) / 2


def plot_labels(counts: pd.DataFrame) -> Figure:
    """Plots the number of photos of every class as bars, in the order of the labels from the top.

    Beside the bars of validation, a mark shows how many its class would have with the shares of
    train.

    Args:
        counts: of `class_counts`.
    """
    splits = [split for split in style.SPLITS if split in counts]
    rows = np.arange(len(counts))
    drawn, axes = style.figure(
        2.2 + 3.9 * len(splits),
        1.6 + _ROW * len(counts),
        ncols=len(splits),
        sharey=True,
        squeeze=False,
    )
    for panel, split in zip(axes[0], splits, strict=True):
        bars = panel.barh(rows, counts[split], height=0.75, color=style.SPLITS[split])
        most = counts[split]
        if split == "val" and "train" in counts:
            expected = counts["train"] / counts["train"].sum() * counts["val"].sum()
            panel.plot(
                expected, rows, "|", color="black", markersize=7, label="with the shares of train"
            )
            panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize=8)
            most = np.maximum(counts["val"], expected)
        for bar, count, end in zip(bars, counts[split], most, strict=True):
            panel.annotate(
                f"{count:,}",
                (end, bar.get_y() + bar.get_height() / 2),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=_COUNT_SIZE,
            )
        panel.set_xlim(0, max(1, most.max()) * 1.12)
        panel.set_title(
            f"{split}: {counts[split].sum():,} photos", pad=22 if len(splits) > 1 else 6
        )
        panel.set_xlabel("photos")
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        panel.xaxis.grid(True)
    axes[0, 0].set_yticks(rows, map(style.plain, counts["class"]), fontsize=_NAME_SIZE)
    axes[0, 0].set_ylim(len(counts) - 0.4, -0.6)
    axes[0, 0].set_ylabel("class")
    return drawn


def rate_range(rates: np.ndarray) -> str:
    """Returns start, peak and end of a stage's rates in words, as the notebook prints them."""
    return f"{rates[0]:.3g} to {rates.max():.3g} to {rates[-1]:.3g}"


def split_stages(rates: np.ndarray, stages: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns the rates by stage.

    Args:
        rates: of all steps, `[steps]` float.
        stages: epochs of each stage that has any, in order.
    """
    ends = np.cumsum(list(stages.values())) * (len(rates) // sum(stages.values()))
    return dict(zip(stages, np.split(rates, ends[:-1]), strict=True))


def plot_learning_rate(rates: np.ndarray, stages: Mapping[str, int], title: str) -> Figure:
    """Plots the rate of every step of a run, with start, peak and end of every stage.

    Args:
        rates: of all steps, `[steps]` float.
        stages: epochs of each stage that has any, in order.
        title: of the figure.
    """
    steps_per_epoch = len(rates) // sum(stages.values())
    drawn, axes = style.figure(9, 4.8)
    begin, peaks = 0, []
    for number, (name, part) in enumerate(split_stages(rates, stages).items()):
        end = begin + len(part)
        if number % 2 == 0:
            axes.axvspan(begin, end, color="#F2F2F2", lw=0)
        color = (style.VAL, style.TRAIN)[number % 2]
        axes.plot(
            np.arange(begin, end), part, color=color, lw=2, label=f"{name}: {rate_range(part)}"
        )
        marks = sorted({0, int(part.argmax()), len(part) - 1})
        axes.plot(begin + np.array(marks), part[marks], "o", color=color, ms=5, clip_on=False)
        begin, peaks = end, [*peaks, part.max()]
    if rates.min() > 0 and max(peaks) > 20 * min(peaks):
        axes.set_yscale("log")  # or the stage with the small rates would be a line at the bottom
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
    axes.set_xlim(0, len(rates))
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.grid(True)
    epochs = axes.secondary_xaxis(
        "top", functions=(lambda step: step / steps_per_epoch, lambda e: e * steps_per_epoch)
    )
    epochs.tick_params(labelsize=9)
    epochs.set_xlabel(f"epoch ({steps_per_epoch:,} steps each)")
    legend: dict[str, Any] = {"loc": "outside lower center", "ncols": len(stages)}
    drawn.legend(frameon=False, title="start to peak to end", **legend)
    drawn.suptitle(title)
    return drawn
