"""The results as a picture: a panel of bars for every group of speeds and times."""

import itertools
from collections.abc import Sequence

from matplotlib.figure import Figure

from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.table import number
from flowers_tpu.reports import style

_UNITS = {"images/s": style.TRAIN, "s": style.VAL}
_BAR = 0.32  # inches
_HEAD = 0.9  # inches of a panel's title and axis


def draw(rows: Sequence[Row], footer: str) -> Figure | None:
    """Draws medians as bars, with the quartiles; None where there is nothing to compare."""
    panels = _panels(rows)
    if not panels:
        return None
    heights = [_HEAD + _BAR * len(members) for members in panels]
    drawn, axes = style.figure(
        9, sum(heights), nrows=len(panels), squeeze=False, height_ratios=heights
    )
    for axis, members in zip(axes[:, 0], panels, strict=True):
        medians = [row.median for row in members]
        below = [row.median - row.quartiles[0] for row in members]
        above = [row.quartiles[1] - row.median for row in members]
        names = [style.plain(row.name) for row in members]
        unit = members[0].unit
        bars = axis.barh(
            range(len(members)), medians, color=_UNITS[unit], xerr=(below, above), ecolor=style.GREY
        )
        axis.bar_label(bars, labels=[number(value) for value in medians], padding=6, fontsize=9)
        axis.set_yticks(range(len(members)), names)
        axis.invert_yaxis()
        axis.set_xlim(
            0, 1.12 * max(median + more for median, more in zip(medians, above, strict=True))
        )
        axis.set_title(style.plain(f"{members[0].group}, {unit}"), loc="left", fontsize=11)
    drawn.supxlabel(style.plain(footer), x=0.01, ha="left", fontsize=8, color=style.GREY)
    return drawn


def _panels(rows: Sequence[Row]) -> list[list[Row]]:
    chosen = [row for row in rows if row.unit in _UNITS]
    groups = itertools.groupby(chosen, key=lambda row: (row.group, row.unit))
    return [members for members in (list(group) for _, group in groups) if len(members) > 1]
