"""Which photo goes to which split: by class, by exact fractions, and by a seed."""

import collections
import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from flowers_tpu.convert.photo_list import Photo
from flowers_tpu.data.records import SPLITS


def assign_splits(
    photos: Sequence[Photo],
    same_as: Mapping[str, str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """Returns the split of every photo.

    Where a photo was put it stays, and a split that was given photos gets no others. The rest are
    divided class by class (`split_counts`): in the order of a hash of (seed, name) the first are
    test photos, the last validation photos. So when photos are added later, one near a border may
    cross it, but most stay where they are and none goes from validation to test.

    Identical photos count as one and stay together. Those of more than one class, of which at most
    one can be right, are training photos.

    Args:
        photos: all of them.
        same_as: for photos that are identical to an earlier one, the names of both.
        val_fraction: of the photos of a class, for validation.
        test_fraction: of the photos of a class, for testing.
        seed: of the order within a class.
    """
    given = {photo.split for photo in photos}
    fractions = (
        0.0 if "val" in given else val_fraction,
        0.0 if "test" in given else test_fraction,
    )
    groups = collections.defaultdict(list)
    for photo in photos:
        groups[same_as.get(photo.name, photo.name)].append(photo)
    chosen: dict[str, str] = {}
    by_class = collections.defaultdict(list)
    for name, group in groups.items():
        put = [photo.split for photo in group if photo.split]
        labels = {photo.label for photo in group}
        if put or len(labels) > 1:
            chosen[name] = put[0] if put else "train"
        else:
            by_class[group[0].label].append((hash_of(seed, "split", group[0].name), name))
    for members in by_class.values():
        names = [name for _, name in sorted(members)]
        train, _, test = split_counts(len(names), *fractions)
        for rank, name in enumerate(names):
            chosen[name] = "test" if rank < test else "train" if rank < test + train else "val"
    return [photo.split or chosen[same_as.get(photo.name, photo.name)] for photo in photos]


def split_counts(count: int, val_fraction: float, test_fraction: float) -> tuple[int, int, int]:
    """Divides `count` photos of a class into training, validation and test photos.

    By largest remainder: each split gets the whole part of its share, and what is left goes to the
    largest fractional parts, at equal ones to train before val before test. Where that leaves
    nothing to train on, one photo goes over from the larger of the others (val at equal ones).
    """
    held_out = [Fraction(str(val_fraction)), Fraction(str(test_fraction))]
    shares = [count * share for share in (1 - sum(held_out), *held_out)]
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(SPLITS)), key=lambda n: counts[n] - shares[n])
    for split in by_remainder[: count - sum(counts)]:
        counts[split] += 1
    if count and not counts[0]:
        counts[1 if counts[1] >= counts[2] else 2] -= 1
        counts[0] = 1
    train, val, test = counts
    return train, val, test


def hash_of(seed: int, purpose: str, name: str) -> bytes:
    """Returns what photos are ordered by: the same on every machine and for any other photos."""
    return hashlib.sha256(f"{seed} {purpose} {name}".encode(errors="surrogateescape")).digest()
