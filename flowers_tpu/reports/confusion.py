"""What is taken for what: confusion matrices as heatmaps, and the most confused pairs."""

import itertools

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from flowers_tpu.reports import style

PART_SIZE = 35  # classes; about as many as can be read at once
_MOST_AT_ONCE = 40  # classes that need no parts
_MOST_OTHERS = 8  # columns of a part for classes outside of it
_REST = "(all others)"


def shares(matrix: pd.DataFrame) -> pd.DataFrame:
    """Returns each row divided by its sum; NaN where a class has no photo.

    Args:
        matrix: counts; rows are the truth, columns the prediction.
    """
    sums = matrix.sum(axis=1)
    return matrix.div(sums.where(sums > 0), axis=0)


def parts(num_classes: int) -> list[slice]:
    """Returns the rows of each part: about 35 classes, nearly equal; none where all fit in one."""
    if num_classes <= _MOST_AT_ONCE:
        return []
    count = -(-num_classes // PART_SIZE)
    bounds = [number * num_classes // count for number in range(count + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]


def part(matrix: pd.DataFrame, rows: slice) -> pd.DataFrame:
    """Returns the shares of some classes' rows, with just the columns that tell something.

    The columns are these classes, then those of the other classes that they are taken for most
    (at most 8, the most frequent first), and last the sum of all others: a row still sums to 1.

    Args:
        matrix: counts; rows are the truth, columns the prediction.
        rows: of the part.
    """
    chosen = shares(matrix).iloc[rows]
    own = chosen.iloc[:, rows]
    others = chosen.drop(columns=own.columns)
    frequency = others.sum().sort_values(ascending=False, kind="stable")
    names = list(frequency[frequency > 0].index[:_MOST_OTHERS])
    rest = others.drop(columns=names).sum(axis=1, skipna=False)
    return pd.concat([own, others[names], rest.rename(_REST)], axis=1)


def heatmap(part: pd.DataFrame, title: str) -> Figure:
    """Returns shares as a heatmap, the truth down and the prediction across.

    Up to 50 columns, percentages stand in the cells. The colours tell small shares apart: they
    follow the square root. Rows of classes without photos are grey.

    Args:
        part: see `shares` and `part`.
        title: of the figure.
    """
    num_rows, num_columns = part.shape
    written = num_columns <= 50
    cell = np.clip(4 / num_columns, 0.21 if written else 0.125, 0.8)  # inches
    size = 8 if written else 6  # of the labels, points
    label = max(style.text_width(str(name), size) for name in (*part.index, *part.columns))
    width = max(num_columns * cell + label + 1.5, style.text_width(title, 12) + 0.6)
    drawn, axes = style.figure(width, num_rows * cell + label + 0.9)
    values = part.to_numpy(float)
    colors = colormaps["Blues"].with_extremes(bad="#CCCCCC")
    # The figure is sized for square cells; forcing them would push title and labels over its edge.
    shades = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(values, cmap=colors, norm=shades, aspect="auto")
    axes.set_title(style.plain(title))
    axes.set(xlabel="predicted class", ylabel="true class")
    how = {"fontsize": size, "parse_math": False}
    axes.set_xticks(range(num_columns), part.columns, rotation=90, **how)
    axes.set_yticks(range(num_rows), part.index, **how)
    axes.tick_params(length=2)
    _draw_grid(axes, part)
    if written:
        _write_percentages(axes, values, size=min(9, 30 * cell))
    bar = drawn.colorbar(image, ax=axes, shrink=min(1, 4 / (num_rows * cell)), pad=0.01)
    bar.set_label("share of the true class's photos")
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    return drawn


def most_confused(matrix: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """Returns the pairs of classes confused most often, the most frequent first.

    Columns: `true`, `predicted` (names), `count` (photos of the one taken for the other) and
    `share` (of the true class's photos). Equal counts are ordered by share, then as in the matrix.

    Args:
        matrix: counts; rows are the truth, columns the prediction.
        count: most pairs.
    """
    counts = matrix.to_numpy().copy()
    np.fill_diagonal(counts, 0)
    true, predicted = np.nonzero(counts)
    pairs = pd.DataFrame(
        {
            "true": matrix.index.to_numpy()[true],
            "predicted": matrix.columns.to_numpy()[predicted],
            "count": counts[true, predicted],
            "share": shares(matrix).to_numpy()[true, predicted],
        }
    )
    by = ["count", "share"]
    return pairs.sort_values(by, ascending=False, kind="stable", ignore_index=True)[:count]


def typical(train: pd.DataFrame) -> dict[str, int]:
    """Returns, for each class by name, its training photo with the lowest loss, as a row label."""
    return dict(train.dropna(subset="loss").groupby("name")["loss"].idxmin())


def confused_photos(table: pd.DataFrame, true: str, predicted: str, count: int) -> list[int]:
    """Returns the row labels of photos of one class taken for another, the surest first."""
    mistaken = (table["name"] == true) & (table["predicted_name"] == predicted)
    return list(table[mistaken].sort_values("confidence", ascending=False).index[:count])


def _draw_grid(axes: Axes, part: pd.DataFrame) -> None:
    """Draws thin lines between the cells, and one between a part's classes and the others."""
    num_rows, num_columns = part.shape
    how = {"color": "#DDDDDD", "linewidth": 0.4}
    axes.hlines(np.arange(1, num_rows) - 0.5, -0.5, num_columns - 0.5, **how)
    axes.vlines(np.arange(1, num_columns) - 0.5, -0.5, num_rows - 0.5, **how)
    if num_columns > num_rows:
        axes.axvline(num_rows - 0.5, color=style.GREY, linewidth=1.5)


def _write_percentages(axes: Axes, values: np.ndarray, size: float) -> None:
    for row, column in np.argwhere(values >= 0.005):
        value = values[row, column]
        color = "white" if value > 0.3 else "black"
        axes.text(
            column, row, f"{value * 100:.0f}", ha="center", va="center", fontsize=size, color=color
        )
