"""Photos with what the model takes them for: any, the worst, and the least certain ones."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flowers_tpu.reports import photos, style

COUNT = 9
_COLUMNS = 3


def random(table: pd.DataFrame, seed: int, count: int = COUNT) -> pd.DataFrame:
    """Returns some predictions by chance, always the same ones for a seed, in the table's order."""
    return table.sample(
        min(count, len(table)), random_state=np.random.RandomState(seed)
    ).sort_index()


def worst(table: pd.DataFrame, count: int = COUNT) -> pd.DataFrame:
    """Returns the predictions with the highest loss, the worst first; one that is NaN is worst."""
    return table.sort_values("loss", ascending=False, kind="stable", na_position="first")[:count]


def least_confident(table: pd.DataFrame, count: int = COUNT) -> pd.DataFrame:
    """Returns the predictions with the lowest confidence, the least certain first."""
    return table.sort_values("confidence", kind="stable", na_position="first")[:count]


def titles(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Returns what is written above the photos of predictions, and in which colours.

    With the truth known: the predicted name, where wrong in red and with `→ true name`. Otherwise
    the predicted name and its confidence.

    Args:
        table: with `predicted_name`, `confidence` and, where the truth is known, `name`; see
            `evaluation.predictions.table`.
    """
    predicted = table["predicted_name"]
    if "name" not in table:
        percent = (table["confidence"] * 100).map("{:.0f}%".format)
        return list(predicted + "\n" + percent), ["black"] * len(table)
    right = predicted == table["name"]
    texts = predicted.where(right, predicted + " → " + table["name"])
    return list(texts), list(np.where(right, "black", style.WRONG))


def sheet(table: pd.DataFrame, pixels: Sequence[np.ndarray], title: str) -> Figure:
    """Returns a sheet of photos titled with their predictions; see `titles`.

    Args:
        table: a row per photo.
        pixels: `[height, width, 3]` uint8 each.
        title: of the sheet.
    """
    texts, colors = titles(table)
    return photos.sheet(pixels, texts, columns=_COLUMNS, colors=colors, title=title)
