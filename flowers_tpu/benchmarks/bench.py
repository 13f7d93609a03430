"""What every measurement takes, how it takes turns with a bar, and how it tells what it lacks."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf

from flowers_tpu.benchmarks import repeated, rounds
from flowers_tpu.benchmarks.options import Options
from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.options import Config
from flowers_tpu.runs import recipe
from flowers_tpu.system import terminal
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all measurements take.

    Attributes:
        config: resolved.
        options: the benchmark's own.
        devices: what runs it.
        data: the training split, and the validation split where there is one.
        contexts: left when all is measured.
    """

    config: Config
    options: Options
    devices: Devices
    data: recipe.Data
    contexts: contextlib.ExitStack

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """What runs the steps."""
        return self.devices.strategy

    @functools.cached_property
    def large_data(self) -> str:
        """The folder of `--many_photos` photos, written once for all that take them."""
        return self.contexts.enter_context(repeated.repeated(self.data, self.options.many_photos))

    def can_start_processes(self, measure: str) -> bool:
        """Whether processes beside this one can have the devices too; tells where they cannot."""
        if self.devices.kind == "TPU":
            leave_out(measure, "it starts a process, and this one has the TPU")
        return self.devices.kind != "TPU"

    def rates(self, title: str, sides: Sequence[Side]) -> dict[str, list[float]]:
        """Returns the photos/s of each side in each round; see `rounds.measure`."""
        options = self.options
        with terminal.bar((options.rounds + 1) * len(sides), title, "turns") as bar:
            return rounds.measure(
                sides,
                rounds=options.rounds,
                seconds=options.seconds_per_round,
                on_turn=_shown(bar),
            )

    def seconds(self, title: str, turns: Mapping[str, Callable[[], float]]) -> dict:
        """Returns the seconds of each turn in each round, after one that is not counted."""
        with terminal.bar((self.options.rounds + 1) * len(turns), title, "turns") as bar:
            values = rounds.alternate(turns, self.options.rounds + 1, _shown(bar))
        return {name: series[1:] for name, series in values.items()}


def leave_out(what: str, reason: object) -> None:
    """Tells that something is not measured."""
    terminal.say(f"{what} is left out: {reason}")


@contextlib.contextmanager
def leaving_out(what: str) -> Iterator[None]:
    """Leaves out, and tells so, what is refused within: what does not fit into memory."""
    try:
        yield
    except RequestError as error:
        leave_out(what, error)


def say_ignored(side: str, config: Config, follows: Mapping[str, Sequence]) -> None:
    """Tells which flags a side does not follow.

    Args:
        side: its name.
        config: resolved.
        follows: of the flags that it may ignore, the values with which it does the same all the
            same.
    """
    ignored = [
        f"--{name}={getattr(config, name)}"
        for name, values in follows.items()
        if getattr(config, name) not in values
    ]
    if ignored:
        terminal.say(f"{side} goes without {', '.join(ignored)}")


def _shown(bar: terminal.Bar) -> Callable[[str], None]:
    """Moves a bar on at the beginning of each turn."""
    begun = []

    def on_turn(name: str) -> None:
        bar.set_postfix(side=name)
        bar.update(1 if begun else 0)
        begun.append(name)

    return on_turn
