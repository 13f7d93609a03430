import math

import numpy as np
import pytest

from flowers_tpu.training import schedule
from flowers_tpu.training.options import ScheduleOptions

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


RAMP = {"lr_start": 1e-5, "lr_min": 1e-4, "lr_rampup_epochs": 2.0, "lr_sustain_epochs": 0.0}


@pytest.mark.parametrize(
    ("options", "finetune"),
    [
        # Peak 4e-3; up in 2 epochs, then half the way to 1e-4 in an epoch.
        ({"lr_decay": 0.5}, [1e-5, 2.005e-3, 4e-3, 2.05e-3]),
        ({"lr_decay": 0.5, "lr_sustain_epochs": 1.0}, [1e-5, 2.005e-3, 4e-3, 4e-3]),
        ({"lr_schedule": "cosine"}, [1e-5, 2.005e-3, 4e-3, 2.05e-3]),
        ({"lr_schedule": "constant"}, [4e-3] * 4),
    ],
)
def test_the_rates_of_a_run_are_those_of_the_warmup_and_then_of_finetuning(options, finetune):
    """2 epochs of 3 steps at 2 * 5e-4, then 4 epochs by the schedule; all for a batch of 32."""
    options = ScheduleOptions(
        **{"warmup_epochs": 2, "warmup_learning_rate": 5e-4, "epochs": 4, "learning_rate": 2e-3},
        **RAMP | options,
    )
    rates = schedule.learning_rates(options, 3, 32)
    check(rates, [1e-3] * 6 + np.repeat(finetune, 3).tolist())


def test_by_step_the_rates_of_a_run_move_within_its_epochs():
    options = ScheduleOptions(
        **{"warmup_epochs": 1, "warmup_learning_rate": 0.0, "epochs": 1, "learning_rate": 2e-3},
        **RAMP | {"lr_granularity": "step"},
    )
    # Up from 1e-5 to 2e-3 in 2 epochs of 4 steps.
    expected = [0, 0, 0, 0, *(1e-5 + (2e-3 - 1e-5) * step / 8 for step in range(4))]
    check(schedule.learning_rates(options, 4, 16), expected)
