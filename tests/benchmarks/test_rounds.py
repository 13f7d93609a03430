import pytest

from flowers_tpu.benchmarks import rounds
from flowers_tpu.benchmarks.rounds import Side


class Machine:
    """A clock that only work moves, and a diary of the work."""

    def __init__(self):
        self.now = 100.0
        self.diary = []

    def clock(self):
        return self.now

    def side(self, name, step_seconds, *, start=0.0, photos=10, **options):
        """A side whose first step of each turn takes `start` seconds more."""

        def open_run():
            left = [start]

            def work(steps):
                self.diary.append((name, steps))
                self.now += steps * step_seconds + left.pop() if left else steps * step_seconds

            return rounds.timed(work, self.clock)

        return Side(name, photos, open_run, **options)


def test_rates_are_photos_over_the_seconds_of_the_clock():
    machine = Machine()
    sides = [machine.side("a", 0.25, photos=10), machine.side("b", 0.5, photos=30)]
    rates = rounds.measure(sides, rounds=3, seconds=2.0)
    assert rates == {"a": [40.0] * 3, "b": [60.0] * 3}


def test_what_a_turn_begins_with_is_not_in_its_time():
    machine = Machine()
    rates = rounds.measure([machine.side("a", 0.25, start=50.0)], rounds=2, seconds=4.0)
    assert rates == {"a": [40.0, 40.0]}
    # Without run-in it is: 16 steps of 0.25 s after 50 s.
    rates = rounds.measure([machine.side("a", 0.25, start=50.0, run_in=0)], rounds=1, seconds=4.0)
    assert rates["a"] == [pytest.approx(160 / 54)]


def test_sides_take_turns_in_order_after_a_warm_up():
    machine = Machine()
    turns = []
    sides = [machine.side("a", 0.125), machine.side("b", 0.125)]
    rounds.measure(sides, rounds=3, seconds=1.0, on_turn=turns.append)
    assert turns == ["a", "b"] * 4  # the warm-up is one
    # 8 steps take the second asked for; a quarter of them comes before the clock starts.
    assert machine.diary[-4:] == [("a", 2), ("a", 8), ("b", 2), ("b", 8)]


@pytest.mark.parametrize("step_seconds, steps", [(1e-5, 300_000), (0.3, 10), (0.9, 4), (50.0, 1)])
def test_a_turn_takes_as_long_as_asked_for_and_at_least_a_step(step_seconds, steps):
    found = rounds.steps_that_take(3.0, Machine().side("a", step_seconds))
    assert found == pytest.approx(steps, abs=1, rel=1e-3)


def test_the_steps_in_a_buffer_do_not_tell_the_speed():
    """Eight steps lie ready; then each takes a second."""
    now, done = [0.0], [0]

    def work(steps):
        for _ in range(steps):
            now[0] += 1.0 if done[0] >= 8 else 1e-6
            done[0] += 1

    side = Side("a", 1, lambda: rounds.timed(work, lambda: now[0]))
    assert rounds.steps_that_take(20.0, side) <= 40
    assert now[0] < 60  # the trials did not go by it either


def test_steps_come_in_multiples():
    machine = Machine()
    rounds.measure([machine.side("a", 0.125, multiple=7)], rounds=2, seconds=1.0)
    assert all(steps % 7 == 0 for _, steps in machine.diary)
    assert machine.diary[-1] == ("a", 14)  # not fewer than the eight asked for


def test_values_are_put_together_by_round():
    assert rounds.per_round(lambda a, b: a / b, [6.0, 8.0], [2.0, 4.0]) == [3.0, 2.0]
    with pytest.raises(ValueError):
        rounds.per_round(lambda a, b: a / b, [6.0, 8.0], [2.0])
