"""What every measurement takes, how its sides take turns, and how it says what it leaves out."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from flowers_tpu.benchmarks import rounds
from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.runs.recipe import Data, Recipe
from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all measurements take.

    Attributes:
        recipe: of the run that is measured.
        options: the benchmark's own.
        data: the training split, and the validation split if there is one.
    """

    recipe: Recipe
    options: BenchmarkOptions
    data: Data

    def rates(self, title: str, sides: Sequence[Side]) -> dict[str, list[float]]:
        """Returns the photos/s of each side in each round; see `rounds.measure`."""
        options, turns = self.options, itertools.count()

        def on_turn(name: str) -> None:
            bar.set_postfix(side=name)
            bar.update(min(next(turns), 1))

        with terminal.bar((options.rounds + 1) * len(sides), title, "turns") as bar:
            return rounds.measure(
                sides, rounds=options.rounds, seconds=options.seconds_per_round, on_turn=on_turn
            )


Measure = Callable[[Bench], list[Row]]


def leave_out(what: str, reason: object) -> None:
    """Says that something is not measured."""
    terminal.say(f"{what} is left out: {reason}")


@contextlib.contextmanager
def leaving_out(what: str) -> Iterator[None]:
    """Leaves out, and says so, what is refused within: what does not fit into memory."""
    try:
        yield
    except RequestError as error:
        leave_out(what, error)


def say_ignored(side: str, recipe: Recipe, follows: Mapping[str, Sequence]) -> None:
    """Says which flags a side does not follow.

    Args:
        side: its name.
        recipe: of the run that is measured.
        follows: of the flags that it may ignore, the values with which it does the same all the
            same.
    """
    flags = recipe.spec.exactly(recipe.resolved).flat()
    ignored = [
        f"--{name}={flags[name]}" for name, values in follows.items() if flags[name] not in values
    ]
    if ignored:
        terminal.say(f"{side} goes without {', '.join(ignored)}")
