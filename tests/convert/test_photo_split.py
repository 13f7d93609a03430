import collections
import random

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from flowers_tpu.convert import photo_split  # noqa: E402
from flowers_tpu.convert.photo_list import Photo  # noqa: E402


def photo(number, label="rose", split=None):
    name = f"{label}/{number:03d}.jpg"
    return Photo(f"/{name}", name, label, split, f"{label}-{number:03d}")


def assign(photos, same_as=None, *, val=0.15, test=0.15, seed=0):
    splits = photo_split.assign_splits(
        photos, same_as or {}, val_fraction=val, test_fraction=test, seed=seed
    )
    return dict(zip((p.name for p in photos), splits, strict=True))


@pytest.mark.parametrize(
    ("count", "val", "test", "expected"),
    [
        (0, 0.15, 0.15, (0, 0, 0)),
        (1, 0.15, 0.15, (1, 0, 0)),
        (2, 0.15, 0.15, (2, 0, 0)),  # 1.4, 0.3, 0.3
        (3, 0.15, 0.15, (2, 1, 0)),  # 2.1, 0.45, 0.45: at equal parts val before test
        (4, 0.15, 0.15, (3, 1, 0)),  # 2.8, 0.6, 0.6
        (5, 0.15, 0.15, (3, 1, 1)),  # 3.5, 0.75, 0.75
        (8, 0.15, 0.15, (6, 1, 1)),  # 5.6, 1.2, 1.2
        (100, 0.15, 0.15, (70, 15, 15)),
        (2, 0.1, 0.2, (2, 0, 0)),  # 1.4, 0.2, 0.4: train before test, also in floating point
        (3, 0.45, 0.1, (2, 1, 0)),  # 1.35, 1.35, 0.3
        (30, 0.1, 0.2, (21, 3, 6)),
        (2, 0.4, 0.4, (1, 0, 1)),  # 0.4, 0.8, 0.8 gives 0, 1, 1: one must train, val gives it
        (3, 0.2, 0.75, (1, 1, 1)),  # 0.15, 0.6, 2.25 gives 0, 1, 2: the larger gives it
        (10, 0.0, 0.0, (10, 0, 0)),
    ],
)
def test_counts_by_hand(count, val, test, expected):
    assert photo_split.split_counts(count, val, test) == expected


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 500), st.integers(0, 60), st.integers(0, 39))
def test_counts_are_within_one_of_the_shares_and_leave_a_photo_to_train(count, val, test):
    counts = photo_split.split_counts(count, val / 100, test / 100)
    assert sum(counts) == count
    assert counts[0] >= 1 and min(counts) >= 0
    for got, percent in zip(counts[1:], (val, test), strict=True):
        # In hundredths of photos; below only where one was given to train.
        assert got * 100 < count * percent + 100
        assert got * 100 > count * percent - 100 or counts[0] == 1


def test_every_class_is_divided_by_the_counts():
    photos = [
        photo(n, label) for label, size in (("a", 100), ("b", 8), ("c", 1)) for n in range(size)
    ]
    splits = assign(photos)
    counts = collections.Counter((p.label, splits[p.name]) for p in photos)
    assert counts == {
        ("a", "train"): 70, ("a", "val"): 15, ("a", "test"): 15,
        ("b", "train"): 6, ("b", "val"): 1, ("b", "test"): 1, ("c", "train"): 1,
    }  # fmt: skip


def test_order_of_the_photos_does_not_matter_and_the_seed_does():
    photos = [photo(n) for n in range(60)]
    shuffled = random.Random(1).sample(photos, len(photos))
    assert assign(shuffled) == assign(photos)
    assert assign(photos, seed=1) != assign(photos)
    # A rule by name would hold out a run of neighbours.
    held_out = [n for n in range(60) if assign(photos)[photo(n).name] == "test"]
    assert held_out != list(range(held_out[0], held_out[0] + 9))


def test_photos_that_come_later_leave_most_where_they_are():
    old, new = [photo(n) for n in range(200)], [photo(n) for n in range(200, 260)]
    for seed in range(10):
        before, after = assign(old, seed=seed), assign(old + new, seed=seed)
        moves = collections.Counter((before[p.name], after[p.name]) for p in old)
        assert not moves["val", "test"] and not moves["test", "val"]
        assert sum(n for (was, now), n in moves.items() if was != now) <= 15
    others = assign(old + [photo(n, "tulip") for n in range(50)], seed=seed)
    assert {name: others[name] for name in before} == before


def test_given_splits_are_kept_and_take_no_others():
    photos = [photo(n) for n in range(20)]
    photos += [photo(20, split="val"), photo(21, split="train"), photo(22, None, "test")]
    splits = assign(photos)
    assert splits[photos[20].name] == "val"
    assert splits[photos[21].name] == "train"
    assert splits[photos[22].name] == "test"
    assert [splits[photo(n).name] for n in range(20)] == ["train"] * 20
    without_val = [p for p in photos if p.split != "val"]
    assert collections.Counter(assign(without_val).values()) == {"train": 18, "val": 3, "test": 1}


def test_identical_photos_stay_together_and_count_as_one():
    photos = [photo(n) for n in range(40)]
    same_as = {photo(n).name: photo(n - n % 2).name for n in range(1, 40, 2)}  # 20 pairs
    splits = assign(photos, same_as)
    assert all(splits[copy] == splits[first] for copy, first in same_as.items())
    assert collections.Counter(splits.values()) == {"train": 28, "val": 6, "test": 6}


def test_identical_photos_of_two_classes_are_trained_on():
    photos = [photo(n, label) for label in "ab" for n in range(10)]
    for n in range(10):  # whichever would be held out
        splits = assign(photos, {photo(n, "b").name: photo(n, "a").name})
        assert splits[photo(n, "a").name] == splits[photo(n, "b").name] == "train"


def test_a_copy_of_a_photo_that_was_put_somewhere_goes_there_too():
    photos = [*(photo(n) for n in range(5)), photo(5, None, "test"), photo(6, split="val")]
    splits = assign(photos, {photo(5, None).name: photo(0).name, photo(6).name: photo(1).name})
    assert splits[photo(0).name] == "test"
    assert splits[photo(1).name] == "val"
