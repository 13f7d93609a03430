"""What was measured: rows of numbers per round, their medians and spreads, and ratios of them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from flowers_tpu.benchmarks import rounds
from flowers_tpu.benchmarks.rounds import Side


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that was measured.

    Attributes:
        group: what was measured together with it, in the same rounds.
        name: what it is.
        unit: of the values; `x` for ratios.
        values: one for each round; a single one if there were none.
    """

    group: str
    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """What no other row of a benchmark has."""
        return self.group, self.name, self.unit

    @property
    def median(self) -> float:
        """Of the rounds."""
        return float(np.median(self.values))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The spread: between them are the middle half of the rounds."""
        low, high = np.percentile(self.values, [25, 75])
        return float(low), float(high)


def rows(group: str, unit: str, values: Mapping[str, Sequence[float]]) -> list[Row]:
    """Makes a row of each named series of values."""
    return [Row(group, name, unit, tuple(series)) for name, series in values.items()]


def steps(rates: Mapping[str, Sequence[float]], sides: Sequence[Side]) -> dict[str, list[float]]:
    """Returns the steps/s of sides by their photos/s."""
    return {side.name: [rate / side.photos_per_step for rate in rates[side.name]] for side in sides}


def ratios(group: str, values: Mapping[str, Sequence[float]], base: str) -> list[Row]:
    """Each series but `base` over it, round by round."""
    return [ratio(group, values, name, base) for name in values if name != base]


def ratio(group: str, values: Mapping[str, Sequence[float]], name: str, base: str) -> Row:
    """One series over another, round by round."""
    each = rounds.per_round(lambda a, b: a / b, values[name], values[base])
    return Row(group, f"{name} / {base}", "x", tuple(each))


def time_ratio(group: str, rates: Mapping[str, Sequence[float]], name: str, base: str) -> Row:
    """The time of one side over that of another, by their rates, round by round."""
    each = rounds.per_round(lambda a, b: b / a, rates[name], rates[base])
    return Row(group, f"time of {name} / {base}", "x", tuple(each))


def efficiency(
    whole: Sequence[float], parts: Sequence[Sequence[float]], *, parts_share: bool
) -> list[float]:
    """How near a whole comes to what its parts allow, round by round.

    Args:
        whole: photos/s of the real loop.
        parts: photos/s of each of its parts alone.
        parts_share: whether the parts take turns on the same cores, so that the time of the whole
            is the sum of theirs; else they run beside each other, and the slowest one decides.
    """
    allowed = _in_turn if parts_share else min
    return rounds.per_round(lambda rate, *each: rate / allowed(*each), whole, *parts)


def _in_turn(*rates: float) -> float:
    return 1 / sum(1 / rate for rate in rates)


@dataclasses.dataclass(frozen=True)
class Change:
    """A row of an earlier benchmark beside the same one now.

    Attributes:
        row: now.
        before: then.
    """

    row: Row
    before: Row

    @functools.cached_property
    def ratio(self) -> float:
        """Median now over median then."""
        return self.row.median / self.before.median if self.before.median else float("nan")

    @property
    def is_slower(self) -> bool:
        """Whether by more than the noise: the fastest round now is slower than any round then."""
        now, then = self.row.values, self.before.values
        # One value has no noise that is known.
        return "/s" in self.row.unit and min(len(now), len(then)) > 1 and max(now) < min(then)


def changes(now: Sequence[Row], before: Sequence[Row]) -> list[Change]:
    """Pairs the rows that both benchmarks have."""
    earlier = {row.key: row for row in before}
    return [Change(row, earlier[row.key]) for row in now if row.key in earlier]
