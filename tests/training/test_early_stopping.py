from math import inf, nan

import pytest

from flowers_tpu.training.early_stopping import best_epoch, should_stop


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], None),
        ([3], 0),
        ([3, 1, 2], 1),
        ([2, 1, 1], 1),
        ([nan, 2, nan, 1, nan], 3),
        ([nan, inf], None),
        ([nan, nan, 5], 2),
    ],
)
def test_the_best_epoch_is_the_first_with_the_lowest_loss(losses, expected):
    assert best_epoch(losses) == expected


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([], 1, False),
        ([3], 1, False),
        ([3, 4], 1, True),
        ([3, 4], 2, False),
        ([3, 4, 3.5], 2, True),
        ([3, 4, 2.9], 2, False),  # better again in time
        ([3, 4, 2.9, 3, 3], 2, True),
        ([3, 3, 3], 2, True),  # as good is not better
        ([5, 4, 3, 2, 1], 1, False),
        ([9, *[10] * 99], 0, False),
        ([nan], 2, False),
        ([nan, nan], 2, True),
        ([nan, nan, 5], 2, False),
        ([1, nan], 2, False),
        ([1, nan, nan], 2, True),
        ([1, inf, 2], 2, True),
    ],
)
def test_training_stops_after_patience_epochs_without_a_better_loss(losses, patience, expected):
    assert should_stop(losses, patience) is expected
