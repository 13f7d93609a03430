"""What trains and what validates: folds, all, further photos, and copies that may not train."""

import dataclasses

import numpy as np
import pytest

from flowers_tpu.data import choosing
from flowers_tpu.data.choosing import Further
from flowers_tpu.data.options import DataOptions
from flowers_tpu.data.shards import Shard
from flowers_tpu.data.splits import Split
from flowers_tpu.system.errors import RequestError

NAMES = ("daisy", "rose", "violet")


def split(name, labels, fingerprints, *, shards=2, bad=()):
    """A split of which nothing is read; the records numbered `bad` of its first shard are bad."""
    cuts = np.array_split(np.arange(len(labels)), shards)
    counts = [len(cut) for cut in cuts]
    return Split(
        name,
        tuple(
            Shard(f"{name}/{n}", 32, count, tuple(bad) if not n else ())
            for n, count in enumerate(counts)
        ),
        ids=np.array([f"{name}{number}" for number in fingerprints]),
        labels=np.array(labels, np.int32),
        fingerprints=np.array(fingerprints, np.int64),
        jpeg_sizes=np.full(len(labels), 100, np.int64),
    )


def data(train=40, val=20, test=6, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(train + val) % 3)
    return {
        "train": split("train", labels[:train], range(train)),
        "val": split("val", labels[train:], range(100, 100 + val)),
        "test": split("test", [0] * test, range(200, 200 + test)),
    }


@pytest.fixture
def copies(monkeypatch):
    """What is taken to be near-copies: pairs of fingerprints."""
    pairs = []

    def of_splits(splits):
        of = {fp: n for n, fp in enumerate(np.concatenate([s.fingerprints for s in splits]))}
        return [(of[a], of[b], 0.99, False, 1.0) for a, b in pairs if a in of and b in of]

    monkeypatch.setattr(choosing.near_copies, "of_splits", of_splits)
    return pairs


def choose(splits, further=(), **options):
    return choosing.choose(DataOptions(**options), NAMES, splits, further)


def further(labels, fingerprints, folder="more", **how):
    made = dataclasses.replace(split(folder, labels, fingerprints), relabeled=True)
    own = np.array(["?" if label < 0 else NAMES[label].upper() for label in labels])
    return Further(folder, made, own, **how)


# Folds


def test_folds_are_all_photos_each_once_and_of_each_class_the_same_share(copies):
    parts = [choose(data(), folds=5, fold=k).splits for k in range(5)]
    every = np.concatenate([part["val"].ids for part in parts])
    assert len(every) == len(set(every)) == 60
    for part in parts:
        assert sorted([*part["train"].ids, *part["val"].ids]) == sorted(every)
        counts = np.bincount(part["val"].labels, minlength=3)
        assert counts.sum() == 12 and counts.max() - counts.min() <= 1


def test_folds_are_the_same_wherever_the_photos_lie(copies):
    copies += [(0, 100), (3, 4)]
    first, moved = data(), data()
    pool = choosing.joined("train", [first["train"], first["val"]])
    order = np.random.default_rng(7).permutation(60)
    shuffled = {
        name: split(name, pool.labels[part], pool.fingerprints[part], shards=3)
        for name, part in (("train", order[:25]), ("val", order[25:]))
    }
    moved |= shuffled
    for k in range(4):
        found = [set(choose(d, folds=4, fold=k).splits["val"].fingerprints.tolist())
                 for d in (first, moved)]  # fmt: skip
        assert found[0] == found[1]
    others = choose(first, folds=4, fold=0, fold_seed=1).splits["val"].fingerprints
    assert set(others) != set(choose(first, folds=4, fold=0).splits["val"].fingerprints)


def test_near_copies_stay_in_one_fold_and_those_of_test_photos_do_not_train(copies):
    copies += [(0, 100), (100, 7), (20, 201)]
    for k in range(5):
        made = choose(data(), folds=5, fold=k)
        places = [name for fp in (0, 100, 7) for name in ("train", "val")
                  if fp in made.splits[name].fingerprints]  # fmt: skip
        assert places in (["train"] * 3, ["val"] * 3)
        assert 20 not in made.splits["train"].fingerprints
        assert made.left_out == (20 not in made.splits["val"].fingerprints)
    kept = [choose(data(), folds=5, fold=k, allow_near_copies=True) for k in range(5)]
    assert sum(20 in made.splits["train"].fingerprints for made in kept) == 4
    assert [made.left_out for made in kept] == [0] * 5


def test_photos_that_are_the_same_stay_together_though_near_copies_may_not(copies):
    splits = data()
    splits["val"].fingerprints[3] = 11  # the photo of `train` that has this number
    for k in range(5):
        made = choose(splits, folds=5, fold=k, allow_near_copies=True).splits
        assert (made["train"].fingerprints == 11).sum() in (0, 2)


def test_bad_records_count_once(copies):
    splits = data()
    splits["train"] = split("train", splits["train"].labels, range(40), bad=(2, 5))
    made = choose(splits, folds=5, fold=1).splits
    assert [made[name].left_out for name in ("train", "val")] == [2, 0]


def test_too_many_folds_are_refused(copies):
    with pytest.raises(RequestError, match="--folds=50: every class has fewer photos"):
        choose(data(), folds=50)
    assert choose(data(), folds=20).splits["val"].size == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "--folds=1: one part cannot"),
        ({"folds": 5, "fold": 5}, "--fold=5: folds count from 0"),
        ({"fold": 1}, "--fold=1: folds count from 0, and there are --folds=0"),
        ({"folds": 5, "train_splits": "train,val"}, "--folds=5 and --train_splits=train,val"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(RequestError, match=message):
        DataOptions.of(options)


# All photos, and further ones


def test_all_photos_train_and_nothing_validates(monkeypatch):
    def looks(splits):
        raise AssertionError("nothing is left out, so that nothing has to be looked for")

    monkeypatch.setattr(choosing.near_copies, "of_splits", looks)
    made = choose(data(), train_splits="train,val").splits
    assert made.keys() == {"train"}
    assert made["train"].fingerprints.tolist() == [*range(40), *range(100, 120)]


def test_further_photos_train_but_for_other_classes_and_copies(copies):
    """One class is not known; copies are byte for byte (17, 105, 203) or nearly so (303, 304)."""
    copies += [(303, 110), (304, 205), (305, 2)]
    more = further([0, 1, -1, 2, 2, 2, 0, 1, 1], [300, 301, 302, 303, 304, 305, 17, 105, 203])
    made = choose(data(), [more], extra_data_dirs="more")
    assert made.splits["train"].fingerprints.tolist() == [*range(40), 300, 301, 305]
    assert made.splits["train"].labels[40:].tolist() == [0, 1, 2]
    assert made.splits["train"].relabeled
    assert made.splits["val"].fingerprints.tolist() == list(range(100, 120))
    rows = made.further.set_index("its_class")
    columns = ["photos", "taken", "other_class", "copy_of_val", "copy_of_test", "copy_of_train"]
    assert {name: rows.loc[name, columns].tolist() for name in rows.index} == {
        "?": [1, 0, 1, 0, 0, 0],
        "DAISY": [2, 1, 0, 0, 0, 1],
        "ROSE": [3, 1, 0, 1, 1, 0],
        "VIOLET": [3, 1, 0, 1, 1, 0],
    }
    assert rows["class"].to_dict() == {
        "?": "", "DAISY": "daisy", "ROSE": "rose", "VIOLET": "violet",
    }  # fmt: skip
    allowed = choose(data(), [more], extra_data_dirs="more", allow_near_copies=True)
    assert allowed.splits["train"].fingerprints[40:].tolist() == [300, 301, 303, 304, 305]


def test_of_two_folders_a_photo_trains_once(copies):
    both = [further([0, 1], [300, 301]), further([1, 2, 2], [301, 302, 302], folder="other")]
    made = choose(data(), both, extra_data_dirs="more,other")
    assert made.splits["train"].fingerprints[40:].tolist() == [300, 301, 302]
    assert made.further.groupby("folder")["copy_of_train"].sum().to_dict() == {
        "more": 0,
        "other": 2,
    }


def test_no_copy_byte_for_byte_of_a_photo_that_is_scored_trains_however_many_there_are(copies):
    """Two folders have the same validation photo, and the same test photo."""
    both = [further([0, 1], [103, 205], folder=folder) for folder in ("more", "other")]
    made = choose(data(), both, extra_data_dirs="more,other", allow_near_copies=True)
    assert made.splits["train"].fingerprints.tolist() == list(range(40))
    assert made.further[["copy_of_val", "copy_of_test"]].sum().tolist() == [2, 2]


def test_with_folds_further_photos_are_no_copies_of_those_that_validate(copies):
    copies += [(300, 5)]
    for k in range(5):
        made = choose(data(), [further([0], [300])], folds=5, fold=k, extra_data_dirs="more")
        validates = 5 in made.splits["val"].fingerprints
        assert (300 in made.splits["train"].fingerprints) != validates
        assert 300 not in made.splits["val"].fingerprints


def test_with_all_photos_further_ones_may_be_copies_of_them_but_not_of_test_photos(copies):
    copies += [(300, 110), (301, 200)]
    more = further([0, 0, 0], [300, 301, 100])
    made = choose(data(), [more], train_splits="train,val", extra_data_dirs="more")
    assert made.splits["train"].fingerprints.tolist() == [*range(40), *range(100, 120), 300]


def test_pseudo_labeled_test_photos_train_and_are_counted(copies):
    more = further([0, 1, 2], [200, 205, 103], pseudo_labeled=True)
    made = choose(data(), [more], extra_data_dirs="more")
    assert made.splits["train"].fingerprints[40:].tolist() == [200, 205]
    assert made.test_photos == 2
    assert choose(data(), [further([0], [300])], extra_data_dirs="more").test_photos == 0


def test_without_a_test_split_it_works_too(copies):
    splits = data()
    del splits["test"]
    made = choose(splits, [further([1], [300])], folds=3, extra_data_dirs="more")
    assert made.splits["train"].size == 41 and made.splits["val"].size == 20
