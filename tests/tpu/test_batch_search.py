import math

import pytest

from flowers_tpu.tpu.batch_search import largest_batch


def search(constant, per_photo, available, *, first=16, most=1594, known=True, limit=math.inf):
    """Searches with a memory of `constant + per_photo * batch`; returns also what was tried.

    From `limit` on, and where it is too much and not `known`, the memory is infinite.
    """
    tried = []

    def need(batch):
        tried.append(batch)
        size = constant + per_photo * batch
        return size if batch < limit and (known or size <= available) else math.inf

    return *largest_batch(need, available, first=first, most=most), tried


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("first", [1, 16, 100, 1000])
@pytest.mark.parametrize("per_photo", [0.003, 0.1, 0.33, 1.0, 3.0, 7.0])
@pytest.mark.parametrize("constant", [0.0, 0.5, 6.0])
def test_finds_the_largest_in_few_tries(constant, per_photo, first, known):
    fits, fails, tried = search(constant, per_photo, 15.48, first=first, known=known)
    assert constant + per_photo * fits <= 15.48
    assert fails == 1595 or constant + per_photo * fails > 15.48
    truth = min(1594, int((15.48 - constant) / per_photo))
    assert 0 <= truth - fits < (1 if truth < 8 else max(8, 0.04 * truth))
    assert fits in tried and len(set(tried)) == len(tried)
    assert len(tried) <= (5 if known else 12)


def test_two_tries_where_the_first_is_the_answer():
    assert search(0.5, 0.93, 15.48) == (16, 24, [16, 24])


def test_nothing_fits():
    assert search(14.8, 0.7, 15.48)[:2] == (0, 1)


def test_memory_that_does_not_grow():
    assert search(1.0, 0.0, 15.48) == (1594, 1595, [16, 240, 1594])


@pytest.mark.parametrize("first", [1, 8, 16, 100, 1000])
@pytest.mark.parametrize("limit", [1, 2, 5, 9, 15, 17, 40, 41, 100, 333, 1000, 1594])
def test_what_ends_for_another_reason_is_found_by_halving(first, limit):
    """As where the compiler runs out of time, while the memory would go on to 5,000 photos."""
    fits, fails, tried = search(1.0, 0.003, 15.48, first=first, limit=limit)
    assert fits < limit <= fails
    assert fails - fits <= (1 if limit <= 8 else max(8, 0.04 * limit))
    assert len(tried) <= 11


def test_no_photo_by_photo_down_from_a_first_batch_without_a_figure():
    assert search(1.0, 0.003, 15.48, limit=9) == (8, 16, [16, 8])
    assert search(1.0, 0.003, 15.48, first=100, limit=17) == (16, 24, [100, 48, 24, 8, 16])
