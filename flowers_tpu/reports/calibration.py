"""Whether a model is as sure as it is right: reliability, calibration error, confidences."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flowers_tpu.reports import style

NUM_BINS = 15


def reliability(
    confidence: np.ndarray, right: np.ndarray, num_bins: int = NUM_BINS
) -> pd.DataFrame:
    """Sorts predictions by confidence into bins of equal width.

    Bin m of M holds the confidences in ((m - 1) / M, m / M]; the first one 0, too.

    Args:
        confidence: `[examples]` probabilities of the predicted classes.
        right: `[examples]` bool, whether the prediction is the truth.
        num_bins: bins.

    Returns:
        A row per bin: `lower` and `upper` (its edges), `count`, and the means `confidence` and
        `accuracy`, NaN where the bin is empty.
    """
    edges = np.arange(num_bins + 1) / num_bins
    number = np.searchsorted(edges[1:-1], confidence, side="left")
    frame = pd.DataFrame({"confidence": confidence, "accuracy": np.asarray(right, float)})
    means = frame.groupby(number).mean().reindex(range(num_bins))
    count = np.bincount(number, minlength=num_bins)
    edges = {"lower": edges[:-1], "upper": edges[1:], "count": count}
    return pd.DataFrame(edges).join(means)


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """Returns the ECE: the mean over all examples of |accuracy - confidence| of their bin.

    As in Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017,
    equation 3, with 15 bins of equal width.

    Args:
        bins: see `reliability`.
    """
    gaps = (bins["accuracy"] - bins["confidence"]).abs().fillna(0)
    return float((gaps * bins["count"]).sum() / bins["count"].sum())


def reliability_diagram(bins: pd.DataFrame, split: str) -> Figure:
    """Returns the accuracy of each bin over its confidence, with the diagonal of calibration.

    Args:
        bins: see `reliability`.
        split: whose predictions, for the title.
    """
    drawn, axes = style.figure(4.8, 4.2)
    used = bins[bins["count"] > 0]
    width = (bins["upper"] - bins["lower"]).iloc[0]
    axes.bar(
        used["lower"], used["accuracy"], width, align="edge", color=style.ACCENT,
        edgecolor="white", label="accuracy",
    )  # fmt: skip
    axes.plot(
        used["confidence"], used["accuracy"], "o", markersize=4, color=style.TRAIN,
        label="at the mean confidence",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "--", color=style.GREY, linewidth=1, label="calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    axes.grid(axis="y")
    axes.set_title(f"Reliability, {split}: ECE {expected_calibration_error(bins):.3f}")
    drawn.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False, borderaxespad=0)
    return drawn


def confidence_histogram(confidence: np.ndarray, right: np.ndarray, split: str) -> Figure:
    """Returns how many predictions there are by confidence, the right and the wrong ones stacked.

    Args:
        confidence: `[examples]` probabilities of the predicted classes.
        right: `[examples]` bool, whether the prediction is the truth.
        split: whose predictions, for the title.
    """
    drawn, axes = style.figure(4.8, 4.2)
    right = np.asarray(right, bool)
    axes.hist(
        [confidence[right], confidence[~right]],
        bins=np.arange(NUM_BINS + 1) / NUM_BINS,
        stacked=True,
        color=[style.RIGHT, style.WRONG],
        edgecolor="white",
        linewidth=0.2,
        label=[f"right ({right.sum():,})", f"wrong ({(~right).sum():,})"],
    )
    mean = float(np.mean(confidence))
    axes.axvline(mean, color=style.GREY, linestyle="--", label=f"mean confidence: {mean:.3f}")
    axes.set(xlim=(0, 1), xlabel="confidence", ylabel="photos", title=f"Confidence, {split}")
    axes.grid(axis="y")
    drawn.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False, borderaxespad=0)
    return drawn
