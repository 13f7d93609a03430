"""What tells the photos of a split from others, without keeping them."""

import hashlib

import numpy as np

from flowers_tpu.data.splits import Split


def content(split: Split, class_names: tuple[str, ...]) -> str:
    """Returns a fingerprint of the photos and their classes, whatever the shards and labels.

    Equal ones mean: the same photos, each of the same class by name.
    """
    names = [""] * split.size
    if split.labels is not None:
        names = [class_names[label] for label in split.labels]
    rows = sorted(zip(split.fingerprints.tolist(), names, strict=True))
    return _digest("\n".join(f"{photo} {name}" for photo, name in rows))


def order(split: Split) -> str:
    """Returns a fingerprint of the photos and labels as they lie in the shards, one by one.

    Training order is a function of it: equal ones mean that a run goes on as if nothing had moved.
    """
    labels = np.full(split.size, -1) if split.labels is None else split.labels
    counts = " ".join(str(shard.count) for shard in split.shards)
    rows = zip(split.fingerprints.tolist(), labels.tolist(), split.ids, strict=True)
    return _digest(counts + "\n" + "\n".join(f"{p} {label} {name}" for p, label, name in rows))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
