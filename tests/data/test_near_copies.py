"""Near-copies: planted among real photos where they are at hand, among drawn ones elsewhere."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from flowers_tpu.data import near_copies
from tests.photos import jpeg
from tests.real import REAL

SIZE = 192


def photos(count, seed=0):
    """Pictures with something at every scale, all different."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        layers = [
            np.asarray(
                Image.fromarray(generator.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(
                    (SIZE, SIZE), Image.Resampling.BICUBIC
                ),
                np.float32,
            )
            for n in (3, 6, 12, 24)
        ]
        found.append(Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)))
    return found


def greys(pictures, quality=90):
    jpegs = [jpeg(np.asarray(picture), quality) for picture in pictures]
    return near_copies.grey_images(tf.data.Dataset.from_tensor_slices(jpegs), len(jpegs), "")


def part(picture, side, generator):
    """A part of a side, at a random place, enlarged to the whole size."""
    pixels = round(side * SIZE)
    x, y = generator.integers(0, SIZE - pixels + 1, 2)
    return picture.crop((x, y, x + pixels, y + pixels)).resize((SIZE, SIZE), Image.LANCZOS)


def mirror(picture):
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def resized(picture, generator):
    size = int(SIZE * generator.uniform(0.5, 2))
    return picture.resize((size, size), Image.BICUBIC).resize((SIZE, SIZE), Image.BICUBIC)


def changes(picture, generator):
    """What each kind of copy is made of a picture, as (kind, bytes of the JPEG)."""
    quality = int(generator.integers(50, 96))
    yield "re-encoded", jpeg(np.asarray(picture), quality)
    yield "resized", jpeg(np.asarray(resized(picture, generator)), 90)
    yield "mirrored", jpeg(np.asarray(mirror(picture)), 90)
    yield "90 % of the side", jpeg(np.asarray(part(picture, 0.9, generator)), 90)
    yield "85 % of the side", jpeg(np.asarray(part(picture, 0.85, generator)), 90)
    darker = np.asarray(picture, np.float32) * generator.uniform(0.7, 1, 3)
    yield "other colours", jpeg(darker.astype(np.uint8), 90)


def test_each_kind_of_copy_is_found_and_nothing_else():
    originals, generator = photos(30), np.random.default_rng(1)
    copies = [
        mirror(originals[3]),
        part(originals[7], 0.9, generator),
        mirror(part(originals[11], 0.92, generator)),
        resized(originals[20], generator),
    ]
    found = near_copies.find(np.concatenate([greys(originals), greys(copies, 60)]))
    pairs = {tuple(sorted(pair[:2])): pair for pair in found}
    assert pairs.keys() == {(3, 30), (7, 31), (11, 32), (20, 33)}
    assert [pairs[key].mirrored for key in sorted(pairs)] == [True, False, True, False]
    assert pairs[7, 31].first == 31  # the copy is what shows a part of the other
    assert pairs[7, 31].part == pytest.approx(0.9, abs=0.02)
    assert pairs[20, 33].part == pytest.approx(1, abs=0.02)
    assert all(pair.correlation > 0.97 for pair in found)


def test_photos_of_one_grey_are_like_no_other():
    flat = [Image.new("RGB", (SIZE, SIZE), (n, n, n)) for n in (0, 0, 128)]
    assert near_copies.find(greys([*flat, *photos(2)])) == []
    assert near_copies.find(greys(flat[:1])) == []


def test_the_grey_values_of_a_part_are_means_by_hand():
    """Of 4 columns 16 wide each, the right half has the columns 3 and 4."""
    image = np.repeat(np.float32([10, 20, 30, 50]), 16)[None, None].repeat(64, axis=1)
    half = near_copies._cut(image, 4, np.float32(0.5), np.float32(0), np.float32(0.5))
    np.testing.assert_allclose(half[0], [[30, 30, 50, 50]] * 4, rtol=1e-6)
    # A piece that begins within a pixel has its share of it: 8 of 16 pixels of 20, 8 of 30.
    shifted = near_copies._cut(image, 2, np.float32(0.5), np.float32(0), np.float32(0.375))
    np.testing.assert_allclose(shifted[0, 0], [25, 40], rtol=1e-6)


def test_groups_are_joined_by_chains():
    groups = near_copies.groups(6, [(0, 3), (3, 5), (1, 2)])
    assert groups[0] == groups[3] == groups[5] and groups[1] == groups[2]
    assert len(set(groups)) == 3
    assert sorted(near_copies.groups(3, [])) == [0, 1, 2]


def planted(count):
    """Real photos and copies of `count` of them: grey images, pairs by kind, number before."""
    jpegs, generator = REAL.jpegs("train", "val"), np.random.default_rng(0)
    made = [
        (kind, number, copy)
        for number in generator.permutation(len(jpegs))[:count].tolist()
        for kind, copy in changes(Image.open(io.BytesIO(jpegs[number])), generator)
    ]
    every = jpegs + [copy for _, _, copy in made]
    images = near_copies.grey_images(tf.data.Dataset.from_tensor_slices(every), len(every), "")
    wanted = {(n, len(jpegs) + place): kind for place, (kind, n, _) in enumerate(made)}
    return images, wanted, len(jpegs)


def measured(count):
    """Recall of each kind, and precision: of the pairs found, those of one original photo.

    Photos of the data set that are copies of one another by themselves are left out of it.
    """
    images, wanted, originals = planted(count)
    known = near_copies.find(images[:originals])
    group = near_copies.groups(originals, [pair[:2] for pair in known])
    of = np.concatenate([group, [group[first] for first, _ in wanted]])
    found = {tuple(sorted(pair[:2])) for pair in near_copies.find(images)}
    kinds = sorted(set(wanted.values()))
    recall = {
        kind: np.mean([pair in found for pair, k in wanted.items() if k == kind]) for kind in kinds
    }
    planted_only = [pair for pair in found if pair[1] >= originals]
    return recall, np.mean([of[a] == of[b] for a, b in planted_only]), len(known)


BARS = {"re-encoded": 0.99, "resized": 0.99, "mirrored": 0.99, "90 % of the side": 0.9}


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
@REAL.needed
def test_bars_on_real_photos(count):
    recall, precision, own = measured(count)
    print(f"{count} photos: recall {recall}, precision {precision:.4f}, {own} pairs of their own")
    assert all(recall[kind] >= bar for kind, bar in BARS.items()), recall
    assert precision >= 0.99
