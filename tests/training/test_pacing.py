import pytest

from flowers_tpu.training import pacing

ALL = 1000


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when it is told to."""

    class Clock:
        now = 128.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    return clock


def call(pacer, clock, seconds, steps=1):
    with pacer.timed(steps):
        clock.now += seconds


@pytest.mark.parametrize(
    ("steps", "seconds", "expected"),
    [(1, 0.0625, 16), (4, 0.5, 8), (1, 3.0, 1), (1, 0.375, 2), (1, 0.0, ALL)],
)
def test_a_call_takes_about_a_second(clock, steps, seconds, expected):
    pacer = pacing.Pacer()
    call(pacer, clock, 40.0)
    call(pacer, clock, seconds, steps)
    assert pacer.steps(ALL) == expected


def test_the_call_that_compiles_says_nothing_of_the_pace(clock):
    pacer = pacing.Pacer()
    assert pacer.steps(ALL) == 1
    call(pacer, clock, 0.001)
    assert pacer.steps(ALL) == 1


def test_the_pace_follows_the_last_call(clock):
    pacer = pacing.Pacer()
    for seconds, expected in ((9, 1), (0.125, 8), (0.5, 2), (0.0625, 16)):
        call(pacer, clock, seconds)
        assert pacer.steps(ALL) == expected


def test_no_call_does_more_steps_than_there_are(clock):
    pacer = pacing.Pacer()
    call(pacer, clock, 1)
    call(pacer, clock, 0.05)
    assert pacer.steps(7) == 7
    assert pacer.steps(1) == 1


def test_a_number_that_is_given_is_kept(clock):
    pacer = pacing.Pacer(fixed=5)
    for _ in range(3):
        assert pacer.steps(ALL) == 5
        call(pacer, clock, 60, steps=5)
    assert pacer.steps(3) == 3


def test_a_call_that_fails_is_not_timed(clock):
    pacer = pacing.Pacer()
    call(pacer, clock, 1)
    call(pacer, clock, 0.125)
    with pytest.raises(ValueError, match="lost"), pacer.timed(1):
        clock.now += 50
        raise ValueError("lost")
    assert pacer.steps(ALL) == 8
