"""How results are shown and kept: lines for a terminal, CSV, JSON.

*About* is what is to be known of a benchmark besides its results: `environment` (see
`runs/environment.py`), `flags` and `options`.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from flowers_tpu.benchmarks.results import Change, Row
from flowers_tpu.system import files
from flowers_tpu.system.errors import RequestError

MADE_BY = "flowers_tpu benchmark"

# What of an environment results depend on, and which flags they do not.
_ENVIRONMENT = ("git_commit", "python", "processor", "cores", "device_kind", "replicas")
_OF_NO_MATTER = (
    *("run_dir", "overwrite", "output_dir", "compare_to", "measure", "against", "torch_python"),
)


def lines(rows: Sequence[Row]) -> list[str]:
    """A line per row under a heading per group: median, quartiles, unit."""
    names = [row.name for row in rows]
    width = max(map(len, names), default=0)
    found = []
    for group, members in itertools.groupby(rows, key=lambda row: row.group):
        found += ["", f"{group:<{width + 2}}{'median':>10}  {'quartiles':^21}"]
        for row in members:
            low, high = map(number, row.quartiles)
            spread = f"{low:>10} {high:>10}" if len(row.values) > 1 else ""
            found.append(f"  {row.name:<{width}}{number(row.median):>10}  {spread:<21}  {row.unit}")
    return found


def comparison_lines(changes: Sequence[Change]) -> list[str]:
    """A line per row that an earlier benchmark has too: both medians and their ratio."""
    if not changes:
        return ["It has nothing that was measured now."]
    width = max(len(f"{change.row.group}: {change.row.name}") for change in changes)
    found = [f"{'':<{width}} {'before':>10} {'now':>10} {'ratio':>9}"]
    for change in changes:
        row, before = change.row, change.before
        slower = "  SLOWER by more than the noise" if change.is_slower else ""
        found.append(
            f"{f'{row.group}: {row.name}':<{width}} {number(before.median):>10}"
            f" {number(row.median):>10} {change.ratio:>9.3f}  {row.unit}{slower}"
        )
    return found


def difference_lines(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each flag, version and property of the machine that differs.

    Args:
        before: about an earlier benchmark.
        now: about this one.
    """
    then, today = _facts(before), _facts(now)
    return [
        f"{name} was {then.get(name)}, is {today.get(name)}"
        for name in {**then, **today}
        if then.get(name) != today.get(name)
    ]


def number(value: float) -> str:
    """A number as it is read easily: at least three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.{1 if abs(value) >= 10 else 3}f}"


def as_csv(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """A line per row: group, name, unit, median, quartiles, number of rounds; and its origin."""
    environment = about["environment"]
    origin = {
        "commit": environment["git_commit"] or "",
        "processor": environment["processor"],
        "tensorflow": environment["packages"]["tensorflow"],
    }
    columns = ("group", "name", "unit", "median", "lower_quartile", "upper_quartile", "rounds")
    values = [(*row.key, row.median, *row.quartiles, len(row.values)) for row in rows]
    return pd.DataFrame(values, columns=columns).assign(**origin).to_csv(index=False)


def as_json(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """All rows with every round, and what is to be known about them."""
    listed = [
        {
            **dict(zip(("group", "name", "unit"), row.key, strict=True)),
            "median": row.median,
            "quartiles": row.quartiles,
            "rounds": row.values,
        }
        for row in rows
    ]
    return json.dumps({"made_by": MADE_BY, **about, "results": listed}, indent=2) + "\n"


def read_json(path: str) -> tuple[list[Row], dict[str, Any]]:
    """Reads a file that `as_json` made; returns the rows, and all that is about them.

    Raises:
        RequestError: there is no such file, or it is another.
    """
    try:
        content = json.loads(files.read_text(path))
        assert content["made_by"] == MADE_BY
        rows = [
            Row(row["group"], row["name"], row["unit"], tuple(row["rounds"]))
            for row in content.pop("results")
        ]
        return rows, content
    except Exception as error:
        raise RequestError(
            f"--compare_to={path}: expected the benchmark.json of an earlier benchmark "
            f"({type(error).__name__})"
        ) from error


def _facts(about: dict[str, Any]) -> dict[str, Any]:
    environment = about.get("environment", {})
    flags = {**about.get("flags", {}), **about.get("options", {})}
    return {
        **{f"--{name}": value for name, value in flags.items() if name not in _OF_NO_MATTER},
        **{name: environment.get(name) for name in _ENVIRONMENT},
        **environment.get("packages", {}),
    }
