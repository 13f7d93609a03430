"""Photos that show the same picture: re-encoded, resized, mirrored, or a part of one another.

Candidates are found by small grey images of each photo, of its parts of nine tenths of the side,
and of its mirror image: the correlation of one's whole with another's parts, for all pairs. A
candidate is confirmed on larger images: the part is moved and resized to where it fits best, and
must then be nearly the same.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from flowers_tpu.data import records
from flowers_tpu.data.shards import in_file_order
from flowers_tpu.data.splits import Split
from flowers_tpu.system import terminal

SIDE = 64  # of the grey images, pixels
_COARSE, _FINE = 8, 24  # sides at which candidates are found, and confirmed
_PARTS = (1.0, *[0.9] * 9)  # sides of the parts; the whole first
_PLACES = ((0.0, 0.0), *((y, x) for y in (0.0, 0.05, 0.1) for x in (0.0, 0.05, 0.1)))
_CANDIDATE, _CONFIRMED = 0.92, 0.97  # correlations
_LEAST_PART = 0.8
_STEPS = (0.04, 0.02, 0.01)  # of moving and resizing a part
_AT_ONCE = 256  # photos whose correlations with all parts are in memory; and pairs confirmed


class Pair(NamedTuple):
    """Two photos that show the same picture.

    Attributes:
        first: number of the one that is shown whole.
        second: of the other, of which the first shows a part, or all.
        correlation: of the grey values where both fit best, at most 1.
        mirrored: whether one is the mirror image of the other.
        part: side of the part of the second that the first shows, 1 for all of it.
    """

    first: int
    second: int
    correlation: float
    mirrored: bool
    part: float


def of_splits(splits: Sequence[Split]) -> list[Pair]:
    """Returns the pairs among the photos of splits, which are numbered one split after another."""
    return find(np.concatenate([
        grey_images(
            in_file_order(split.shards).map(lambda record: records.parse(record)["image"]),
            *(split.size, f"looking at {split.name}"),
        )
        for split in splits
    ]))  # fmt: skip


def grey_images(jpegs: tf.data.Dataset, count: int, title: str) -> np.ndarray:
    """Returns `[photos, SIDE, SIDE]` uint8 of JPEGs.

    Args:
        jpegs: of scalar strings.
        count: how many they are.
        title: of the progress bar.
    """

    def grey(jpeg: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(jpeg, channels=1)
        resized = tf.image.resize(pixels, (SIDE, SIDE), tf.image.ResizeMethod.AREA)
        return tf.cast(tf.round(resized[..., 0]), tf.uint8)

    images = np.empty((count, SIDE, SIDE), np.uint8)
    batches = jpegs.map(grey, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(64)
    done = 0
    with terminal.bar(count, title) as bar:
        for batch in batches.as_numpy_iterator():
            images[done : done + len(batch)] = batch
            done += len(batch)
            bar.update(len(batch))
    return images[:done]


def find(images: np.ndarray) -> list[Pair]:
    """Returns the pairs among photos that show the same picture, each once.

    Args:
        images: `[photos, SIDE, SIDE]` uint8, see `grey_images`.
    """
    if len(images) < 2:
        return []
    candidates = _candidates(images)
    return [pair for part in _parts_of(candidates) for pair in _confirmed(images, part)]


def groups(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns for each photo the number of its group, `[count]`: those that pairs join are one."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(first)), (first, second)), (count, count))
    return connected_components(graph, directed=False)[1]


@dataclasses.dataclass(frozen=True)
class _Candidates:
    """Pairs that may be copies: arrays `[pairs]`; the part of the second is `_PARTS[place]`."""

    first: np.ndarray
    second: np.ndarray
    mirrored: np.ndarray
    place: np.ndarray


def _candidates(images: np.ndarray) -> _Candidates:
    """The pairs whose small images correlate; of one pair the better of its two directions."""
    count = len(images)
    parts = [
        _normalized(_cut(images, _COARSE, np.float32(side), *map(np.float32, place)))
        for side, place in zip(_PARTS, _PLACES, strict=True)
    ]
    every = np.stack(parts, axis=1).reshape(count * len(_PARTS), -1)
    mirrored = _normalized(_cut(images[:, :, ::-1], _COARSE, *np.array([1, 0, 0], np.float32)))
    found = []
    with terminal.bar(2 * count, "looking for near-copies") as bar:
        for is_mirrored, wholes in ((False, parts[0]), (True, mirrored)):
            for begin in range(0, count, _AT_ONCE):
                here = wholes[begin : begin + _AT_ONCE]
                correlations = (here @ every.T).reshape(len(here), count, len(_PARTS))
                best = correlations.max(axis=2)
                first, second = np.nonzero(best >= _CANDIDATE)
                keep = first + begin != second
                first, second = first[keep], second[keep]
                place = correlations[first, second].argmax(axis=1)
                flags = np.full(len(first), is_mirrored)
                found.append((first + begin, second, flags, place, best[first, second]))
                bar.update(len(here))
    first, second, flags, place, correlation = map(np.concatenate, zip(*found, strict=True))
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((-correlation, flags, high, low))
    once = np.unique(np.stack([low, high, flags])[:, order], axis=1, return_index=True)[1]
    chosen = order[once]
    return _Candidates(first[chosen], second[chosen], flags[chosen], place[chosen])


def _parts_of(candidates: _Candidates) -> Iterator[_Candidates]:
    fields = [getattr(candidates, field.name) for field in dataclasses.fields(candidates)]
    with terminal.bar(len(candidates.first), "confirming near-copies") as bar:
        for begin in range(0, len(candidates.first), _AT_ONCE):
            part = _Candidates(*(field[begin : begin + _AT_ONCE] for field in fields))
            yield part
            bar.update(len(part.first))


def _confirmed(images: np.ndarray, candidates: _Candidates) -> Iterator[Pair]:
    """Yields the candidates that are nearly the same where they fit best."""
    first, second = images[candidates.first], images[candidates.second]
    first = np.where(candidates.mirrored[:, None, None], first[:, :, ::-1], first)
    wholes = _normalized(_cut(first, _FINE, *np.array([1, 0, 0], np.float32)))
    sides = np.array(_PARTS, np.float32)[candidates.place]
    ys, xs = np.array(_PLACES, np.float32)[candidates.place].T
    best = np.full(len(wholes), -1, np.float32)
    for step in (0.0, *_STEPS):
        moves = [(0.0, 0.0, 0.0)] if not step else [
            (side, y, x) for side in (-step, 0, step) for y in (-step, 0, step)
            for x in (-step, 0, step) if side or y or x
        ]  # fmt: skip
        base = sides, ys, xs
        for by in moves:
            side = np.clip(base[0] + np.float32(by[0]), _LEAST_PART, 1)
            y, x = (np.clip(of + np.float32(to), 0, 1 - side)
                    for of, to in zip(base[1:], by[1:], strict=True))  # fmt: skip
            fits = np.einsum("nd,nd->n", wholes, _normalized(_cut(second, _FINE, side, y, x)))
            better = fits > best
            best = np.where(better, fits, best)
            sides, ys, xs = (np.where(better, new, old)
                             for new, old in ((side, sides), (y, ys), (x, xs)))  # fmt: skip
    for n in np.flatnonzero(best >= _CONFIRMED):
        yield Pair(
            *(int(candidates.first[n]), int(candidates.second[n])),
            *(float(best[n]), bool(candidates.mirrored[n]), float(sides[n])),
        )


def _cut(images: np.ndarray, side: int, part, y, x) -> np.ndarray:
    """Returns parts of images in another size, `[photos, side, side]` float32, by mean values.

    Args:
        images: `[photos, SIDE, SIDE]`.
        side: of what is returned, pixels.
        part: side of the part, of 1; as `y` and `x` a number, or one for each photo.
        y: its upper edge, of 1.
        x: its left edge, of 1.
    """
    rows, columns = _means(side, part, y), _means(side, part, x)
    return rows @ images.astype(np.float32) @ np.swapaxes(columns, -1, -2)


def _means(side: int, part, begin) -> np.ndarray:
    """Returns `[…, side, SIDE]`, which takes means over equal pieces of a part of a line."""
    edges = np.expand_dims(begin, -1) + np.expand_dims(part, -1) * np.arange(side + 1) / side
    edges = edges[..., None] * SIDE
    pixel = np.arange(SIDE)
    low, high = np.maximum(edges[..., :-1, :], pixel), np.minimum(edges[..., 1:, :], pixel + 1)
    overlap = np.maximum(high - low, 0)
    return (overlap / overlap.sum(-1, keepdims=True)).astype(np.float32)


def _normalized(images: np.ndarray) -> np.ndarray:
    """Returns `[photos, pixels]` of mean 0 and length 1, or 0 of an image that is all one grey."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > images[0].size ** 0.5, flat / np.maximum(length, 1e-6), 0)
