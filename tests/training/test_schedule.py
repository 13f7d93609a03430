import math

import numpy as np
import pytest

from flowers_tpu.training import schedule

pytestmark = [pytest.mark.core, pytest.mark.filterwarnings("error")]


def check(rates, expected, **tolerance):
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected, **(tolerance or {"rtol": 1e-6}))


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        # Up from 1 to 4 in 3 epochs, 2 epochs there, then half the way to 1 in each epoch.
        (np.arange(9.0), [1, 2, 3, 4, 4, 4, 2.5, 1.75, 1.375]),
        ([0.5, 2.75, 4.9, 5.5], [1.5, 3.75, 4, 1 + 3 / math.sqrt(2)]),
        ([1e3], [1]),
    ],
)
def test_ramp_decay(epochs, expected):
    rates = schedule.ramp_decay(
        np.asarray(epochs),
        peak=4,
        start=1,
        minimum=1,
        rampup_epochs=3,
        sustain_epochs=2,
        decay=0.5,
    )
    check(rates, expected)


def test_the_notebooks_rates_on_eight_replicas():
    rates = schedule.ramp_decay(
        schedule.times(6, 1, "epoch"),
        peak=schedule.scaled(3e-5, 128),
        start=1e-8,
        minimum=1e-6,
        rampup_epochs=3,
        sustain_epochs=0,
        decay=0.8,
    )
    # The peak is 8 * 3e-5; a third of the way to it is 79.9966667e-6.
    check(rates, [1e-8, 80.0066667e-6, 160.0033333e-6, 240e-6, 192.2e-6, 153.96e-6])


def test_ramp_decay_without_ramp_begins_at_the_peak():
    rates = schedule.ramp_decay(
        np.arange(3.0),
        peak=4,
        start=1,
        minimum=2,
        rampup_epochs=0,
        sustain_epochs=0,
        decay=0.5,
    )
    check(rates, [4, 3, 2.5])


def test_a_decay_of_1_stays_at_the_peak():
    rates = schedule.ramp_decay(
        np.arange(5.0),
        peak=4,
        start=0,
        minimum=1,
        rampup_epochs=2,
        sustain_epochs=0,
        decay=1,
    )
    check(rates, [0, 2, 4, 4, 4])


@pytest.mark.parametrize(
    ("rampup_epochs", "epochs", "expected"),
    [
        # From 4 to 2 in 4 epochs: 2 + (1 + cos(45°, 90°, 135°)).
        (2, np.arange(8.0), [1, 2.5, 4, 3 + math.sqrt(0.5), 3, 3 - math.sqrt(0.5), 2, 2]),
        (2, [0.5, 2 + 4 / 3], [1.75, 3.5]),
        (0, [0, 3, 6], [4, 3, 2]),
        (6, [0, 3, 5], [1, 2.5, 3.5]),
        (12, [0, 3, 5], [1, 1.75, 2.25]),  # the ramp is cut off
    ],
)
def test_cosine(rampup_epochs, epochs, expected):
    rates = schedule.cosine(
        np.asarray(epochs),
        peak=4,
        start=1,
        minimum=2,
        rampup_epochs=rampup_epochs,
        total_epochs=6,
    )
    check(rates, expected)


def test_constant():
    check(schedule.constant(0.25, 3), [0.25, 0.25, 0.25])
    assert schedule.constant(0.25, 0).shape == (0,)


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [("epoch", [0, 0, 0, 1, 1, 1]), ("step", [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])],
)
def test_times(granularity, expected):
    times = schedule.times(2, 3, granularity)
    assert times.dtype == np.float64
    np.testing.assert_allclose(times, expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("global_batch_size", "expected"), [(16, 1e-4), (128, 8e-4), (8, 5e-5), (24, 1.5e-4)]
)
def test_rates_grow_with_the_global_batch(global_batch_size, expected):
    assert schedule.scaled(1e-4, global_batch_size) == pytest.approx(expected, rel=1e-12)
