"""What every measurement takes, and how it takes turns with a bar that shows them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from flowers_tpu import parts, progress
from flowers_tpu.benchmarks import rounds
from flowers_tpu.benchmarks.options import Options
from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.config import Config
from flowers_tpu.distribution import Devices


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all measurements take.

    Attributes:
        config: resolved.
        options: the benchmark's own.
        devices: what runs it.
        data: the training split, and the validation split where there is one.
    """

    config: Config
    options: Options
    devices: Devices
    data: parts.Data

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """What runs the steps."""
        return self.devices.strategy

    def rates(self, title: str, sides: Sequence[Side]) -> dict[str, list[float]]:
        """Returns the photos/s of each side in each round; see `rounds.measure`."""
        options = self.options
        with progress.bar((options.rounds + 1) * len(sides), title, "turns") as bar:
            return rounds.measure(
                sides,
                rounds=options.rounds,
                seconds=options.seconds_per_round,
                on_turn=_shown(bar),
            )

    def seconds(self, title: str, turns: Mapping[str, Callable[[], float]]) -> dict:
        """Returns the seconds of each turn in each round, after one that is not counted."""
        with progress.bar((self.options.rounds + 1) * len(turns), title, "turns") as bar:
            values = rounds.alternate(turns, self.options.rounds + 1, _shown(bar))
        return {name: series[1:] for name, series in values.items()}


def _shown(bar: progress.Bar) -> Callable[[str], None]:
    """Moves a bar on at the beginning of each turn."""
    begun = []

    def on_turn(name: str) -> None:
        bar.set_postfix(side=name)
        bar.update(1 if begun else 0)
        begun.append(name)

    return on_turn
