"""Several runs beside one another: scores, flags that differ, curves."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from flowers_tpu.reports import curves, style

_COLORS = (style.TRAIN, style.VAL, style.RIGHT, style.WRONG, style.TEST, style.ACCENT)
_LINES = ("-", "--", ":", "-.")
_TIMES = ["train_seconds", "val_seconds"]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run has left so far.

    Attributes:
        name: of the run, unlike all others.
        flags: resolved, by name.
        history: a row per epoch; empty before the first has ended.
        timing: a row per epoch, as `timing.csv`; empty likewise.
        scores: `scores.json`; None before the run is finished.
    """

    name: str
    flags: Mapping[str, Any]
    history: pd.DataFrame
    timing: pd.DataFrame
    scores: Mapping[str, Mapping[str, float]] | None


def names(paths: Sequence[str]) -> list[str]:
    """Returns short names for runs: the ends of their paths, as long as it takes to differ.

    Args:
        paths: all different.
    """
    ends = [path.rstrip("/").split("/") for path in paths]
    for length in range(1, max(map(len, ends)) + 1):
        found = ["/".join(end[-length:]) for end in ends]
        if len(set(found)) == len(found):
            return found
    return list(paths)


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns a row per run, labeled with its name.

    Columns: `state` (`finished`, or how far it is), `epochs` (done), `best` (epoch), then, of the
    best weights, `val loss`, `val acc`, `val F1`, `train F1`; and `minutes` (of training and
    validation). An unfinished run's scores are those of its best epoch so far, where `train F1` is
    that of training, not of an evaluation, and is left out.
    """
    rows = {}
    for run in runs:
        best = curves.best_epoch(run.history) if len(run.history) else None
        rows[run.name] = {
            "state": _state(run),
            "epochs": len(run.history),
            "best": "–" if best is None else best,
            **_scores(run, best),
            "minutes": run.timing[_TIMES].sum().sum() / 60 if len(run.timing) else 0.0,
        }
    return pd.DataFrame(rows).T.infer_objects()


def differing_flags(runs: Sequence[Run], ignored: Sequence[str] = ()) -> pd.DataFrame:
    """Returns the flags that are not the same in all runs: a row per flag, a column per run.

    Args:
        runs: to compare.
        ignored: flags that are left out.
    """
    frame = pd.DataFrame({run.name: pd.Series(dict(run.flags), dtype=object) for run in runs})
    frame.index = [f"--{name}" for name in frame.index]
    frame = frame.drop(index=[f"--{name}" for name in ignored], errors="ignore")
    frame = frame.map(lambda value: "–" if pd.isna(value) else str(value))
    return frame[frame.nunique(axis=1) > 1]


def validation_curves(runs: Sequence[Run]) -> Figure:
    """Returns validation loss and macro F1 per epoch, a line for each run, its best epoch starred.

    Args:
        runs: those without an epoch have no line.
    """
    drawn, panels = style.figure(9, 4.2, ncols=2)
    for panel, metric in zip(panels, ("loss", "macro_f1"), strict=True):
        title, unit = curves.METRICS[metric]
        styles = itertools.cycle(itertools.product(_LINES, _COLORS))
        for run, (line, color) in zip(runs, styles, strict=False):
            if not len(run.history):
                continue
            epochs, values = run.history["epoch"], run.history[f"val_{metric}"]
            label = style.plain(run.name) if metric == "loss" else None
            panel.plot(epochs, values, line, color=color, label=label, marker=".", markersize=4)
            if (best := curves.best_epoch(run.history)) is not None:
                panel.plot(
                    best, values[epochs == best].iloc[0], "*", markersize=12, color=color,
                    markeredgecolor="white",
                )  # fmt: skip
        curves.epochs_axis(panel, 1, max(1, *(len(run.history) for run in runs)))
        panel.set_title(f"{title}, validation")
        panel.set_ylabel(unit)
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1.02)
    if panels[0].lines:
        drawn.legend(
            loc="outside lower center", ncols=2, fontsize=9, frameon=False, borderaxespad=0
        )
    return drawn


def _state(run: Run) -> str:
    if run.scores is not None:
        return "finished"
    planned = int(run.flags["warmup_epochs"]) + int(run.flags["epochs"])
    return f"unfinished ({len(run.history)} of {planned})"


def _scores(run: Run, best: int | None) -> dict[str, object]:
    if run.scores is not None:
        val, train_f1 = run.scores.get("val", {}), run.scores["train"]["macro_f1"]
        values = (*map(val.get, ("loss", "accuracy", "macro_f1")), train_f1)
    elif best is not None:
        row = run.history[run.history["epoch"] == best].iloc[0]
        values = (row["val_loss"], row["val_accuracy"], row["val_macro_f1"], None)
    else:
        values = (None,) * 4
    return dict(zip(("val loss", "val acc", "val F1", "train F1"), values, strict=True))
