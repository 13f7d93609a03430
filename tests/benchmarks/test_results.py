import pytest

from flowers_tpu.benchmarks import results
from flowers_tpu.benchmarks.results import Change, Row


def row(*values, unit="images/s", name="a"):
    return Row("group", name, unit, values)


def test_medians_and_quartiles():
    measured = row(10.0, 50.0, 20.0, 40.0, 30.0)
    assert measured.median == 30.0
    assert measured.quartiles == (20.0, 40.0)
    assert row(7.0).quartiles == (7.0, 7.0)


def test_ratios_are_of_rounds_not_of_medians():
    rates = {"a": [1.0, 10.0, 30.0], "b": [1.0, 5.0, 10.0]}
    (ratio,) = results.ratios("group", rates, "b")
    assert (ratio.name, ratio.unit, ratio.values) == ("a / b", "x", (1.0, 2.0, 3.0))
    # Slower by rate is longer by time.
    assert results.time_ratio("group", rates, "b", "a").values == (1.0, 2.0, 3.0)


def test_the_efficiency_on_shared_cores_counts_the_time_of_both_parts():
    # 100 photos/s and 300 photos/s: 1/100 + 1/300 s a photo, 75 photos/s at most.
    assert results.efficiency([60.0], [[100.0], [300.0]], parts_share=True) == [pytest.approx(0.8)]


def test_the_efficiency_beside_one_another_is_of_the_slower_part():
    found = results.efficiency([90.0, 90.0], [[100.0, 300.0], [300.0, 180.0]], parts_share=False)
    assert found == [pytest.approx(0.9), pytest.approx(0.5)]


@pytest.mark.parametrize(
    "unit, before, now, slower",
    [
        ("images/s", (10.0, 11.0, 12.0), (9.0, 9.5, 9.9), True),
        ("images/s", (10.0, 11.0, 12.0), (9.0, 9.5, 10.1), False),  # within the noise
        ("images/s", (10.0, 11.0, 12.0), (20.0, 21.0, 22.0), False),
        ("steps/s per replica", (10.0, 11.0), (8.0, 9.0), True),
        ("x", (1.0, 1.1), (0.5, 0.6), False),  # says nothing of time
        ("MB", (1.0, 1.1), (0.5, 0.6), False),
        ("images/s", (10.0,), (5.0,), False),  # no noise is known
    ],
)
def test_slower_is_what_is_so_by_more_than_the_noise(unit, before, now, slower):
    assert Change(row(*now, unit=unit), row(*before, unit=unit)).is_slower is slower


def test_only_what_both_have_is_compared():
    now = [row(2.0), row(1.0, name="new"), row(3.0, unit="s")]
    before = [row(4.0), row(1.0, name="old"), row(6.0, unit="s")]
    changes = results.changes(now, before)
    assert [change.row for change in changes] == [now[0], now[2]]
    assert [change.ratio for change in changes] == [0.5, 0.5]
