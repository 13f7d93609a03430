"""Many runs beside one another: a row for each, means over seeds, and a picture of both."""

import pandas as pd
from matplotlib.figure import Figure

from flowers_tpu.reports import style

_ROW = 0.38  # inches


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per recipe, in the order of `rows`, of those that have finished runs.

    Columns: `name`, `runs`, `macro_f1` (mean over the seeds), `sd` (standard deviation over them,
    of the sample; NaN of one), `low` and `high` (means of the bounds of the intervals, which are
    for the photos), `gain` (of the mean over that of the first recipe), `accuracy` and `minutes`
    (means).

    Args:
        rows: a row per run: `name`, `seed`, `macro_f1`, `low`, `high`, `accuracy`, `minutes`; the
            scores are NaN of a run that did not finish.
    """
    finished = rows.dropna(subset=["macro_f1"])
    groups = finished.groupby("name", sort=False)
    table = groups[["macro_f1", "low", "high", "accuracy", "minutes"]].mean()
    table.insert(0, "runs", groups.size())
    table.insert(2, "sd", groups["macro_f1"].std())
    first = rows["name"].iloc[0]
    base = table["macro_f1"].get(first, float("nan"))
    table.insert(5, "gain", table["macro_f1"] - base)
    return table.reset_index()


def markdown(table: pd.DataFrame) -> str:
    """Returns a `summary` as a table for a page of documentation."""
    lines = [
        "| recipe | runs | macro F1 | ± over seeds | 95 % interval | gain | accuracy | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        sd = "–" if pd.isna(row["sd"]) else f"{row['sd']:.4f}"
        gain = "–" if pd.isna(row["gain"]) else f"{row['gain']:+.4f}"
        lines.append(
            f"| {row['name']} | {row['runs']} | {row['macro_f1']:.4f} | {sd} "
            f"| {row['low']:.4f} to {row['high']:.4f} | {gain} | {row['accuracy']:.4f} "
            f"| {row['minutes']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def picture(rows: pd.DataFrame) -> Figure:
    """Returns the macro F1 of every recipe: its interval, its mean, and a dot for each seed.

    Args:
        rows: as for `summary`, with one finished run at least.
    """
    table = summary(rows)
    drawn, axes = style.figure(8, 1.2 + _ROW * len(table))
    places = range(len(table))
    axes.hlines(places, table["low"], table["high"], color=style.ACCENT, linewidth=6, alpha=0.45,
                label="95 % interval, by the photos")  # fmt: skip
    place = dict(zip(table["name"], places, strict=True))
    finished = rows.dropna(subset=["macro_f1"])
    axes.plot(finished["macro_f1"], finished["name"].map(place), "o", color=style.TRAIN,
              markersize=4, alpha=0.6, label="one seed")  # fmt: skip
    axes.plot(table["macro_f1"], places, "|", color="black", markersize=14, markeredgewidth=2,
              label="mean over seeds")  # fmt: skip
    axes.axvline(table["macro_f1"].iloc[0], color=style.GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(places, [style.plain(name) for name in table["name"]])
    axes.set_ylim(len(table) - 0.5, -0.5)  # the first at the top
    axes.set_xlabel("macro F1, validation")
    axes.grid(axis="x")
    drawn.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return drawn
